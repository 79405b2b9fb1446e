"""The gate: outcomes plus a target or a baseline -> a decision with its evidence.

Two e-processes run over the episodes in seed order, one against each hypothesis. The first to reach its level
decides; if neither does, the answer is INCONCLUSIVE, never a pass. The whole sequence may be there from the
start (a fixed number of episodes) or grow by blocks (a sequential test): since only the first crossing
counts, both give the same decision.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from il_bench.errors import IlBenchError
from il_bench.gate import stats
from il_bench.protocol import MAX_EPISODES

Metric = Literal["success_rate", "mean_max_reward"]

#: A cap can be no larger: 1,000 start states are kept for tests.


class Decision(StrEnum):
    """What a gate says."""

    PASS = "PASS"
    FAIL = "FAIL"
    INCONCLUSIVE = "INCONCLUSIVE"
    NOT_GATED = "NOT GATED"
    BELOW_TARGET = "BELOW TARGET"
    UNCHANGED = "UNCHANGED"


@dataclass(frozen=True)
class GateResult:
    """A decision and what it rests on.

    decision: see `Decision`.
    shown: what has been shown, in words, for example "> 0.80 shown".
    n: episodes looked at, up to the one that decided.
    evidence: after those n episodes, `mean` (of the values, or of new - old), `fail` and `pass` (the log
        evidence for each) and `fail_at` and `pass_at`, the levels at which they decide; empty where nothing
        was tested.
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
        raise TypeError("a GateResult is neither true nor false: ask for `.passed` (or compare with None)")

    def __str__(self) -> str:
        """Return for example 'PASS (> 0.80 shown, 123 episodes)'."""
        return f"{self.decision} ({self.shown}, {self.n} episode{'' if self.n == 1 else 's'})"

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values: decision, passed, shown, n, evidence."""
        return {
            "decision": str(self.decision),
            "passed": self.passed,
            "shown": self.shown,
            "n": self.n,
            "evidence": dict(self.evidence),
        }


def check_target(
    values: ArrayLike,
    *,
    target: float | None,
    margin: float = 0.05,
    alpha: float = 0.05,
    beta: float = 0.05,
    cap: int = MAX_EPISODES,
    required: bool = True,
    metric: Metric = "success_rate",
) -> GateResult:
    """Test one policy's episodes against a declared target.

    values: (N,) in seed order, N <= cap: 0 or 1 for "success_rate", in [0, 1] for "mean_max_reward".
    FAIL (BELOW TARGET unless `required`) when the evidence against a mean >= target reaches 1/alpha, so a
    policy at its target fails with probability at most alpha. PASS when the evidence against
    a mean <= target - margin reaches 1/beta, so one that is `margin` short passes with probability at most
    beta. INCONCLUSIVE when the values end first. Without a target: NOT GATED. A fixed number of episodes is
    the same test with as many values.
    """
    if metric not in ("success_rate", "mean_max_reward"):
        raise IlBenchError(f"metric = {metric!r}: need 'success_rate' or 'mean_max_reward'")
    outcomes = stats.binary(values, name="values") if metric == "success_rate" else _unit(values, "values")
    _check_risks(alpha, beta)
    _check_length(outcomes, cap)
    n = outcomes.size
    if target is None:
        return GateResult(Decision.NOT_GATED, "no target", n)
    if not 0.0 < margin < target < 1.0:
        raise IlBenchError(
            f"target = {target}, margin = {margin}: need 0 < margin < target < 1"
            " (no number of episodes can show a rate of exactly 0 or 1)"
        )
    floor = target - margin
    if metric == "success_rate":
        for_fail = stats.bernoulli_evidence(outcomes, against=target, alternative=floor)
        for_pass = stats.bernoulli_evidence(outcomes, against=floor, alternative=target)
    else:
        for_fail = stats.mean_evidence(outcomes, against=target, alternative=floor, low=0.0, high=1.0)
        for_pass = stats.mean_evidence(outcomes, against=floor, alternative=target, low=0.0, high=1.0)
    decision, used, evidence = _first_to_reach(outcomes, for_fail, for_pass, alpha, beta)
    if decision is Decision.PASS:
        return GateResult(decision, f"> {_number(floor)} shown", used, evidence)
    if decision is Decision.FAIL:
        decision = decision if required else Decision.BELOW_TARGET
        return GateResult(decision, f"< {_number(target)} shown", used, evidence)
    more = f"; the cap is {cap}" if n < cap else " at the cap"
    shown = f"neither < {_number(target)} nor > {_number(floor)} shown{more}"
    return GateResult(decision, shown, used, evidence)


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

    same: the weights (sha256) and the fingerprint are those of the baseline. Then the episodes must be the
        baseline's to the bit: UNCHANGED if they are, FAIL if not.
    differs_at: with `same`, the seed of the first episode that differs in anything recorded; `new` and `old`
        hold one number an episode only. `baselines.Measured.first_difference` finds it.
    """
    after, before = _unit(new, "new"), _unit(old, "old")
    if after.shape != before.shape:
        raise IlBenchError(
            f"{after.size} new episodes, {before.size} of the baseline: need the episodes of the same seeds"
        )
    _check_risks(alpha, beta)
    _check_length(after, MAX_EPISODES)
    if not 0.0 < margin < 1.0:
        raise IlBenchError(f"margin = {margin}: need a number between 0 and 1, such as 0.05")
    if same and after.size:
        return _check_reproduction(after, before, differs_at)
    d = after - before
    for_fail = stats.mean_evidence(d, against=0.0, alternative=-margin, low=-1.0, high=1.0)
    for_pass = stats.mean_evidence(d, against=-margin, alternative=0.0, low=-1.0, high=1.0)
    decision, used, evidence = _first_to_reach(d, for_fail, for_pass, alpha, beta)
    shown = {
        Decision.PASS: f"> baseline - {_number(margin)} shown",
        Decision.FAIL: "< baseline shown",
        Decision.INCONCLUSIVE: f"neither < baseline nor > baseline - {_number(margin)} shown",
    }[decision]
    return GateResult(decision, shown, used, evidence)


