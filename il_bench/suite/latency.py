"""What test_latency.py does with one call of one policy: time it with pytest-benchmark and make its row."""

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
from il_bench.report.schema import Latency

#: Seconds of timed calls: of what one robot waits for, a new chunk with processing, and of everything else.
SECONDS = {"short": (1.0, 0.2), "full": (15.0, 5.0)}
WARM_CALLS = 2  # before memory is watched: what is kept from then on is no call's own


@dataclass(frozen=True)
class CallSpec:
    """What is timed of a policy: arguments of `calls.policy_call`."""

    what: str
    batch: int
    processed: bool = True
    mode: str = Mode.EAGER


def time_call(
    policy: LoadedPolicy, spec: CallSpec, device: Device, benchmark: Any, effort: str = "short"
) -> Latency:
    """Time one call by pytest-benchmark's fixture, whose samples and timer are used; return its row.

    One call is one round. A control step's round is all actions of one prediction, and only the row divides
    it by their number. Between rounds the machine's matrix products are timed, for the row's floor.

    Raises:
        NoSuchCallError: the policy has no such call.
        IlBenchError: the device lacks the mode; the timer does not see what the device does.
    """
    call = calls.policy_call(policy, **vars(spec), device=device)
    clock = benchmark._timer  # what --benchmark-timer says
    with inference_on_one_thread():
        # Of the eager call, whatever the mode: the operations are the same, and can be seen there.
        eager = calls.policy_call(policy, **vars(spec) | {"mode": Mode.EAGER}, device=device)
        eager.prepare()
        flops = count_flops(eager.call)
        # On a CPU, processor time: what other processes take is not the machine's rate, see `row_of`.
        rate_clock = time.process_time if device.kind == "cpu" else clock
        products = MatrixProducts(device, dtype_of(policy.policy), clock=rate_clock) if flops else None

        def take(timed: MeasuredCall, n: int) -> list[float]:
            setup = products.between(timed.ready, call.call, calls=n) if products else timed.ready
            benchmark.pedantic(timed.timed, setup=setup, rounds=n)
            return list(benchmark.stats.stats.data)

        is_waited_for = (spec.what, spec.batch, spec.processed) == (TimedCall.NEW_CHUNK, 1, True)
        seconds = SECONDS[effort][0 if is_waited_for else 1]
        samples = measure(call.call, device, prepare=call.prepare, clock=clock, seconds=seconds, take=take)
        is_prediction = spec.what in (TimedCall.NEW_CHUNK, TimedCall.PREDICT)
        held_mb = _held_mb(policy, spec, device) if is_prediction else None
        floor_s = flops / products.flops_per_second if flops and products else None
    row = row_of(call, spec, device, samples, flops, floor_s)
    name = "wall" if clock.__name__ in ("perf_counter", "time", "monotonic") else clock.__name__
    return row.model_copy(update={"peak_memory_mb": held_mb, "clock": name})


def _held_mb(policy: LoadedPolicy, spec: CallSpec, device: Device) -> float | None:
    """The most memory that one call holds of its own.

    Of denoising only two steps are watched: a hundred would take ten seconds, and hold no more.
    """
    is_watched_short = spec.mode == Mode.EAGER and inference.sampler_of(policy) is not None
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
    """The report's row of what was measured, each time divided by the control steps that it serves.

    `flops`: of the call; None where they could not be counted. `floor_s`: seconds of its matrix products.
    """

    def ms(seconds: float | None) -> float | None:
        return None if seconds is None else 1e3 * seconds / call.steps

    p50, p90, p99 = (ms(samples.percentile(q)) for q in (0.5, 0.9, 0.99))
    floor_ms = ms(floor_s)
    # On a CPU both sides of the ratio are processor time: products are too short to be interrupted as often.
    busy = samples.cpu_share if device.kind == "cpu" and samples.cpu_share is not None else 1.0
    return Latency(
        policy=call.policy.name,
        **vars(spec),
        device=device.name,
        n=samples.n,
        p50_ms=p50,
        p90_ms=p90,
        p99_ms=p99,
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
    """What another process loads a selected policy from; skips the test of one that only this process has."""
    (choice,) = (each for each in settings.policies if each.gate_name == policy.name)
    if choice.in_process:
        pytest.skip("a call of this project gives it, which another process cannot make")
    return choice.source


def first_calls(policy: LoadedPolicy, spec: str, device: Device, worker: Worker) -> Latency:
    """Let a worker load the policy that `spec` names in a fresh process, and time its first call."""
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
