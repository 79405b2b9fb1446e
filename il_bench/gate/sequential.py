"""Values of episodes plus a target or a baseline -> a decision with its evidence.

Two e-processes run over the episodes in seed order, one against each hypothesis. The first that reaches its
level decides. Later episodes change nothing, so it does not matter how often you look.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial

import numpy as np
from numpy.typing import ArrayLike

from il_bench.errors import IlBenchError
from il_bench.gate import stats
from il_bench.protocol import MARGIN, MAX_EPISODES
from il_bench.rollout.metrics import DEFAULT_METRIC, gated_metric


class Decision(StrEnum):
    """A gate's decision."""

    PASS = "PASS"
    FAIL = "FAIL"
    INCONCLUSIVE = "INCONCLUSIVE"
    NOT_GATED = "NOT GATED"
    BELOW_TARGET = "BELOW TARGET"
    UNCHANGED = "UNCHANGED"


@dataclass(frozen=True)
class GateResult:
    """A decision and what it rests on.

    shown: what the episodes show, for example "> 0.80 shown".
    n: number of episodes, up to the one that decided.
    evidence: after those n episodes, `mean` (of the values, or of new - old), the log evidence `fail` and
        `pass`, and the levels `fail_at` and `pass_at` at which they decide; empty if nothing was tested.
    """

    decision: Decision
    shown: str
    n: int
    evidence: dict[str, float] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """True for PASS and UNCHANGED only: neither too little data nor a missing target is a pass."""
        return self.decision in (Decision.PASS, Decision.UNCHANGED)

    def __bool__(self) -> bool:
        """Refuse `assert gate(...)`, which would hold for every decision."""
        raise TypeError("a GateResult is neither true nor false; use `.passed` (or compare it with None)")

    def __str__(self) -> str:
        """Return for example 'PASS (> 0.80 shown, 123 episodes)'."""
        return f"{self.decision} ({self.shown}, {self.n} episode{'' if self.n == 1 else 's'})"


def check_target(
    values: ArrayLike,
    *,
    target: float | None,
    margin: float = MARGIN,
    alpha: float = 0.05,
    beta: float = 0.05,
    cap: int = MAX_EPISODES,
    required: bool = True,
    metric: str = DEFAULT_METRIC,
) -> GateResult:
    """Test one policy's episodes against a declared target.

    values: (N,) of the metric in seed order, N <= cap: 0 or 1 for "success_rate", in [0, 1] for others.
    FAIL (BELOW TARGET unless `required`) when the evidence against a mean >= target reaches 1/alpha: a policy
    at its target fails with probability at most alpha. PASS when the evidence against a mean <= target -
    margin reaches 1/beta: a policy that is `margin` short passes with probability at most beta. INCONCLUSIVE
    when the values end first. NOT GATED without a target.
    """
    if gated_metric(metric).is_binary:
        outcomes, evidence = stats.binary(values, name="values"), stats.bernoulli_evidence
    else:
        outcomes = stats.bounded(values, low=0.0, high=1.0, name="values")
        evidence = partial(stats.mean_evidence, low=0.0, high=1.0)
    _check(outcomes, cap, alpha, beta)
    n = outcomes.size
    if target is None:
        return GateResult(Decision.NOT_GATED, "no target", n)
    if not 0.0 < margin < target < 1.0:
        raise IlBenchError(
            f"target = {target}, margin = {margin}: need 0 < margin < target < 1"
            " (no number of episodes can show a rate of exactly 0 or 1)"
        )
    floor = target - margin
    for_fail = evidence(outcomes, against=target, alternative=floor)
    for_pass = evidence(outcomes, against=floor, alternative=target)
    decision, used, found = _first_to_reach(outcomes, for_fail, for_pass, alpha, beta)
    more = f"; the cap is {cap}" if n < cap else " at the cap"
    shown = {
        Decision.PASS: f"> {_number(floor)} shown",
        Decision.FAIL: f"< {_number(target)} shown",
        Decision.INCONCLUSIVE: f"neither < {_number(target)} nor > {_number(floor)} shown{more}",
    }[decision]
    is_below = decision is Decision.FAIL and not required
    return GateResult(Decision.BELOW_TARGET if is_below else decision, shown, used, found)


