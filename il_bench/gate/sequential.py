"""Values of episodes plus a target or a baseline -> a decision with its evidence.

Two e-processes run over the episodes in seed order, one against each hypothesis. The first that reaches its
level decides. Later episodes change nothing, so it does not matter how often you look.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property, partial

import numpy as np
from numpy.typing import ArrayLike, NDArray

from il_bench.errors import IlBenchError
from il_bench.gate import stats
from il_bench.gate.power import MOST, more_episodes
from il_bench.protocol import MARGIN, MAX_EPISODES
from il_bench.rollout.metrics import DEFAULT_METRIC, gated_metric

_SEEDS_SHOWN = 3


class Decision(StrEnum):
    """A gate's decision."""

    PASS = "PASS"
    FAIL = "FAIL"
    INCONCLUSIVE = "INCONCLUSIVE"
    NOT_GATED = "NOT GATED"
    BELOW_TARGET = "BELOW TARGET"
    UNCHANGED = "UNCHANGED"


@dataclass(frozen=True, eq=False)
class SequentialTest:
    """The values of a gate's episodes, and how evidence grows with them.

    values: (N,) in [low, high] in seed order. for_fail, for_pass: (.., N) -> (.., N), the log evidence
    that leads to FAIL, and to PASS. alpha, beta: the risks of being wrong with each. cap: the most episodes.
    """

    values: stats.Floats
    metric: str
    for_fail: Callable[[stats.Floats], stats.Floats]
    for_pass: Callable[[stats.Floats], stats.Floats]
    alpha: float
    beta: float
    cap: int
    low: float = 0.0
    high: float = 1.0

    def decide(self) -> tuple[Decision, int, dict[str, float]]:
        """Return the decision, how many episodes it took, and the evidence at that point; FAIL wins a tie."""
        for_fail, for_pass = self.for_fail(self.values), self.for_pass(self.values)
        fail_n = int(stats.episodes_to_reach(for_fail, self.alpha))
        pass_n = int(stats.episodes_to_reach(for_pass, self.beta))
        if fail_n and (not pass_n or fail_n <= pass_n):
            decision, used = Decision.FAIL, fail_n
        elif pass_n:
            decision, used = Decision.PASS, pass_n
        else:
            decision, used = Decision.INCONCLUSIVE, self.values.size
        evidence = {"fail_at": float(-np.log(self.alpha)), "pass_at": float(-np.log(self.beta))}
        if used:
            reached = {"fail": float(for_fail[used - 1]), "pass": float(for_pass[used - 1])}
            evidence = {"mean": float(self.values[:used].mean()), **reached, **evidence}
        return decision, used, evidence

    def decided_after(self, values: stats.Floats) -> NDArray[np.int64]:
        """Return after how many values (.., N) a decision falls, 0 if never: (..)."""
        fail_n = stats.episodes_to_reach(self.for_fail(values), self.alpha)
        pass_n = stats.episodes_to_reach(self.for_pass(values), self.beta)
        return np.where((fail_n == 0) | (pass_n == 0), np.maximum(fail_n, pass_n), np.minimum(fail_n, pass_n))

    def interval(self) -> tuple[float, float, float]:
        """Return the mean of all values, and its 95 % confidence sequence."""
        span = self.high - self.low
        low, high = stats.confidence_sequence((self.values - self.low) / span)
        return float(self.values.mean()), self.low + span * low, self.low + span * high

    @cached_property
    def outlook(self) -> str:
        """How many more episodes would decide, in words; see `more_episodes` for what that assumes."""
        if not self.values.size:
            return ""
        needed = more_episodes(self.values, self.decided_after, low=self.low, high=self.high)
        left = self.cap - self.values.size
        if needed is not None and needed <= left:
            return f"about {round_up(needed)} more episodes would decide (4 times in 5)"
        text = f"more than {MOST:,}" if needed is None else f"about {round_up(needed)}"
        there = f"{left} {'is' if left == 1 else 'are'} left" if left > 0 else "there are no more"
        return f"it would take {text} more episodes to decide, and {there}"


@dataclass(frozen=True)
class LostAndWon:
    """A policy beside its baseline on the same seeds: the means, and the seeds of lost and won episodes."""

    was: float
    now: float
    lost: tuple[int, ...]
    won: tuple[int, ...]

    @staticmethod
    def of(new: stats.Floats, old: stats.Floats, seeds: ArrayLike | None) -> "LostAndWon | None":
        """Compare values (N,) of the same seeds (N,), by default 0 to N - 1; None without any."""
        if not new.size:
            return None
        of = np.arange(new.size) if seeds is None else np.asarray(seeds)
        lost, won = (tuple(of[where].tolist()) for where in (new < old, new > old))
        return LostAndWon(float(old.mean()), float(new.mean()), lost, won)

    def __str__(self) -> str:
        """Return for example 'was 0.940, is 0.843, lost 113, won 16, e.g. seeds 200003, 200017, 200031'."""
        named = f", e.g. seeds {', '.join(map(str, self.lost[:_SEEDS_SHOWN]))}" if self.lost else ""
        return f"was {self.was:.3f}, is {self.now:.3f}, lost {len(self.lost)}, won {len(self.won)}{named}"


@dataclass(frozen=True, repr=False)
class GateResult:
    """A decision and what it rests on.

    shown: what the episodes show, for example "> 0.80 shown".
    n: number of episodes, up to the one that decided.
    evidence: after those n episodes, `mean` (of the values, or of new - old), the log evidence `fail` and
        `pass`, and the levels `fail_at` and `pass_at` at which they decide; empty if nothing was tested.
    test: what was tested, on all episodes given. beside: the baseline and the policy, on all of them.
    margin: below the target or the baseline, what PASS rules out; None without either.
    outlook: how many episodes would decide, in words, where `test` does not say it.
    """

    decision: Decision
    shown: str
    n: int
    evidence: dict[str, float] = field(default_factory=dict)
    test: SequentialTest | None = field(default=None, compare=False)
    beside: LostAndWon | None = field(default=None, compare=False)
    margin: float | None = field(default=None, compare=False)
    outlook: str = field(default="", compare=False)

    @property
    def passed(self) -> bool:
        """True for PASS and UNCHANGED only: neither too little data nor a missing target is a pass."""
        return self.decision in (Decision.PASS, Decision.UNCHANGED)

    @property
    def so_far(self) -> str:
        """The decision; before the cap, how far the evidence has come instead, as '63 % towards PASS'."""
        found, test = self.evidence, self.test
        is_open = self.decision is Decision.INCONCLUSIVE and "pass" in found
        if not is_open or test is None or test.values.size >= test.cap:
            return str(self.decision)
        share, word = max((found[word] / found[f"{word}_at"], word) for word in ("fail", "pass"))
        return f"{max(0.0, 100 * share):.0f} % towards {word.upper()}"

    @property
    def told(self) -> str:
        """What the episodes show, how they differ from a baseline's, and how many more would decide."""
        return self._told(self.shown)

    def _told(self, shown: str) -> str:
        parts = [shown]
        if self.beside is not None and not self.passed:
            parts.append(str(self.beside))
        if self.decision is Decision.INCONCLUSIVE and self.test is not None:
            parts.append(self.test.outlook)
        return "; ".join(filter(None, [*parts, self.outlook]))

    def __bool__(self) -> bool:
        """Refuse `assert gate(...)`, which would hold for every decision."""
        raise TypeError("a GateResult is neither true nor false; use `.passed` (or compare it with None)")

    def __str__(self) -> str:
        """Return for example 'PASS (> 0.80 shown, 123 episodes)'."""
        return f"{self.decision} ({self._told(f'{self.shown}, {_episodes(self.n)}')})"

    def __repr__(self) -> str:
        """Say what pytest prints of `assert gate(..).passed`: decision, rate, interval, what was shown."""
        if self.test is None or not self.test.values.size:
            return f"<{self}>"
        mean, low, high = self.test.interval()
        rate = f"{self.test.metric} {mean:.3f} [{low:.2f}, {high:.2f}]"
        after = f" after {self.n}" if self.n < self.test.values.size else ""
        told = self._told(f"{self.shown}{after}")
        return f"<{self.decision}: {rate} of {_episodes(self.test.values.size)}; {told}>"


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
        untested = SequentialTest(outcomes, metric, np.zeros_like, np.zeros_like, alpha, beta, cap)
        return GateResult(Decision.NOT_GATED, "no target", n, test=untested)
    if not 0.0 < margin < target < 1.0:
        raise IlBenchError(
            f"target = {target}, margin = {margin}: need 0 < margin < target < 1"
            " (no number of episodes can show a rate of exactly 0 or 1)"
        )
    floor = target - margin
    for_fail = partial(evidence, against=target, alternative=floor)
    for_pass = partial(evidence, against=floor, alternative=target)
    test = SequentialTest(outcomes, metric, for_fail, for_pass, alpha, beta, cap)
    decision, used, found = test.decide()
    more = f"; the cap is {cap}" if n < cap else " at the cap"
    shown = {
        Decision.PASS: f"> {number(floor)} shown",
        Decision.FAIL: f"< {number(target)} shown",
        Decision.INCONCLUSIVE: f"neither < {number(target)} nor > {number(floor)} shown{more}",
    }[decision]
    is_below = decision is Decision.FAIL and not required
    said = Decision.BELOW_TARGET if is_below else decision
    return GateResult(said, shown, used, found, test, margin=margin)


def check_baseline(
    new: ArrayLike,
    old: ArrayLike,
    *,
    margin: float,
    alpha: float,
    beta: float,
    same: bool = False,
    differs_at: int | None = None,
    seeds: ArrayLike | None = None,
    cap: int = MAX_EPISODES,
    metric: str = DEFAULT_METRIC,
) -> GateResult:
    """Test one policy's episodes against a measured baseline on the same seeds, in pairs d = new - old.

    new, old: (N,) of the metric in [0, 1], in seed order, entry i of both from seeds[i], without `seeds` i.
    FAIL when the evidence against mean(d) >= 0 reaches 1/alpha, PASS when the evidence against
    mean(d) <= -margin reaches 1/beta, INCONCLUSIVE when the pairs end first. cap: the most pairs.

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
    evidence = partial(stats.mean_evidence, low=-1.0, high=1.0)
    for_fail = partial(evidence, against=0.0, alternative=-margin)
    for_pass = partial(evidence, against=-margin, alternative=0.0)
    test = SequentialTest(d, f"{metric} - baseline", for_fail, for_pass, alpha, beta, cap, low=-1.0)
    beside = LostAndWon.of(after, before, seeds)
    if same and d.size:
        return replace(_check_reproduction(d, differs_at), test=test, beside=beside, margin=margin)
    decision, used, found = test.decide()
    shown = {
        Decision.PASS: f"> baseline - {number(margin)} shown",
        Decision.FAIL: "< baseline shown",
        Decision.INCONCLUSIVE: f"neither < baseline nor > baseline - {number(margin)} shown",
    }[decision]
    return GateResult(decision, shown, used, found, test, beside, margin)


def _check_reproduction(d: stats.Floats, differs_at: int | None) -> GateResult:
    if differs_at is None and not d.any():
        return GateResult(Decision.UNCHANGED, "reproduced exactly", d.size)
    where = f"seed {differs_at}" if differs_at is not None else f"episode {d.nonzero()[0][0]} (in seed order)"
    shown = (
        f"the same weights on the same machine did not reproduce {where}: determinism is broken, or code that"
        " runs the policy changed; if that is meant, measure again with --il-update-baselines"
    )
    return GateResult(Decision.FAIL, shown, d.size, {"mean": float(d.mean())})


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


def number(x: float) -> str:
    """Return x with as many decimals as it needs, but at least two: 0.8 -> '0.80', 0.125 -> '0.125'."""
    short = f"{x:.6f}".rstrip("0")
    return short if len(short.split(".")[1]) >= 2 else f"{x:.2f}"


def _episodes(n: int) -> str:
    return f"{n:,} episode{'' if n == 1 else 's'}"


def round_up(n: int) -> str:
    """Return two digits of n, as in 340 and 2,400: a forecast has no more."""
    unit = 10 ** max(len(str(n)) - 2, 0)
    return f"{-(-n // unit) * unit:,}"
