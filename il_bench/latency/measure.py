"""Times a call repeatedly: the first call, then warm-up, then the samples that are reported."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from il_bench.errors import IlBenchError
from il_bench.latency.device import Device
from il_bench.latency.turns import Call, Clock

COVERAGE = 0.95  # of the order statistics' interval around a percentile
WINDOW = 5  # calls whose median is compared with the median of the WINDOW before
#: What a distribution is drawn from, see `Samples.quantiles`.
QUANTILES = (0.0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1.0)
DRIFT = 0.05  # by how much the two may differ
FEWEST, MOST = 6, 2_000  # calls: fewer give no percentile at all (see `enough`)
WARM_UP = 1 / 3  # of the seconds of timed calls, at most
CROSS_CHECKS = 7
#: The share of the device's own time that a clock must see. With the host's work it should see 1 or more.
SEEN = 0.95


@dataclass(frozen=True)
class WarmUp:
    """The calls before the samples.

    first_s: seconds of the first call. times: seconds of the others. stable: whether these `settled` in time.
    cycle_s: seconds from call to call, preparation included.
    """

    first_s: float
    times: tuple[float, ...]
    stable: bool
    cycle_s: float


@dataclass(frozen=True)
class Samples:
    """The seconds of each call, and the warm-up before them.

    event_ratio: see `MeasuredCall.cross_check`. cpu_s: processor seconds of this process during all calls.
    """

    times: tuple[float, ...]
    warm_up: WarmUp
    event_ratio: float | None = None
    cpu_s: float | None = None

    @property
    def n(self) -> int:
        """How many calls were timed."""
        return len(self.times)

    @property
    def cpu_share(self) -> float | None:
        """Processor time over wall time; the rest of 1 went to other processes or to waiting for a device."""
        return None if self.cpu_s is None or not sum(self.times) else self.cpu_s / sum(self.times)

    def percentile(self, q: float) -> float | None:
        """The q-quantile of the times in seconds; None if there are too few (see `enough`)."""
        return float(np.quantile(self.times, q)) if enough(self.n, q) else None

    @property
    def quantiles(self) -> tuple[tuple[float, float], ...]:
        """Pairs of a share of the calls and the seconds that it took at most, the fastest first.

        Shares that there are too few times for (see `enough`) are left out.
        """
        shares = [q for q in QUANTILES if q in (0.0, 1.0) or enough(self.n, q)]
        return tuple(zip(shares, np.quantile(self.times, shares).tolist(), strict=True))

    @property
    def jitter(self) -> float | None:
        """Interquartile range over median; None if there are too few times for quartiles."""
        low, middle, high = (self.percentile(q) for q in (0.25, 0.5, 0.75))
        return (high - low) / middle if low is not None and high is not None and middle else None


def enough(n: int, q: float) -> bool:
    """Whether n independent samples are enough for their distribution's q-quantile.

    The interval from the smallest to the largest misses it with probability q^n + (1 - q)^n (David and
    Nagaraja, Order Statistics, 3rd edition, section 7.1). That must be at most 5 %: so the median needs 6
    samples, quartiles 11, p90 29 and p99 299. Successive calls are not quite independent, so this is the
    least to ask for.
    """
    return n > 0 and q**n + (1.0 - q) ** n <= 1.0 - COVERAGE


class MeasuredCall:
    """A call for any timer: run `ready()` before timing, and time `timed()`.

    prepare: runs before each call, untimed. clock: wall time in seconds.
    cpu_clock: processor seconds of this process; `cpu_s` sums those inside `timed`.
    """

    def __init__(
        self,
        call: Call,
        device: Device,
        prepare: Call = lambda: None,
        *,
        clock: Clock = time.perf_counter,
        cpu_clock: Clock = time.process_time,
    ) -> None:
        self._call, self._device, self._prepare = call, device, prepare
        self._clock, self._cpu_clock = clock, cpu_clock
        self.cpu_s = 0.0

    def ready(self) -> None:
        """Prepare the call and wait for the device, so that earlier work does not count."""
        self._prepare()
        self._device.synchronize()

    def timed(self) -> object:
        """Call, and wait for the device."""
        before = self._cpu_clock()
        result = self._call()
        self._device.synchronize()
        self.cpu_s += self._cpu_clock() - before
        return result

    def once(self) -> float:
        """Call once; return its seconds."""
        self.ready()
        start = self._clock()
        self.timed()
        return self._clock() - start

    def warm_up(self, seconds: float) -> WarmUp:
        """Time the first call, then others until they have `settled` or `seconds` are over."""
        first = self.once()
        times: list[float] = []
        start = self._clock()
        stable = False
        while not stable and (not times or self._clock() - start < seconds):
            times.append(self.once())
            stable = settled(times)
        return WarmUp(first, tuple(times), stable, cycle_s=(self._clock() - start) / len(times))

    def cross_check(self) -> float | None:
        """The device's own time of a call over the clock's, a median; None without a device clock.

        Near 1, the call waits for the device; near 0, for the host. Above 1, the clock did not wait for the
        device; if it saw less than SEEN of the device's time, that is an IlBenchError.
        """
        ratios = []
        for _ in range(CROSS_CHECKS):
            begin, end = self._device.event(), self._device.event()
            if begin is None:
                return None
            self.ready()
            start = self._clock()
            begin.record()
            self._call()
            end.record()
            self._device.synchronize()
            ratios.append(begin.elapsed_time(end) / 1e3 / max(self._clock() - start, 1e-12))
        ratio: float = statistics.median(ratios)
        if ratio * SEEN > 1.0:
            raise IlBenchError(
                f"timing on {self._device.name}: the clock saw 1/{ratio:.3g} of the device's own time; it "
                "does not wait for the device, or is not a wall clock (leave --benchmark-timer out)"
            )
        return ratio


def settled(times: Sequence[float]) -> bool:
    """Whether the median of the last WINDOW times is within DRIFT of the median of the WINDOW before."""
    if len(times) < 2 * WINDOW:
        return False
    before, now = statistics.median(times[-2 * WINDOW : -WINDOW]), statistics.median(times[-WINDOW:])
    return abs(now - before) <= DRIFT * before


def rounds(warm: WarmUp, seconds: float) -> int:
    """How many calls take about `seconds`, preparation included, between FEWEST and MOST."""
    possible = MOST if warm.cycle_s <= 0.0 else int(seconds / warm.cycle_s)
    return max(FEWEST, min(MOST, possible))


def measure(
    call: Call,
    device: Device,
    *,
    prepare: Call = lambda: None,
    clock: Clock = time.perf_counter,
    seconds: float = 1.0,
    take: Callable[[MeasuredCall, int], Sequence[float]] | None = None,
) -> Samples:
    """Time a call: once, until it is warm, then for about `seconds`, preparation included.

    prepare, clock: see `MeasuredCall`.
    take: times a number of calls and returns the seconds of each, as pytest-benchmark does; default: `clock`.
    """
    work = MeasuredCall(call, device, prepare, clock=clock)
    warm = work.warm_up(WARM_UP * seconds)
    work.cpu_s, n = 0.0, rounds(warm, seconds)
    times = [work.once() for _ in range(n)] if take is None else take(work, n)
    return Samples(tuple(times), warm, work.cross_check(), cpu_s=work.cpu_s)