def check_baseline(
    new: ArrayLike,
    old: ArrayLike,
    *,
    margin: float,
    alpha: float,
    beta: float,
    same: bool = False,
    differs_at: int | None = None,
) -> GateResult:
    """Test one policy's episodes against a measured baseline on the same seeds, in pairs d = new - old.

    new, old: (N,) in [0, 1], in seed order, entry i of both from the same seed.
    FAIL when the evidence against mean(d) >= 0 reaches 1/alpha, PASS when the evidence against
    mean(d) <= -margin reaches 1/beta, INCONCLUSIVE when the pairs end first.

    same: weights (sha256) and fingerprint are the baseline's. Then the episodes must be too, to the bit:
        UNCHANGED if they are, FAIL if not.
    differs_at: with `same`, the seed of the first episode that differs in anything recorded, even if `new`
        and `old` do not hold it.
    """
    after = stats.bounded(new, low=0.0, high=1.0, name="new")
    before = stats.bounded(old, low=0.0, high=1.0, name="old")
    if after.shape != before.shape:
        raise IlBenchError(
            f"{after.size} new episodes, {before.size} of the baseline: both need the same seeds"
        )
    _check(after, MAX_EPISODES, alpha, beta)
    if not 0.0 < margin < 1.0:
        raise IlBenchError(f"margin = {margin}: need a number between 0 and 1, such as 0.05")
    d = after - before
    if same and d.size:
        return _check_reproduction(d, differs_at)
    for_fail = stats.mean_evidence(d, against=0.0, alternative=-margin, low=-1.0, high=1.0)
    for_pass = stats.mean_evidence(d, against=-margin, alternative=0.0, low=-1.0, high=1.0)
    decision, used, evidence = _first_to_reach(d, for_fail, for_pass, alpha, beta)
    shown = {
        Decision.PASS: f"> baseline - {_number(margin)} shown",
        Decision.FAIL: "< baseline shown",
        Decision.INCONCLUSIVE: f"neither < baseline nor > baseline - {_number(margin)} shown",
    }[decision]
    return GateResult(decision, shown, used, evidence)


def _check_reproduction(d: stats.Floats, differs_at: int | None) -> GateResult:
    if differs_at is None and not d.any():
        return GateResult(Decision.UNCHANGED, "reproduced exactly", d.size)
    where = f"seed {differs_at}" if differs_at is not None else f"episode {d.nonzero()[0][0]} (in seed order)"
    shown = (
        f"the same weights on the same machine did not reproduce {where}: determinism is broken, or code that"
        " runs the policy changed; if that is meant, measure again with --il-update-baselines"
    )
    return GateResult(Decision.FAIL, shown, d.size, {"mean": float(d.mean())})


def _first_to_reach(
    values: stats.Floats, for_fail: stats.Floats, for_pass: stats.Floats, alpha: float, beta: float
) -> tuple[Decision, int, dict[str, float]]:
    """Return the decision, how many episodes it took, and the evidence at that point; FAIL wins a tie."""
    fail_n = int(stats.episodes_to_reach(for_fail, alpha))
    pass_n = int(stats.episodes_to_reach(for_pass, beta))
    if fail_n and (not pass_n or fail_n <= pass_n):
        decision, used = Decision.FAIL, fail_n
    elif pass_n:
        decision, used = Decision.PASS, pass_n
    else:
        decision, used = Decision.INCONCLUSIVE, values.size
    evidence = {"fail_at": float(-np.log(alpha)), "pass_at": float(-np.log(beta))}
    if used:
        reached = {"fail": float(for_fail[used - 1]), "pass": float(for_pass[used - 1])}
        evidence = {"mean": float(values[:used].mean()), **reached, **evidence}
    return decision, used, evidence


def _check(values: stats.Floats, cap: int, alpha: float, beta: float) -> None:
    for name, risk in (("alpha", alpha), ("beta", beta)):
        if not 0.0 < risk < 1.0:
            raise IlBenchError(f"{name} = {risk}: need a probability between 0 and 1, such as 0.05")
    if values.ndim != 1:
        raise IlBenchError(f"values have shape {values.shape}; need one number an episode, (N,)")
    if not 1 <= cap <= MAX_EPISODES:
        raise IlBenchError(f"cap = {cap}: need 1 to {MAX_EPISODES}, the number of test seeds")
    if values.size > cap:
        raise IlBenchError(
            f"{values.size} episodes, but the cap is {cap}: pass fewer, or declare a higher cap"
        )


def _number(x: float) -> str:
    """Return x with as many decimals as it needs, but at least two: 0.8 -> '0.80', 0.125 -> '0.125'."""
    short = f"{x:.6f}".rstrip("0")
    return short if len(short.split(".")[1]) >= 2 else f"{x:.2f}"
