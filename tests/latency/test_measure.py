import math
from dataclasses import replace
from itertools import chain, repeat

import numpy as np
import pytest
from scipy import stats

from il_bench.errors import IlBenchError
from il_bench.latency import measure as measuring
from il_bench.latency.device import CpuDevice
from il_bench.latency.measure import MeasuredCall, Samples, WarmUp, enough, measure, rounds, settled

from .fakes import FakeClock, FakeDevice

TAKES = 0.010
WARM = WarmUp(1.0, (1.0,), True, 1.0)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def device(clock: FakeClock) -> FakeDevice:
    return FakeDevice(clock)


def samples(*times: float) -> Samples:
    return Samples(times, WARM)


def test_a_distribution_has_the_shares_that_its_times_bear() -> None:
    found = dict(samples(*np.linspace(1.0, 2.0, 101)).quantiles)
    assert found == pytest.approx(
        {0.0: 1, 0.05: 1.05, 0.1: 1.1, 0.25: 1.25, 0.5: 1.5, 0.75: 1.75, 0.9: 1.9, 0.95: 1.95, 1.0: 2}
    )
    assert samples(3.0, 1.0, 2.0).quantiles == ((0.0, 1.0), (1.0, 3.0))


def test_a_call_is_timed_to_its_end_on_the_device(clock: FakeClock, device: FakeDevice) -> None:
    found = measure(device.call(TAKES), device, clock=clock, seconds=0.5)
    assert found.times == pytest.approx([TAKES] * found.n)
    assert found.warm_up.first_s == pytest.approx(TAKES)
    start = clock()
    device.call(TAKES)()
    assert clock() - start < 0.01 * TAKES, "a timer that does not wait is fooled"


def test_preparation_is_not_timed_but_counts_in_how_often_a_call_is(
    clock: FakeClock, device: FakeDevice
) -> None:
    found = measure(device.call(0.1), device, prepare=device.call(0.9), clock=clock, seconds=50.0)
    assert found.times == pytest.approx([0.1] * found.n)
    assert 49 <= found.n <= 50


def test_the_first_call_is_kept_apart(clock: FakeClock, device: FakeDevice) -> None:
    calls = chain([device.call(5.0, host=4.9)], repeat(device.call(TAKES)))

    def take(work: MeasuredCall, n: int) -> list[float]:
        assert work.cpu_s == 0.0, "nor does its processor time count"
        return [work.once() for _ in range(n)]

    found = measure(lambda: next(calls)(), device, clock=clock, seconds=0.5, take=take)
    assert found.warm_up.first_s == pytest.approx(5.0)
    assert max(found.times + found.warm_up.times) < 0.02


def test_processor_time_tells_waiting_from_computing(clock: FakeClock, device: FakeDevice) -> None:
    call = device.call(0.010, host=0.003)
    work = MeasuredCall(call, device, clock=clock, cpu_clock=lambda: clock.processor)
    times = tuple(work.once() for _ in range(4))
    assert Samples(times, WARM, cpu_s=work.cpu_s).cpu_share == pytest.approx(0.3, abs=0.01)
    assert samples(1.0).cpu_share is None


# ---- the cross-check with the device's own clock


def test_the_devices_own_time_is_compared_with_the_walls(clock: FakeClock, device: FakeDevice) -> None:
    call = device.call(0.010, host=0.006)
    assert MeasuredCall(call, device, clock=clock).cross_check() == pytest.approx(1.0, abs=0.01)
    bare = FakeDevice(clock, has_events=False)
    assert MeasuredCall(call, bare, clock=clock).cross_check() is None


def test_a_clock_that_does_not_see_the_device_is_refused(clock: FakeClock, device: FakeDevice) -> None:
    """Processor time, as --benchmark-timer=time.process_time has it, stands still while the host waits."""
    with pytest.raises(IlBenchError, match=r"fake:0.*does not wait.*--benchmark-timer"):
        measure(device.call(TAKES), device, clock=lambda: clock.processor, seconds=0.01)


def test_a_device_whose_wait_returns_at_once_is_found_out(
    clock: FakeClock, device: FakeDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "synchronize", lambda: None)
    with pytest.raises(AssertionError, match="before the device had passed"):
        MeasuredCall(device.call(TAKES), device, clock=clock).cross_check()


