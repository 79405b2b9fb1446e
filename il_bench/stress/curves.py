"""A policy's success over the levels of an arm, beside its undisturbed episodes of the same seeds."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from il_bench.gate.stats import clopper_pearson, mean_interval
from il_bench.policies.checkpoint import LoadedPolicy
from il_bench.report.rows import Interval
from il_bench.report.schema import Stress
from il_bench.rollout import Outcomes, RunBlock
from il_bench.stress.arms import Arm

UNDISTURBED = "undisturbed"
_CONFIDENCE = 0.95

#: Rolls a policy out: given what a fingerprint calls the arm and its level, and what runs a block of it.
Roll = Callable[[str, RunBlock | None], Outcomes]


def measure(policy: LoadedPolicy, arms: Sequence[Arm], roll: Roll) -> Iterator[Stress]:
    """Roll a policy out undisturbed and at every level; yield a row as each arm ends."""
    if not arms:
        return
    undisturbed = roll(UNDISTURBED, None)
    for arm in arms:
        yield row_of(policy, arm, [undisturbed, *(roll(arm.cell(x), arm.block(x)) for x in arm.levels)])


def row_of(policy: LoadedPolicy, arm: Arm, outcomes: Sequence[Outcomes]) -> Stress:
    """The row of an arm; outcomes: undisturbed, then of each level, on the same seeds."""
    seeds = outcomes[0].seeds
    success = np.array([each.success for each in outcomes], np.float64)  # (1 + levels, N)
    return Stress(
        policy=policy.name,
        track=policy.track,
        sha256=policy.sha256,
        arm=arm.name,
        about=arm.about,
        unit=arm.unit,
        levels=arm.levels,
        seeds=(int(seeds[0]), int(seeds[-1])),
        n_episodes=len(seeds),
        success=tuple("".join("01"[int(value)] for value in row) for row in success),
        success_rate=tuple(_rate(row) for row in success),
        difference=tuple(mean_with_interval(row - success[0], low=-1.0) for row in success[1:]),
        mean_max_reward=tuple(each.mean_max_reward for each in outcomes),
        endings=tuple(dict(sorted(Counter(each.ending.tolist()).items())) for each in outcomes),
        area=mean_with_interval(area(success)),
    )


def area(success: NDArray[np.float64]) -> NDArray[np.float64]:
    """Each seed's area (N,) under its curve (levels, N): trapezoids of equal width, in [0, 1]."""
    areas: NDArray[np.float64] = (success[:-1] + success[1:]).mean(axis=0) / 2.0
    return areas


def mean_with_interval(values: NDArray[np.float64], low: float = 0.0) -> Interval:
    """The mean of values (N,) in [low, 1], and its bootstrap interval, which is the same every time."""
    span = 1.0 - low
    ends = mean_interval((values - low) / span, _CONFIDENCE, np.random.default_rng(0))
    return Interval(estimate=float(values.mean()), low=low + span * ends[0], high=low + span * ends[1])


def _rate(success: NDArray[np.float64]) -> Interval:
    low, high = clopper_pearson(int(success.sum()), len(success), _CONFIDENCE)
    return Interval(estimate=float(success.mean()), low=low, high=high)
