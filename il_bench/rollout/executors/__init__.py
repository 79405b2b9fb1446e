"""Where independent tasks run: executors behind one protocol, by name in EXECUTORS; `choose` picks one."""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from il_bench.errors import IlBenchError


@dataclass
class Spent:
    """Processor seconds."""

    seconds: float = 0.0


#: By all workers of this process so far.
BY_WORKERS = Spent()


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

        load: gives what every task needs, such as a policy. A process calls it once, before its first task.
        name: what an error calls a task. Closing the generator ends all work at once. Raises whatever `load`
        or `function` raises.
        """


class InlineExecutor:
    """One task after the other, in this process, in the given order."""

    def run[L, T, R](
        self,
        load: Callable[[], L],
        function: Callable[[L, T], R],
        tasks: Sequence[T],
        *,
        name: Callable[[T], str] = str,
    ) -> Generator[R, None, None]:
        """See `Executor.run`."""
        if tasks:
            yield from map(partial(function, load()), tasks)


def _processes(workers: int, timeout: float | None) -> Executor:
    from il_bench.rollout.executors.processes import ProcessExecutor  # every pytest run reads the names below

    return ProcessExecutor(workers, timeout)


def import_ahead() -> None:
    """Let the process that workers come from import what a policy needs, beside this one: it is as slow."""
    from il_bench.rollout.executors import starting

    starting.import_ahead()


#: By the name that `--il-executor` takes; each makes an executor for a number of workers, and for the seconds
#: that a task may take where it can be ended.
EXECUTORS: dict[str, Callable[[int, float | None], Executor]] = {
    "inline": lambda workers, timeout: InlineExecutor(),
    "processes": _processes,
}


def choose(workers: int, n_tasks: int, name: str | None = None, timeout: float | None = None) -> Executor:
    """Return the executor called `name`; None: processes if at least two can work, else inline."""
    workers = max(min(workers, n_tasks), 1)
    name = name or ("inline" if workers == 1 else "processes")
    if name not in EXECUTORS:
        raise IlBenchError(f"executor {name!r} is unknown; use {' or '.join(EXECUTORS)}")
    return EXECUTORS[name](workers, timeout)