# ---- warm-up


def test_warm_up_goes_on_until_calls_take_the_same_time(clock: FakeClock, device: FakeDevice) -> None:
    """Each call is 10 % faster than the one before, until the twentieth."""
    takes = chain((0.9**k for k in range(20)), repeat(0.9**19))
    found = MeasuredCall(lambda: device.launch(next(takes)), device, clock=clock).warm_up(1e6)
    assert found.stable
    assert 20 <= len(found.times) <= 35
    assert settled(found.times) and not settled(found.times[:-1])


def test_warm_up_that_never_settles_ends_and_says_so(clock: FakeClock, device: FakeDevice) -> None:
    takes = (1.2**k for k in range(1000))
    work = MeasuredCall(lambda: device.launch(next(takes)), device, clock=clock)
    found = work.warm_up(50.0)
    assert not found.stable
    assert sum(found.times[:-1]) < 50.0
    assert len(work.warm_up(0.0).times) == 1, "at least one call warms up"


@pytest.mark.parametrize(("cycle", "seconds", "n"), [(0.1, 2.0, 20), (9.0, 2.0, 6), (1e-6, 2.0, 2000)])
def test_rounds_are_bounded(cycle: float, seconds: float, n: int) -> None:
    assert rounds(replace(WARM, cycle_s=cycle), seconds) == n


# ---- percentiles


@pytest.mark.parametrize(("q", "n"), [(0.5, 6), (0.25, 11), (0.75, 11), (0.9, 29), (0.99, 299)])
def test_a_percentile_needs_so_many_samples(q: float, n: int) -> None:
    """The binomial's own words: the chance that all of n samples, or none, lie below the quantile."""
    missed = stats.binom.pmf([0, n], n, q).sum()
    assert missed <= 0.05 < stats.binom.pmf([0, n - 1], n - 1, q).sum()
    assert enough(n, q) and not enough(n - 1, q)


def test_the_rule_covers_in_simulation() -> None:
    """The widest interval of 29 samples holds the true p90 in 95 of 100, of 28 in fewer."""
    draws = np.random.default_rng(0).exponential(size=(40_000, 29))
    true = -math.log(0.1)
    share = [np.mean((draws[:, :n].min(1) <= true) & (true <= draws[:, :n].max(1))) for n in (29, 28)]
    assert share[0] == pytest.approx(1 - 0.9**29, abs=0.005) and share[1] < share[0]


def test_too_few_samples_give_no_percentile() -> None:
    assert samples(*[1.0] * 298).percentile(0.99) is None
    assert samples(*[1.0] * 299).percentile(0.99) == 1.0
    assert samples(*[1.0] * 5).percentile(0.5) is None
    assert samples(*[1.0] * 10).jitter is None
    assert samples().percentile(0.5) is None


@pytest.mark.parametrize("q", [0.25, 0.5, 0.9, 0.99])
def test_percentiles_are_numpys(q: float) -> None:
    times = np.random.default_rng(1).exponential(size=321)
    assert samples(*times).percentile(q) == pytest.approx(np.quantile(times, q), rel=1e-12)


def test_jitter_is_the_interquartile_range_over_the_median() -> None:
    assert samples(*map(float, range(1, 102))).jitter == pytest.approx(50 / 51)
    assert samples(*[2.0] * 20).jitter == 0.0


def test_a_slow_host_is_timed_on_the_cpu_too(clock: FakeClock) -> None:
    found = measure(lambda: clock.work(0.02), CpuDevice("cpu"), clock=clock, seconds=1.0)
    assert found.times == pytest.approx([0.02] * found.n)
    assert found.event_ratio is None


def test_every_call_is_prepared_first(clock: FakeClock, device: FakeDevice) -> None:
    said: list[str] = []
    work = MeasuredCall(lambda: said.append("call"), device, lambda: said.append("prepare"), clock=clock)
    for _ in range(2):
        work.once()
    assert said == ["prepare", "call"] * 2
    assert measuring.FEWEST == 6, "the fewest calls that have a median"
