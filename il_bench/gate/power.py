"""What a gate can see: the smallest drop that it would find, at a number of episodes.

A drop counts as found if the gate says FAIL in at least CHANCE of all runs.
"""

from functools import cache

import numpy as np

from il_bench.gate import stats

CHANCE = 0.8
_RUNS = 250
_HALVINGS = 10  # to 0.001


@cache
def drop_below_target(target: float, margin: float, alpha: float, beta: float, n: int) -> float | None:
    """Return how far below its target a success rate must lie to FAIL in CHANCE of all runs of n episodes.

    Exact for independent episodes, to 0.001. None if not even a rate of 0 would be found.
    """
    floor = target - margin

    def chance(rate: float) -> float:
        return _fails(rate, target, floor, alpha, beta, n)

    if chance(0.0) < CHANCE:
        return None
    low, high = 0.0, target  # found, not found
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if chance(middle) >= CHANCE else (low, middle)
    return target - low


def _fails(rate: float, target: float, floor: float, alpha: float, beta: float, n: int) -> float:
    """Return the probability of FAIL within n episodes, by following all numbers of successes at once."""
    up, down = np.log(floor / target), np.log((1 - floor) / (1 - target))  # of the evidence for FAIL
    successes, open_ = np.arange(n + 1), np.zeros(n + 1)  # open_[k]: undecided after k successes
    open_[0] = 1.0
    failed = 0.0
    for done in range(1, n + 1):
        open_[1:] = open_[1:] * (1 - rate) + open_[:-1] * rate
        open_[0] *= 1 - rate
        evidence = successes * up + (done - successes) * down
        is_fail = (evidence >= -np.log(alpha)) & (successes <= done)
        failed += float(open_[is_fail].sum())
        open_[is_fail | (-evidence >= -np.log(beta))] = 0.0
    return failed


@cache
def drop_below_baseline(margin: float, alpha: float, beta: float, n: int) -> float | None:
    """Return the share of n paired episodes that must be lost, and none won, to FAIL in CHANCE of all runs.

    Simulated with a fixed generator, to 0.001. None if not even losing all would be found.
    """
    draws = np.random.default_rng(0).random((_RUNS, n))

    def chance(drop: float) -> float:
        d = -(draws < drop).astype(np.float64)
        for_fail = stats.mean_evidence(d, against=0.0, alternative=-margin, low=-1.0, high=1.0)
        for_pass = stats.mean_evidence(d, against=-margin, alternative=0.0, low=-1.0, high=1.0)
        fail_n, pass_n = stats.episodes_to_reach(for_fail, alpha), stats.episodes_to_reach(for_pass, beta)
        return float(((fail_n > 0) & ((pass_n == 0) | (fail_n <= pass_n))).mean())

    if n < 1 or chance(1.0) < CHANCE:
        return None
    low, high = 0.0, 1.0  # not found, found
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if chance(middle) >= CHANCE else (middle, high)
    return high
