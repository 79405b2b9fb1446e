"""The work of test_latency.py: it times a call of a policy with pytest-benchmark and makes its row."""

import time
from dataclasses import dataclass
from typing import Any

import pytest

from il_bench.latency import calls, inference
from il_bench.latency.device import Device, inference_on_one_thread
from il_bench.latency.flops import count_flops
from il_bench.latency.matmul import MatrixProducts, dtype_of
from il_bench.latency.measure import MeasuredCall, Samples, measure
from il_bench.latency.processes import Worker
from il_bench.plugin.settings import Settings
from il_bench.policies.checkpoint import LoadedPolicy
from il_bench.protocol import CONTROL_PERIOD_MS, FRESH_PROCESS, Mode, TimedCall
from il_bench.report.rows import Latency

#: Seconds of timed calls: for what one robot waits for, a new chunk with processing, and for all other calls.
Seconds = tuple[float, float]
SHORT, FEW = 1.0, 0.2  # at most
FULL: Seconds = (15.0, 5.0)
WARM_CALLS = 2  # before memory is watched: what they leave there is not counted


@dataclass(frozen=True)
class CallSpec:
    """The call of a policy to time: arguments of `calls.policy_call`."""

    what: str
    batch: int
    processed: bool = True
    mode: str = Mode.EAGER


def time_call(
    policy: LoadedPolicy, spec: CallSpec, device: Device, benchmark: Any, seconds: Seconds = (SHORT, FEW)
) -> Latency:
    """Time one call with pytest-benchmark's fixture, its timer and its samples; return the row.

    A round is one call, which for a control step is all actions of one prediction; the row divides its time
    by their number. Between rounds the machine's matrix products are timed, for the row's floor.
    """
    call = calls.policy_call(policy, **vars(spec), device=device)
    clock = benchmark._timer  # --benchmark-timer
    with inference_on_one_thread():
        # Whatever the mode, the eager call is counted: its operations are the same, and can be seen.
        eager = calls.policy_call(policy, **vars(spec) | {"mode": Mode.EAGER}, device=device)
        eager.prepare()
        flops = count_flops(eager.call)
        # On a CPU it is processor time: what other processes take is not the machine's rate, see `row_of`.
        rate_clock = time.process_time if device.kind == "cpu" else clock
        products = MatrixProducts(device, dtype_of(policy.policy), clock=rate_clock) if flops else None

        def take(timed: MeasuredCall, n: int) -> list[float]:
            setup = products.between(timed.ready, call.call, calls=n) if products else timed.ready
            benchmark.pedantic(timed.timed, setup=setup, rounds=n)
            return list(benchmark.stats.stats.data)

        is_waited_for = (spec.what, spec.batch, spec.processed) == (TimedCall.NEW_CHUNK, 1, True)
        most = seconds[0 if is_waited_for else 1]
        samples = measure(call.call, device, prepare=call.prepare, clock=clock, seconds=most, take=take)
        is_prediction = spec.what in (TimedCall.NEW_CHUNK, TimedCall.PREDICT)
        held_mb = _held_mb(policy, spec, device) if is_prediction else None
        floor_s = flops / products.flops_per_second if flops and products else None
    row = row_of(call, spec, device, samples, flops, floor_s)
    name = "wall" if clock.__name__ in ("perf_counter", "time", "monotonic") else clock.__name__
    return row.model_copy(update={"peak_memory_mb": held_mb, "clock": name})


def _held_mb(policy: LoadedPolicy, spec: CallSpec, device: Device) -> float | None:
    """The most memory that one call adds. Two steps of denoising show it: a hundred add no more."""
    has_sampler = inference.sampler_of(policy) is not None
    is_watched_short = spec.mode == Mode.EAGER and has_sampler and inference.noise_levels(policy) > 2
    watched = inference.with_sampler(policy, "DDIM-2") if is_watched_short else policy
    call = calls.policy_call(watched, **vars(spec), device=device)
    for _ in range(WARM_CALLS):
        call.prepare()
        call.call()
    call.prepare()
    return device.call_memory_mb(call.call)


def row_of(
    call: calls.PolicyCall,
    spec: CallSpec,
    device: Device,
    samples: Samples,
    flops: int | None,
    floor_s: float | None,
) -> Latency:
    """The report's row, each time divided by the control steps that the call serves.

    `flops`: of the call; None if they could not be counted. `floor_s`: seconds of its matrix products.
    """

    def ms(seconds: float | None) -> float | None:
        return None if seconds is None else 1e3 * seconds / call.steps

    p50, p90, p99 = (ms(samples.percentile(q)) for q in (0.5, 0.9, 0.99))
    floor_ms = ms(floor_s)
    # On a CPU both sides of the ratio are processor time, since products are too short to be interrupted.
    busy = samples.cpu_share if device.kind == "cpu" and samples.cpu_share is not None else 1.0
    return Latency(
        policy=call.policy.name,
        **vars(spec),
        device=device.name,
        n=samples.n,
        p50_ms=p50,
        p90_ms=p90,
        p99_ms=p99,
        quantiles_ms=tuple((share, 1e3 * seconds / call.steps) for share, seconds in samples.quantiles),
        peak_memory_mb=None,
        sampler=inference.sampler_of(call.policy),
        steps=call.steps,
        share_of_period=None if p50 is None else p50 / CONTROL_PERIOD_MS,
        jitter=samples.jitter,
        first_call_ms=1e3 * samples.warm_up.first_s,
        warm_up=len(samples.warm_up.times),
        stable=samples.warm_up.stable,
        cpu_share=samples.cpu_share,
        event_ratio=samples.event_ratio,
        state=device.state(),
        flops=None if flops is None else round(flops / call.steps),
        floor_ms=floor_ms,
        ratio_to_floor=None if p50 is None or floor_ms is None else busy * p50 / floor_ms,
    )


def source_of(policy: LoadedPolicy, settings: Settings) -> str:
    """Where another process loads a selected policy from; skips the test if only this process has it."""
    (chosen,) = (each for each in settings.policies if each.gate_name == policy.name)
    if chosen.in_process:
        pytest.skip("a function of this project makes it, which another process cannot call")
    return chosen.source


def first_calls(policy: LoadedPolicy, spec: str, device: Device, worker: Worker) -> Latency:
    """Let a worker load the policy that `spec` names in a new process, and time its first call."""
    found = worker.ask({"first_calls": spec, "device": device.name})
    return Latency(
        policy=policy.name,
        what=FRESH_PROCESS,
        batch=1,
        device=device.name,
        mode=Mode.EAGER,
        n=1,
        p50_ms=None,
        p90_ms=None,
        p99_ms=None,
        peak_memory_mb=found["device_mb"],
        sampler=inference.sampler_of(policy),
        first_call_ms=1e3 * found["first_call_s"],
        load_ms=1e3 * found["load_s"],
        resident_mb=found["resident_mb"],
    )