def exit_status(rows: Iterable[Mapping[str, Any]]) -> int:
    """Return pytest's exit status for the `success` rows of a report.

    Each row has `target` ({"decision", "required", ..} or None) and `baseline` ({"decision", ..} or None).
    1: a baseline FAIL, or FAIL of a required target. Otherwise 6: a required target is INCONCLUSIVE.
    Otherwise 0: a comparison with a baseline that more episodes would decide is shown, and stops nothing.
    Raises IlBenchError for a word that is no decision.
    """
    targets, baselines = set(), set()
    for row in rows:
        target, baseline = row.get("target"), row.get("baseline")
        if target is not None and target.get("required", True):
            targets.add(_decision(target))
        if baseline is not None:
            baselines.add(_decision(baseline))
    if Decision.FAIL in targets | baselines:
        return 1
    return 6 if Decision.INCONCLUSIVE in targets else 0


def _check_reproduction(new: stats.Floats, old: stats.Floats, differs_at: int | None) -> GateResult:
    unequal = np.flatnonzero(new != old)
    if differs_at is None and unequal.size == 0:
        return GateResult(Decision.UNCHANGED, "reproduced exactly", new.size)
    where = f"seed {differs_at}" if differs_at is not None else f"episode {unequal[0]} (in seed order)"
    shown = (
        f"the same weights on the same machine did not reproduce {where}: determinism is broken, or code that"
        " runs the policy changed; if that is meant, measure again with --il-update-baselines"
    )
    return GateResult(Decision.FAIL, shown, new.size, {"mean": float((new - old).mean())})


def _first_to_reach(
    values: stats.Floats, for_fail: stats.Floats, for_pass: stats.Floats, alpha: float, beta: float
) -> tuple[Decision, int, dict[str, float]]:
    """Return the decision, after how many episodes it fell, and the evidence there; FAIL wins a tie."""
    n = values.size
    fail_n = int(stats.episodes_to_reach(for_fail, alpha))
    pass_n = int(stats.episodes_to_reach(for_pass, beta))
    if fail_n and (not pass_n or fail_n <= pass_n):
        decision, used = Decision.FAIL, fail_n
    elif pass_n:
        decision, used = Decision.PASS, pass_n
    else:
        decision, used = Decision.INCONCLUSIVE, n
    levels = {"fail_at": float(-np.log(alpha)), "pass_at": float(-np.log(beta))}
    if used == 0:
        return decision, 0, levels
    reached = {"fail": float(for_fail[used - 1]), "pass": float(for_pass[used - 1])}
    return decision, used, {"mean": float(values[:used].mean()), **reached, **levels}


def _decision(gate: Mapping[str, Any]) -> Decision:
    value = gate.get("decision")
    if value not in list(Decision):
        raise IlBenchError(f"decision = {value!r}: need one of {', '.join(Decision)}")
    return Decision(value)


def _unit(x: ArrayLike, name: str) -> stats.Floats:
    return stats.bounded(x, low=0.0, high=1.0, name=name)


def _check_length(values: stats.Floats, cap: int) -> None:
    if values.ndim != 1:
        raise IlBenchError(f"values have shape {values.shape}; need one number an episode, (N,)")
    if not 1 <= cap <= MAX_EPISODES:
        raise IlBenchError(f"cap = {cap}: need 1 to {MAX_EPISODES}, the start states kept for tests")
    if values.size > cap:
        raise IlBenchError(
            f"{values.size} episodes, but the cap is {cap}: pass fewer, or declare a higher cap"
        )


def _check_risks(alpha: float, beta: float) -> None:
    for name, risk in (("alpha", alpha), ("beta", beta)):
        if not 0.0 < risk < 1.0:
            raise IlBenchError(f"{name} = {risk}: need a probability between 0 and 1, such as 0.05")


def _number(x: float) -> str:
    """Return x with as many decimals as it needs, two at least: 0.8 -> '0.80', 0.125 -> '0.125'."""
    short = f"{x:.6f}".rstrip("0")
    return short if len(short.split(".")[1]) >= 2 else f"{x:.2f}"
