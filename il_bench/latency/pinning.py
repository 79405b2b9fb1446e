"""One core for all that is compared: two cores of a machine differ, by what else runs on them."""

import contextlib
import os
import time
from collections.abc import Callable, Iterable

ROUNDS = 15
WORK = 4000  # additions: a fraction of a millisecond


def pin(processes: Iterable[int], core: int) -> None:
    """Let the main threads of these processes run on that core only; one that has ended is left out."""
    for process in processes:
        with contextlib.suppress(ProcessLookupError):  # why it ended is said when it is asked
            os.sched_setaffinity(process, {core})


def quietest_core(clock: Callable[[], float] = time.perf_counter) -> int | None:
    """The core, of those allowed to us, that does a piece of work soonest; None where it cannot be chosen.

    Wall time, so that a core that somebody else works on counts as slow. Only Linux lets a process choose.
    """
    if not hasattr(os, "sched_setaffinity"):
        return None
    allowed = os.sched_getaffinity(0)
    taken: dict[int, list[float]] = {core: [] for core in sorted(allowed)}
    try:
        for _ in range(ROUNDS):
            for core, times in taken.items():
                os.sched_setaffinity(0, {core})
                times.append(_seconds_of_work(clock))
    finally:
        os.sched_setaffinity(0, allowed)
    return min(taken, key=lambda core: sorted(taken[core])[ROUNDS // 2])


def _seconds_of_work(clock: Callable[[], float]) -> float:
    start, counted = clock(), 0
    for place in range(WORK):
        counted += place & 3
    return clock() - start
