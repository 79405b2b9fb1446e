"""What test_latency.py does with one call of one policy: time it with pytest-benchmark and make its row."""

import time
from dataclasses import dataclass
from typing import Any

from il_bench.latency import calls, fresh, variants
from il_bench.latency.device import Device, inference_on_one_thread
from il_bench.latency.flops import count
from il_bench.latency.matmul import Call, Clock, Floor, MatrixProducts, dtype_of
from il_bench.latency.measure import Samples, Timed, cross_check, rounds, warm_up
from il_bench.latency.memory import peak_memory_mb
from il_bench.policies.checkpoint import LoadedPolicy
from il_bench.protocol import CONTROL_HZ
from il_bench.report.schema import Latency

PERIOD_MS = 1e3 / CONTROL_HZ
FRESH = "fresh process"
#: Seconds of timed calls: of what a robot waits for, and of everything else.
SECONDS = {"short": (1.0, 0.2), "full": (15.0, 5.0)}
_WARM_UP = 1 / 3  # of these
WARM_CALLS = 2  # before memory is watched: what is kept from then on is no call's own


@dataclass(frozen=True)
class Subject:
    """What is timed of a policy: arguments of `calls.policy_call`."""

    what: str
    batch: int
    processed: bool = True
    mode: str = variants.EAGER

    @property
    def is_what_a_robot_waits_for(self) -> bool:
        """Whether a robot alone waits for it: a new chunk, with processing."""
        return (self.what, self.batch, self.processed) == (calls.NEW_CHUNK, 1, True)


def timed(
    policy: LoadedPolicy, subject: Subject, device: Device, benchmark: Any, effort: str = "short"
) -> Latency:
    """Time one call by pytest-benchmark's fixture, whose samples and timer are used; return its row.

    One call is one round. A control step's round is all actions of one prediction, and only the row divides
    it by their number. Between rounds the machine's matrix products are timed, for the row's floor.

    Raises:
        NoSuchCallError: the policy has no such call.
        IlBenchError: the device lacks the mode; the timer does not see what the device does.
    """
    call = calls.policy_call(
        policy,
        subject.what,
        subject.batch,
        processed=subject.processed,
        mode=subject.mode,
        device=device,
    )
    seconds = SECONDS[effort][0 if subject.is_what_a_robot_waits_for else 1]
    options: Any = {"prepare": call.prepare, "clock": benchmark._timer}  # what --benchmark-timer says
    work = Timed(call.call, device, call.prepare)
    with inference_on_one_thread():
        beside = _Products(policy, subject, device, benchmark._timer)
        warm = warm_up(call.call, device, seconds=seconds * _WARM_UP, **options)
        n = rounds(warm, seconds)
        benchmark.pedantic(work.timed, setup=beside.between(work.ready, call.call, n), rounds=n)
        cpu_s, times = work.cpu_s, tuple(benchmark.stats.stats.data)
        samples = Samples(times, warm, cross_check(call.call, device, **options), cpu_s)
        held = None
        if subject.what in (calls.NEW_CHUNK, calls.PREDICT):
            held = _held_mb(policy, subject, device)
    name = benchmark._timer.__name__
    clock = "wall" if name in ("perf_counter", "time", "monotonic") else name
    return row_of(call, subject, device, samples, held, beside.floor, clock)


def _held_mb(policy: LoadedPolicy, subject: Subject, device: Device) -> float | None:
    """The most memory that one call holds of its own.

    Of a diffusion policy's denoising two steps are looked at: each holds what the one before gave back, and
    watching a hundred takes ten seconds.
    """
    is_watched_short = subject.mode == variants.EAGER and variants.sampler_of(policy) is not None
    watched = variants.with_sampler(policy, "DDIM-2") if is_watched_short else policy
    call = calls.policy_call(
        watched,
        subject.what,
        subject.batch,
        processed=subject.processed,
        mode=subject.mode,
        device=device,
    )
    for _ in range(WARM_CALLS):
        call.prepare()
        call.call()
    call.prepare()
    return peak_memory_mb(call.call, device.name)


class _Products:
    """The operations of a call, and matrix products that are timed in turns with it if it has any."""

    def __init__(self, policy: LoadedPolicy, subject: Subject, device: Device, clock: Clock) -> None:
        # Of the eager call, whatever the mode: the operations are the same, and can be seen there.
        call = calls.policy_call(
            policy, subject.what, subject.batch, processed=subject.processed, device=device
        )
        call.prepare()
        self._flops = count(call.call).total
        if device.kind == "cpu":
            clock = time.process_time  # what other processes take is not the machine's rate, see `row_of`
        self._products = MatrixProducts(device, dtype_of(policy.policy), clock=clock) if self._flops else None

    def between(self, prepare: Call, call: Call, n: int) -> Call:
        """What to run before each of n timed calls instead of `prepare`."""
        return prepare if self._products is None else self._products.between(prepare, call, calls=n)

    @property
    def floor(self) -> Floor:
        """What the operations take at the rate of the products."""
        return Floor(self._flops) if self._products is None else self._products.floor(self._flops)


def row_of(
    call: calls.PolicyCall,
    subject: Subject,
    device: Device,
    samples: Samples,
    held_mb: float | None,
    floor: Floor,
    clock: str = "wall",
) -> Latency:
    """The report's row of what was measured, each time divided by the control steps it serves."""
    per_step_ms = 1e3 / call.steps
    floor_ms = _times(floor.seconds, per_step_ms)
    # On a CPU both sides of the ratio are processor time: products are too short to be interrupted as often.
    busy = samples.cpu_share if device.kind == "cpu" and samples.cpu_share is not None else 1.0
    p50, p90, p99 = (_times(samples.percentile(q), per_step_ms) for q in (0.5, 0.9, 0.99))
    return Latency(
        policy=call.policy.name,
        what=subject.what,
        batch=subject.batch,
        device=device.name,
        mode=subject.mode,
        n=samples.n,
        p50_ms=p50,
        p90_ms=p90,
        p99_ms=p99,
        peak_memory_mb=held_mb,
        processed=subject.processed,
        sampler=variants.sampler_of(call.policy),
        steps=call.steps,
        share_of_period=None if p50 is None else p50 / PERIOD_MS,
        jitter=samples.jitter,
        first_call_ms=1e3 * samples.first_call_s,
        warm_up=len(samples.warm_up.times),
        stable=samples.warm_up.stable,
        cpu_share=samples.cpu_share,
        event_ratio=samples.event_ratio,
        clock=clock,
        state=device.state(),
        flops=None if floor.flops is None else round(floor.flops / call.steps),
        floor_ms=floor_ms,
        ratio_to_floor=None if p50 is None or floor_ms is None else busy * p50 / floor_ms,
    )


def first_calls(policy: LoadedPolicy, spec: str, device: Device) -> Latency:
    """Load the policy that `spec` names in a process of its own, and time its first call."""
    found = fresh.fresh_process(spec, device.name)
    return Latency(
        policy=policy.name,
        what=FRESH,
        batch=1,
        device=device.name,
        mode=variants.EAGER,
        n=1,
        p50_ms=None,
        p90_ms=None,
        p99_ms=None,
        peak_memory_mb=found.device_mb,
        sampler=variants.sampler_of(policy),
        first_call_ms=1e3 * found.first_call_s,
        load_ms=1e3 * found.load_s,
        resident_mb=found.resident_mb,
    )


def _times(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor
