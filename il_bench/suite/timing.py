"""What test_throughput.py and test_latency.py time, on one thread as rollouts do."""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from il_bench.policies.loading import LoadedPolicy
from il_bench.pusht.batch import PushTBatch
from il_bench.report.schema import Latency

FIRST_SEED = 100_000
MOST_CALLS, FEWEST_CALLS = 100, 20
SECONDS = 3.0  # a slow policy is called less often
WARM_UP = 3

Call = Callable[[], object]
Clock = Callable[[], float]  # seconds since whenever


@dataclass(frozen=True, eq=False)
class Work:
    """A call that does `n` of something, and what is timed in turns with it.

    Attributes:
        reference: another call that does `reference_n` of the same (None: `n`); `reference_name` in words.
        floor: a call that does only what no implementation can leave out.
    """

    call: Call
    n: int
    reference: Call | None = None
    reference_name: str | None = None
    reference_n: int | None = None
    floor: Call | None = None


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


def observations(batch: int) -> dict[str, Tensor]:
    """The simulator's raw start observations of `batch` episodes."""
    worlds = PushTBatch()
    worlds.reset(np.arange(FIRST_SEED, FIRST_SEED + batch))
    return {key: torch.from_numpy(value) for key, value in worlds.observations().items()}


def acting(policy: LoadedPolicy, batch: int) -> Work:
    """Take all actions of one prediction, over the batch."""
    n_steps = int(getattr(policy.policy.config, "n_action_steps", 1))
    seen = observations(batch)
    policy.reset()

    def act() -> None:
        for _ in range(n_steps):
            policy.select_action(seen)

    return Work(act, n_steps * batch)


def rounds(calls: Sequence[Call], seconds: float, clock: Clock) -> int:
    """How often to time `calls` in turns so that it takes about `seconds`; warms them up."""
    taken: list[float] = []
    with one_thread():
        for call in calls:
            call()
        while len(taken) < WARM_UP and sum(taken) < seconds:
            start = clock()
            for call in calls:
                call()
            taken.append(clock() - start)
    return max(FEWEST_CALLS // 4, min(MOST_CALLS, int(seconds / min(taken))))


def peak_memory_mb(call: Call, device: str) -> float | None:
    """The most that one call holds beyond what was there before, its result included; None where unknown."""
    kind = torch.device(device).type
    if kind == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        return (torch.cuda.max_memory_allocated(device) - before) / 1e6
    if kind != "cpu":
        return None
    with one_thread(), _profile() as profiled:
        call()
    held = most = 0
    for event in profiled.profiler.kineto_results.events():
        if event.name() == "[memory]":  # one each time torch takes memory, or gives it back
            held += event.nbytes()
            most = max(most, held)
    return most / 1e6


def _profile() -> profile:
    # acc_events: without it torch warns that it forgets the events of earlier cycles; there are none.
    return profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True)


def waited_for(call: Call, device: str) -> Call:
    """The call that returns only when the device is done with it."""
    if torch.device(device).type != "cuda":
        return call

    def wait() -> None:
        call()
        torch.cuda.synchronize(device)

    return wait


def latency(policy: LoadedPolicy, batch: int, device: str) -> Latency:
    """Time first actions of an episode, each of which waits for a prediction and arrives on the CPU."""
    seen = observations(batch)
    on_cuda = torch.device(device).type == "cuda"
    times: list[float] = []
    with one_thread():
        while len(times) < WARM_UP + MOST_CALLS:
            if len(times) == WARM_UP and on_cuda:
                torch.cuda.reset_peak_memory_stats(device)
            policy.reset()
            start = time.perf_counter()
            policy.select_action(seen)
            times.append(time.perf_counter() - start)
            if len(times) >= WARM_UP + FEWEST_CALLS and sum(times) > SECONDS:
                break
    kept = times[WARM_UP:]
    percentiles = statistics.quantiles(kept, n=100, method="inclusive")
    return Latency(
        policy=policy.name,
        what="first select_action",
        batch=batch,
        device=device,
        mode="eager, 1 thread",
        n=len(kept),
        p50_ms=1e3 * percentiles[49],
        p90_ms=1e3 * percentiles[89],
        p99_ms=1e3 * percentiles[98],
        peak_memory_mb=torch.cuda.max_memory_allocated(device) / 1e6 if on_cuda else None,
    )


@contextmanager
def one_thread() -> Iterator[None]:
    """Run torch on one thread, and without gradients."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            yield
    finally:
        torch.set_num_threads(before)
