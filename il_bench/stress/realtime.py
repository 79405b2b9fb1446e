"""From milliseconds to control steps: a policy's latency at a control frequency, and what it misses."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from il_bench.errors import IlBenchError
from il_bench.latency import calls
from il_bench.latency.device import device_for, inference_on_one_thread
from il_bench.latency.measure import measure
from il_bench.policies.checkpoint import LoadedPolicy
from il_bench.protocol import TimedCall
from il_bench.report.schema import Stress
from il_bench.stress.arms import ARMS, Arm

LATENCY_ARMS = ("wait", "overlap")
#: A fall of success that counts as one: 5 points.
FALL = 0.05


def latency_steps(ms: float, hz: float) -> int:
    """A latency in control steps, rounded up, at least 1: what the arms `wait` and `overlap` count."""
    return max(1, math.ceil(ms * hz / 1e3 - 1e-9))


def arm_at(arm: Arm, steps: Sequence[int]) -> Arm:
    """An arm that counts latency, at other levels than its own."""
    return replace(arm, levels=tuple(float(each) for each in sorted(set(steps))))


def latency_arms(policy: LoadedPolicy, steps: Sequence[int]) -> tuple[Arm, ...]:
    """The arms that count latency, at these levels; without `overlap` for a policy that predicts no chunk."""
    names = LATENCY_ARMS if hasattr(policy.policy, "predict_action_chunk") else LATENCY_ARMS[:1]
    return tuple(arm_at(ARMS[name], steps) for name in names)


def measured_ms(policy: LoadedPolicy, device: str, seconds: float = 2.0) -> tuple[float, ...]:
    """How long the policy took for a new chunk, its processing included, of one robot: ms of each call."""
    place = device_for(device)
    call = calls.policy_call(policy, TimedCall.NEW_CHUNK, 1, device=place)
    with inference_on_one_thread():
        samples = measure(call.call, place, prepare=call.prepare, seconds=seconds)
    return tuple(1e3 * each for each in samples.times)


def deadline_misses(ms: Sequence[float], hz: float) -> float:
    """Share of the calls that took longer than a control step."""
    return float((np.asarray(ms) > 1e3 / hz).mean())


def most_hz(row: Stress, ms: float) -> tuple[float, bool]:
    """The highest control frequency at which success has fallen by less than FALL, and whether it is a bound.

    row: of `wait` or `overlap`. It is a bound where success had not fallen at the highest level either.
    Raises IlBenchError for another arm.
    """
    if row.arm not in LATENCY_ARMS:
        raise IlBenchError(f"arm {row.arm!r} counts no latency; use {' or '.join(LATENCY_ARMS)}")
    kept = 1.0 if row.arm == "wait" else 0.0  # an answer within one step costs a waiting robot nothing
    for level, difference in zip(row.levels, row.difference, strict=True):
        if difference.estimate <= -FALL + 1e-9:
            return 1e3 * kept / ms, False
        kept = level
    return 1e3 * kept / ms, True
