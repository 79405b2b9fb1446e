"""Where independent tasks run: executors behind one protocol, by name in EXECUTORS; `choose` picks one."""

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Any, Protocol

from il_bench.errors import IlBenchError
from il_bench.machine import usable_cores
from il_bench.protocol import ExecutorName

#: What a result depends on besides the task, as `machine.fingerprint` gives it.
Conditions = Callable[[], Mapping[str, Any]]


@dataclass
class Spent:
    """Processor seconds."""

    seconds: float = 0.0


#: By all workers of this process so far.
BY_WORKERS = Spent()


@dataclass(frozen=True)
class Job[L, T, R]:
    """Independent tasks: `function(load(), task)` for each.

    load: gives what every task needs, such as a policy. A process calls it once, before its first task.
    name: what an error calls a task.
    """

    load: Callable[[], L]
    function: Callable[[L, T], R]
    tasks: Sequence[T]
    name: Callable[[T], str] = str


class Executor(Protocol):
    """Runs independent tasks. To add one: a module beside this one, and a line in EXECUTORS."""

    def run[L, T, R](self, job: Job[L, T, R]) -> Generator[R, None, None]:
        """Yield the result of every task, in whatever order the tasks finish.

        Closing the generator ends all work at once. Raises whatever `load` or `function` raises.
        """


class InlineExecutor:
    """One task after the other, in this process, in the given order."""

    def run[L, T, R](self, job: Job[L, T, R]) -> Generator[R, None, None]:
        """See `Executor.run`."""
        if job.tasks:
            yield from map(partial(job.function, job.load()), job.tasks)


def _processes(workers: int, timeout: float | None) -> Executor:
    from il_bench.rollout.executors.processes import ProcessExecutor  # every pytest run reads the names below

    return ProcessExecutor(workers, timeout)


def _ray(workers: int, timeout: float | None) -> Executor:
    from il_bench.rollout.executors.cluster import RayExecutor

    return RayExecutor(workers, timeout)


def import_ahead(workers: int, executor: str | Executor | None) -> None:
    """Let the process that workers will come from, if any, import what a policy needs, as this one does."""
    if workers > 1 and executor in (None, ExecutorName.PROCESSES):
        from il_bench.rollout.executors import starting

        starting.import_ahead()


#: By the name that `--il-executor` takes; each makes an executor for a number of workers, and for the seconds
#: that a task may take where it can be ended.
EXECUTORS: dict[str, Callable[[int, float | None], Executor]] = {
    ExecutorName.INLINE: lambda workers, timeout: InlineExecutor(),
    ExecutorName.PROCESSES: _processes,
    ExecutorName.RAY: _ray,
}


def choose(
    workers: int, n_tasks: int, executor: str | Executor | None = None, timeout: float | None = None
) -> Executor:
    """Return the executor, or the one of this name; None: processes if at least two can work, else inline."""
    if executor is None:
        executor = ExecutorName.INLINE if min(workers, n_tasks) <= 1 else ExecutorName.PROCESSES
    if not isinstance(executor, str):
        return executor
    if executor not in EXECUTORS:
        raise IlBenchError(f"executor {executor!r} is unknown; use {', '.join(EXECUTORS)}")
    return EXECUTORS[executor](workers, timeout)


def check(name: str | None, address: str | None, device: str = "cpu", *, prefix: str = "--") -> None:
    """Raise IlBenchError for an executor that cannot be had, or an address or device that it cannot use.

    prefix: how the names of these options begin.
    """
    if address is not None and name != ExecutorName.RAY:
        raise IlBenchError(
            f"{prefix}address: only Ray has one; add {prefix}executor {ExecutorName.RAY}, or leave it out"
        )
    if name == ExecutorName.RAY and find_spec("ray") is None:
        raise IlBenchError(f"{prefix}executor: Ray is not installed; pip install 'il-bench[ray]'")
    if name == ExecutorName.RAY and ":" in device:
        kind = device.partition(":")[0]
        raise IlBenchError(f"{prefix}device: {device}: Ray assigns GPUs itself; say {kind}")


def of_options(
    name: str | None,
    address: str | None,
    workers: int | None,
    conditions: Conditions,
    *,
    on_gpu: bool = False,
    timeout: float | None = None,
) -> str | Executor | None:
    """Return what `choose` takes, for checked options: on Ray an executor that keeps other machines out.

    workers: None: as many as the cluster has room for, or one for each core of this machine alone.
    conditions: have to be the same on every node.
    """
    if name != ExecutorName.RAY:
        return name
    from il_bench.rollout.executors.cluster import RayExecutor

    workers = workers or (None if address else usable_cores())
    return RayExecutor(workers, timeout, address=address, conditions=conditions, on_gpu=on_gpu)
