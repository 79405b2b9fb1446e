"""One call of a policy, timed by pytest-benchmark's fixture, becomes a row of the report."""

import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from il_bench.errors import IlBenchError
from il_bench.latency.device import device_for
from il_bench.latency.measure import Samples, WarmUp
from il_bench.latency.processes import Worker
from il_bench.policies.checkpoint import LoadedPolicy, load_policy
from il_bench.protocol import TimedCall
from il_bench.suite import latency
from il_bench.suite.latency import CallSpec, first_calls, row_of, time_call

CPU = device_for("cpu")


class Benchmark:
    """pytest-benchmark's fixture as far as it is used: setup untimed, target timed, once a round."""

    def __init__(self, timer: Callable[[], float] = time.perf_counter) -> None:
        self._timer = timer
        self.stats = SimpleNamespace(stats=SimpleNamespace(data=[]))

    def pedantic(self, target: Callable[[], object], *, setup: Callable[[], object], rounds: int) -> None:
        for _ in range(rounds):
            assert setup() is None, "pytest-benchmark would take it for arguments"
            start = self._timer()
            target()
            self.stats.stats.data.append(self._timer() - start)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency.time_call, "__defaults__", ((0.05, 0.05),))


def test_a_row_is_made_of_the_samples_that_pytest_benchmark_took(policy: LoadedPolicy) -> None:
    benchmark = Benchmark()
    row = time_call(policy, CallSpec(TimedCall.NEW_CHUNK, 2), CPU, benchmark)
    times = sorted(benchmark.stats.stats.data)
    assert row.n == len(times) >= 6
    assert row.p50_ms is not None and times[0] <= row.p50_ms / 1e3 <= times[-1]
    assert row.share_of_period == pytest.approx(row.p50_ms / 100)
    assert row.first_call_ms and row.warm_up and row.peak_memory_mb and row.cpu_share
    assert (row.batch, row.device, row.mode, row.steps, row.event_ratio) == (2, "cpu", "eager", 1, None)
    assert row.state is not None and "load" in row.state


@pytest.mark.parametrize(
    ("timer", "clock"), [(time.perf_counter, "wall"), (time.process_time, "process_time")]
)
def test_a_row_says_by_which_clock(policy: LoadedPolicy, timer: Callable[[], float], clock: str) -> None:
    assert time_call(policy, CallSpec(TimedCall.NEW_CHUNK, 1), CPU, Benchmark(timer)).clock == clock


def test_timing_is_on_one_thread(policy: LoadedPolicy, monkeypatch: pytest.MonkeyPatch) -> None:
    predict = policy.policy.predict_action_chunk
    threads: list[int] = []

    def watched(*args: Any) -> torch.Tensor:
        threads.append(torch.get_num_threads())
        return predict(*args)

    monkeypatch.setattr(policy.policy, "predict_action_chunk", watched)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        time_call(policy, CallSpec(TimedCall.NEW_CHUNK, 1), CPU, Benchmark())
        assert set(threads) == {1} and torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def row(policy: LoadedPolicy, what: str, times: list[float], **fields: Any) -> Any:
    samples = Samples(tuple(times), WarmUp(0.5, (0.1,), True, 0.1), **fields)
    call: Any = SimpleNamespace(policy=policy, steps=8 if what == TimedCall.CONTROL_STEP else 1)
    return row_of(call, CallSpec(what, 1), CPU, samples, flops=8_000, floor_s=0.008)


def test_a_control_steps_time_is_its_share(policy: LoadedPolicy) -> None:
    calls = (TimedCall.NEW_CHUNK, TimedCall.CONTROL_STEP)
    whole, share = (row(policy, what, [0.08] * 300) for what in calls)
    assert (whole.p50_ms, share.p50_ms, share.p99_ms) == pytest.approx((80.0, 10.0, 10.0))
    assert (whole.share_of_period, share.share_of_period) == pytest.approx((0.8, 0.1))
    assert (whole.jitter, share.jitter) == (0.0, 0.0)
    assert whole.quantiles_ms and {round(ms, 6) for _, ms in whole.quantiles_ms} == {80.0}
    assert share.quantiles_ms and {round(ms, 6) for _, ms in share.quantiles_ms} == {10.0}
    assert (whole.flops, share.flops) == (8_000, 1_000)
    assert (whole.floor_ms, share.floor_ms) == pytest.approx((8.0, 1.0))
    assert (whole.ratio_to_floor, share.ratio_to_floor) == pytest.approx((10.0, 10.0))


@pytest.mark.parametrize(("n", "shown"), [(5, 0), (6, 1), (29, 2), (299, 3)])
def test_a_row_has_no_percentile_that_its_samples_do_not_bear(
    policy: LoadedPolicy, n: int, shown: int
) -> None:
    found = row(policy, TimedCall.NEW_CHUNK, [0.01] * n)
    times = (found.p50_ms, found.p90_ms, found.p99_ms)
    assert [each is not None for each in times] == [True] * shown + [False] * (3 - shown)


def test_a_row_names_the_sampler_of_a_diffusion_policy() -> None:
    assert row(load_policy("diffusion"), TimedCall.QUEUED_ACTION, [0.01] * 6).sampler.startswith("DDIM-")


@pytest.mark.slow
def test_a_fresh_process_pays_for_what_later_calls_find_done(checkpoint: Path) -> None:
    """One worker, a new process for each policy."""
    with Worker() as worker:
        worker.greeting()
        found = [worker.ask({"first_calls": str(checkpoint), "device": "cpu"}) for _ in range(3)]
        with pytest.raises(IlBenchError, match="nothing-here: no such policy"):
            worker.ask({"first_calls": "nothing-here", "device": "cpu"})
        row = first_calls(load_policy(checkpoint), str(checkpoint), CPU, worker)
    # The least of several: other programs disturb single calls.
    load, first, second = (
        min(each[f"{name}_s"] for each in found) for name in ("load", "first_call", "second_call")
    )
    assert first > second > 0 and load > 0
    assert (row.what, row.n, row.p50_ms, row.peak_memory_mb) == ("fresh process", 1, None, None)
    assert row.resident_mb and row.resident_mb > 50 and row.first_call_ms and row.load_ms


def test_a_row_holds_the_floor_that_was_timed_beside_it(policy: LoadedPolicy) -> None:
    one, two = (time_call(policy, CallSpec(TimedCall.NEW_CHUNK, batch), CPU, Benchmark()) for batch in (1, 2))
    assert one.flops and two.flops == 2 * one.flops
    assert one.floor_ms and one.p50_ms and one.cpu_share
    assert one.ratio_to_floor == pytest.approx(one.cpu_share * one.p50_ms / one.floor_ms)
    assert one.ratio_to_floor > 1, "nothing is faster than its matrix products"
    queued = time_call(policy, CallSpec(TimedCall.QUEUED_ACTION, 1), CPU, Benchmark())
    assert (queued.flops, queued.floor_ms, queued.ratio_to_floor) == (0, None, None)
