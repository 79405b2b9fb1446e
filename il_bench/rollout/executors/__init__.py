"""Where independent tasks run: strategies behind `Executor`, by name in EXECUTORS, and `choose` picks one."""

from collections.abc import Callable, Generator, Sequence
from typing import Protocol

from il_bench.errors import IlBenchError


class Executor(Protocol):
    """Runs independent tasks. To add one: a module beside this one, and a line in EXECUTORS."""

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


def _processes(workers: int) -> Executor:
    from il_bench.rollout.executors.processes import ProcessExecutor  # every pytest run reads the names below

    return ProcessExecutor(workers)


#: By the name that `--il-executor` takes: makes one for so many workers.
EXECUTORS: dict[str, Callable[[int], Executor]] = {
    "inline": lambda workers: InlineExecutor(),
    "processes": _processes,
}


def choose(workers: int, n_tasks: int, name: str | None = None) -> Executor:
    """Return the executor called `name` for so many workers and tasks; None: processes, if two can work."""
    workers = max(min(workers, n_tasks), 1)
    name = name or ("inline" if workers == 1 else "processes")
    if name not in EXECUTORS:
        raise IlBenchError(f"executor {name!r} is unknown; use {' or '.join(EXECUTORS)}")
    return EXECUTORS[name](workers)
