"""How many episodes a verdict takes, and what so many episodes can see.

A drop counts as found if the gate says FAIL in at least CHANCE of all runs.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from il_bench.gate import stats
from il_bench.gate.stats import Floats

#: That so many more episodes decide, and that a drop is found.
CHANCE = 0.8
MOST = 10_000  # more episodes than anybody runs
_FUTURES = 200
_RUNS = 250
_HALVINGS = 10  # to 0.001


@dataclass(frozen=True, eq=False)
class Course:
    """How likely a sequential test says FAIL, or PASS, after each episode: (N,), entry i after i + 1."""

    fail: Floats
    passed: Floats

    @property
    def decided(self) -> Floats:
        """How likely it has decided by then."""
        found: Floats = np.cumsum(self.fail + self.passed)
        return found

    def mean(self, block: int = 1) -> float:
        """Return the mean number of episodes in whole blocks, the last one cut off at N."""
        n = self.fail.size
        rolled_out = np.minimum(-(-np.arange(1, n + 1) // block) * block, n)
        return float((self.fail + self.passed) @ rolled_out + n * (1 - self.decided[-1]))

    def within(self, share: float) -> int | None:
        """Return within how many episodes this share of runs is decided, None if more than N."""
        reached = np.flatnonzero(self.decided >= share)
        return int(reached[0]) + 1 if reached.size else None


def course(rate: float, target: float, margin: float, alpha: float, beta: float, n: int) -> Course:
    """Return the course of the test of a success rate, if the true one is `rate`.

    Exact for independent episodes: it follows all numbers of successes at once.
    """
    floor = target - margin
    up, down = np.log(floor / target), np.log((1 - floor) / (1 - target))  # of the evidence for FAIL
    successes, open_ = np.arange(n + 1), np.zeros(n + 1)  # open_[k]: undecided after k successes
    open_[0] = 1.0
    fail, passed = np.zeros((2, n))
    for done in range(1, n + 1):
        open_[1:] = open_[1:] * (1 - rate) + open_[:-1] * rate
        open_[0] *= 1 - rate
        evidence = successes * up + (done - successes) * down
        is_fail = (evidence >= -np.log(alpha)) & (successes <= done)
        is_pass = (-evidence >= -np.log(beta)) & (successes <= done) & ~is_fail
        fail[done - 1], passed[done - 1] = open_[is_fail].sum(), open_[is_pass].sum()
        open_[is_fail | is_pass] = 0.0
    return Course(fail, passed)


@cache
def drop_below_target(target: float, margin: float, alpha: float, beta: float, n: int) -> float | None:
    """Return how far below its target a success rate must lie to FAIL in CHANCE of all runs of n episodes.

    Exact for independent episodes, to 0.001. None if not even a rate of 0 would be found.
    """

    def chance(rate: float) -> float:
        return float(course(rate, target, margin, alpha, beta, n).fail.sum())

    if chance(0.0) < CHANCE:
        return None
    low, high = 0.0, target  # found, not found
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if chance(middle) >= CHANCE else (low, middle)
    return target - low


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


def more_episodes(
    values: Floats, decided_after: Callable[[Floats], NDArray[np.int64]], *, low: float, high: float
) -> int | None:
    """Return after how many more episodes four of five futures are decided, None if not within MOST.

    values: (N,) in [low, high], undecided, N >= 1. decided_after: (futures, N + M) -> (futures,), after how
    many values each is decided, 0 if never.

    A simulation with a fixed generator, so the same episodes always give the same answer. It assumes that
    later episodes come from the same distribution as those so far, and that nothing else is known of it: each
    future draws its own from all that fit (a Bayesian bootstrap, Rubin 1981, that has seen half an episode at
    either end too), then its episodes. For successes these are the predictions from Jeffreys' prior.
    """
    rng = np.random.default_rng(0)
    seen, counts = np.unique(np.concatenate([values, [low, high]]), return_counts=True)
    weights = counts - np.where((seen == low) | (seen == high), 0.5, 0.0)
    steps = np.cumsum(rng.dirichlet(weights, _FUTURES), axis=1)  # (futures, seen)
    for more in (MOST // 10, MOST):
        draws = rng.random((_FUTURES, more))
        places = [np.searchsorted(step[:-1], draw) for step, draw in zip(steps, draws, strict=True)]
        past = np.broadcast_to(values, (_FUTURES, values.size))
        after = decided_after(np.concatenate([past, seen[places]], axis=1))
        needed = np.sort(np.where(after > 0, after - values.size, MOST + 1))[int(CHANCE * _FUTURES) - 1]
        if needed <= more:
            return int(needed)
    return None
