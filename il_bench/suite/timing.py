"""What test_throughput.py times, on one thread as rollouts do."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from il_bench.latency.calls import actions_per_prediction, observations
from il_bench.latency.device import device_for, inference_on_one_thread
from il_bench.policies.checkpoint import LoadedPolicy

MOST_CALLS, FEWEST_CALLS = 100, 20
WARM_UP = 3

Call = Callable[[], object]
Clock = Callable[[], float]  # seconds since whenever


@dataclass(frozen=True, eq=False)
class Work:
    """A call that does `n` of something, and what is timed in turns with it.

    Attributes:
        reference: another call that does `reference_n` of the same (None: `n`); `reference_name` in words.
        floor: a call that does only what hardly an implementation can leave out; `floor_name` in words.
        device: where it runs, whatever --il-device says; None: there.
    """

    call: Call
    n: int
    reference: Call | None = None
    reference_name: str | None = None
    reference_n: int | None = None
    floor: Call | None = None
    floor_name: str | None = None
    device: str | None = None


class Turns:
    """Times other calls between the rounds of one that somebody else times, so that all see the same machine.

    Calling it is one turn. Each call, at last the one that is timed next, runs once more before its own
    measurement unless that takes long: what another call left in the caches is not its doing.
    """

    def __init__(self, work: Work, clock: Clock, *, warm: bool) -> None:
        self._work = work
        self._clock = clock
        self._warm = warm
        self._seconds: dict[str, list[float]] = {"reference": [], "floor": []}

    def __call__(self) -> None:
        """Time the reference and the floor once."""
        for name, call in (("reference", self._work.reference), ("floor", self._work.floor)):
            if call is None:
                continue
            if self._warm:
                call()
            start = self._clock()
            call()
            self._seconds[name].append(self._clock() - start)
        if self._warm:
            self._work.call()

    def ratios(self, seconds: float) -> tuple[float | None, float | None]:
        """Speed over the reference's and over the floor's, where the call takes `seconds`; medians."""
        work = self._work
        counts = {"reference": work.reference_n or work.n, "floor": work.n}
        reference, floor = (
            (work.n / seconds) / (counts[name] / statistics.median(times)) if times else None
            for name, times in self._seconds.items()
        )
        return reference, floor


def acting(policy: LoadedPolicy, batch: int) -> Work:
    """Take all actions of one prediction, over the batch."""
    n_steps = actions_per_prediction(policy)
    seen = observations(batch)
    policy.reset()

    def act() -> None:
        for _ in range(n_steps):
            policy.select_action(seen)

    return Work(act, n_steps * batch)


def rounds(calls: Sequence[Call], seconds: float, clock: Clock) -> int:
    """How often to time `calls` in turns so that it takes about `seconds`; warms them up."""
    taken: list[float] = []
    with inference_on_one_thread():
        for call in calls:
            call()
        while len(taken) < WARM_UP and sum(taken) < seconds:
            start = clock()
            for call in calls:
                call()
            taken.append(clock() - start)
    return max(FEWEST_CALLS // 4, min(MOST_CALLS, int(seconds / min(taken))))


def waited_for(call: Call, device: str) -> Call:
    """The call that returns only when the device is done with it."""
    where = device_for(device)

    def wait() -> None:
        call()
        where.synchronize()

    return call if where.kind == "cpu" else wait
