"""Where independent tasks run: strategies behind `Executor`, and `choose` picks one."""

from collections.abc import Callable, Generator, Sequence
from typing import Protocol

from il_bench.rollout.executors.processes import ProcessExecutor

__all__ = ["Executor", "InlineExecutor", "ProcessExecutor", "choose"]


class Executor(Protocol):
    """Runs independent tasks. To add one: a module beside this one, and a line in `choose`."""

    def run[L, T, R](
        self,
        load: Callable[[], L],
        function: Callable[[L, T], R],
        tasks: Sequence[T],
        *,
        name: Callable[[T], str] = str,
    ) -> Generator[R, None, None]:
        """Yield `function(load(), task)` for every task, in whatever order the tasks finish.

        Every process loads once, and only if it has a task: what every task needs, such as a policy. Closing
        the generator ends all work at once. name: what an error calls a task. Raises whatever `load` or
        `function` raises.
        """


class InlineExecutor:
    """One task after the other, in this process, in the order in which they are given."""

    def run[L, T, R](
        self,
        load: Callable[[], L],
        function: Callable[[L, T], R],
        tasks: Sequence[T],
        *,
        name: Callable[[T], str] = str,
    ) -> Generator[R, None, None]:
        """See `Executor.run`."""
        if not tasks:
            return
        loaded = load()
        for task in tasks:
            yield function(loaded, task)


def choose(workers: int, n_tasks: int) -> Executor:
    """Return the executor for so many workers (1: this process itself) and tasks."""
    return InlineExecutor() if min(workers, n_tasks) <= 1 else ProcessExecutor(min(workers, n_tasks))
