"""Tests for a number of episodes that was fixed beforehand, as in the file of a finished run.

Exact where the hypothesis is a rate or "no worse"; for "not worse by the margin" the interval decides. All of
them assume independent episodes, and that nobody looked at the outcomes before deciding how many to run.

Sources: Hoeffding, "On the distribution of the number of successes in independent trials", Ann. Math.
Statist. 27 (1956): the binomial tails bound those of a sum over tasks with different rates. Fisher, "The
design of experiments" (1935), and Cox, "Analysis of binary data" (1970), for its form with strata. McNemar,
Psychometrika 12 (1947). Newcombe, Stat. Med. 17 (1998), 857-872 (paired, method 10) and 873-890 (unpaired,
method 10), for the intervals. Mantel & Haenszel, J. Natl. Cancer Inst. 22 (1959), for the weights.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special

from il_bench.errors import IlBenchError
from il_bench.gate.power import CHANCE, MOST
from il_bench.gate.sequential import Decision, GateResult, number, round_up
from il_bench.gate.stats import Floats
from il_bench.protocol import MARGIN

CONFIDENCE = 0.95
_FUTURES = 60


@dataclass(frozen=True)
class TwoCounts:
    """One task in two runs: `new` of `n_new` episodes succeed, and `old` of `n_old`.

    lost: of pairs on the same seeds, how many only the old run solved. None: the episodes are not paired.
    """

    new: int
    n_new: int
    old: int
    n_old: int
    lost: int | None = None

    @property
    def won(self) -> int | None:
        """Of pairs, how many only the new run solved."""
        return None if self.lost is None else self.new - self.old + self.lost

    def __post_init__(self) -> None:
        """Raise IlBenchError for numbers that no episodes give."""
        is_right = (
            0 <= self.new <= self.n_new and 0 <= self.old <= self.n_old and min(self.n_new, self.n_old) > 0
        )
        if self.lost is not None and is_right:
            pairs = self.n_new - (self.old + (self.won or 0))  # that neither run solved
            is_right = (
                self.n_new == self.n_old
                and min(self.lost, self.won or 0, pairs) >= 0
                and self.lost <= self.old
            )
        if not is_right:
            raise IlBenchError(f"{self}: no episodes give these numbers")


class Difference(NamedTuple):
    """New success rate minus old, its two-sided 95 % interval, and p of "the new one is no worse"."""

    estimate: float
    low: float
    high: float
    p: float


def check_counts(
    successes: int,
    n: int,
    *,
    target: float,
    margin: float = MARGIN,
    alpha: float = 0.05,
    beta: float = 0.05,
) -> GateResult:
    """Test `successes` in `n` episodes against a declared success rate.

    FAIL if a policy at its target gives so few with probability at most alpha. PASS if one that is `margin`
    short gives so many with probability at most beta. FAIL if both. INCONCLUSIVE if neither.
    """
    if n < 1 or not 0 <= successes <= n:
        raise IlBenchError(f"{successes} successes in {n} episodes: need n >= 1 and 0 <= successes <= n")
    if not 0.0 < margin < target < 1.0:
        raise IlBenchError(
            f"target = {target}, margin = {margin}: need 0 < margin < target < 1"
            " (no number of episodes can show a rate of exactly 0 or 1)"
        )
    floor = target - margin
    p_fail = float(special.bdtr(successes, n, target))
    p_pass = float(special.bdtrc(successes - 1, n, floor)) if successes else 1.0
    said = f"< {number(target)}", f"> {number(floor)}"
    found = _decided(said, p_fail, p_pass, alpha, beta, successes / n, n)
    if found.decision is not Decision.INCONCLUSIVE:
        return found
    needed = enough(successes, n, target=target, margin=margin, alpha=alpha, beta=beta)
    text = f"more than {MOST:,}" if needed is None else f"about {round_up(needed)}"
    return replace(found, outlook=f"a new run of {text} episodes would decide (4 times in 5)")


def chances(
    rate: float, n: int, *, target: float, margin: float, alpha: float, beta: float
) -> tuple[float, float]:
    """Return how likely `check_counts` says FAIL, and PASS, of `n` episodes if the true rate is `rate`."""
    k = np.arange(n + 1)
    is_fail, is_pass = _decisions(n, target, margin, alpha, beta)
    weights = np.exp(_log_choose(n, k) + special.xlogy(k, rate) + special.xlog1py(n - k, -rate))
    return float(weights[is_fail].sum()), float(weights[is_pass].sum())


def enough(successes: int, n: int, *, target: float, margin: float, alpha: float, beta: float) -> int | None:
    """Return how many episodes of a new run `check_counts` would decide in four of five cases.

    Exact, to 5 %, for the rates that `successes` of `n` episodes leave open (Jeffreys' prior). None if it
    takes more than MOST.
    """
    a, b = successes + 0.5, n - successes + 0.5

    def chance(size: int) -> float:
        k = np.arange(size + 1)
        is_fail, is_pass = _decisions(size, target, margin, alpha, beta)
        weights = np.exp(_log_choose(size, k) + special.betaln(k + a, size - k + b) - special.betaln(a, b))
        return float(weights[is_fail | is_pass].sum())

    sizes = np.unique(np.geomspace(10, MOST, 143).astype(int)).tolist()
    low, high = -1, len(sizes)  # not enough, enough
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if chance(sizes[middle]) >= CHANCE else (middle, high)
    return sizes[high] if high < len(sizes) else None


def _decisions(
    n: int, target: float, margin: float, alpha: float, beta: float
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return for 0 to n successes whether they FAIL, and whether they PASS."""
    k = np.arange(n + 1)
    is_fail = special.bdtr(k, n, target) <= alpha
    is_pass = special.bdtrc(k - 1.0, n, target - margin) <= beta
    is_pass[0] = False  # bdtrc has no -1 successes
    return is_fail, is_pass & ~is_fail


def compare(
    strata: Sequence[TwoCounts], *, margin: float = MARGIN, alpha: float = 0.05, beta: float = 0.05
) -> tuple[GateResult, Difference]:
    """Test whether a new run is worse than an old one, over one task or several (strata) together.

    The difference is the mean over tasks, each weighted by n_new * n_old / (n_new + n_old). FAIL if runs that
    are equally good in every task give so few new successes with probability at most alpha: exact, by
    McNemar's test on pairs, else by Fisher's. PASS if the one-sided 1 - beta interval of the difference
    (Newcombe's) lies above -margin.
    """
    if not strata:
        raise IlBenchError("nothing to compare: the runs have no task in common")
    if not 0.0 < margin < 1.0:
        raise IlBenchError(f"margin = {margin}: need a number between 0 and 1, such as 0.05")
    is_paired = all(each.lost is not None for each in strata)
    found = _paired if is_paired else _unpaired
    p = _mcnemar(strata) if is_paired else _fisher(strata)
    d, low, high = found(strata, CONFIDENCE)
    least = found(strata, 1 - 2 * beta)[1]
    said = "< baseline", f"> baseline - {number(margin)}"
    n = sum(each.n_new for each in strata)
    # An interval gives no p; what counts is on which side of the margin it lies.
    result = _decided(said, p, 0.0 if least > -margin else 1.0, alpha, beta, d, n)
    evidence = {"mean": d, "p_fail": p, "fail_at": alpha, "low": least, "pass_at": -margin}
    shown = f"{said[1]} shown" if result.decision is Decision.PASS else result.shown
    return GateResult(result.decision, shown, n, evidence), Difference(d, low, high, p)


def times_as_many(strata: Sequence[TwoCounts], *, margin: float, alpha: float, beta: float) -> float | None:
    """Return how many times as many episodes in both runs `compare` would decide in four of five cases.

    Simulated with a fixed generator, to a fifth, for the rates that the episodes leave open (Jeffreys'
    priors). None if a run would take more than MOST.
    """
    rng = np.random.default_rng(0)
    rates = [[_rates(each, rng) for each in strata] for _ in range(_FUTURES)]
    most = MOST / max(max(each.n_new, each.n_old) for each in strata)
    factors = [1.2**power for power in range(1, 60) if 1.2**power <= most]

    def is_enough(factor: float) -> bool:
        decided = 0
        for future in rates:
            drawn = [_drawn(each, p, factor, rng) for each, p in zip(strata, future, strict=True)]
            found = compare(drawn, margin=margin, alpha=alpha, beta=beta)[0]
            decided += found.decision is not Decision.INCONCLUSIVE
        return decided >= CHANCE * _FUTURES

    low, high = -1, len(factors)  # not enough, enough
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if is_enough(factors[middle]) else (middle, high)
    return factors[high] if high < len(factors) else None


def _rates(counts: TwoCounts, rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw rates that the counts leave open: new and old, or of pairs both, lost, won and neither."""
    if counts.lost is None:
        solved, n = np.array([counts.new, counts.old]), np.array([counts.n_new, counts.n_old])
        return rng.beta(solved + 0.5, n - solved + 0.5)
    won = counts.won or 0
    cells = [counts.old - counts.lost, counts.lost, won, counts.n_new - counts.old - won]
    return rng.dirichlet(np.array(cells) + 0.5)


def _drawn(
    counts: TwoCounts, rates: NDArray[np.float64], factor: float, rng: np.random.Generator
) -> TwoCounts:
    """Draw the outcomes of two runs with `factor` times as many episodes."""
    n_new, n_old = round(factor * counts.n_new), round(factor * counts.n_old)
    if counts.lost is None:
        return TwoCounts(int(rng.binomial(n_new, rates[0])), n_new, int(rng.binomial(n_old, rates[1])), n_old)
    both, lost, won, _ = rng.multinomial(n_new, rates).tolist()
    return TwoCounts(both + won, n_new, both + lost, n_new, lost)


def wilson(rate: float, n: float, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Return Wilson's two-sided score interval (1927) for a rate that `n` episodes gave."""
    z2 = float(special.ndtri((1 + confidence) / 2)) ** 2
    middle, half = (rate + z2 / (2 * n)), np.sqrt(z2 * (rate * (1 - rate) + z2 / (4 * n)) / n)
    low, high = (middle - half) / (1 + z2 / n), (middle + half) / (1 + z2 / n)
    return float(np.clip(low, 0.0, rate)), float(np.clip(high, rate, 1.0))


def _decided(
    said: tuple[str, str], p_fail: float, p_pass: float, alpha: float, beta: float, mean: float, n: int
) -> GateResult:
    evidence = {"mean": mean, "p_fail": p_fail, "fail_at": alpha, "p_pass": p_pass, "pass_at": beta}
    if p_fail <= alpha:
        also = f", though {said[1]} too" if p_pass <= beta else ""
        return GateResult(Decision.FAIL, f"{said[0]} shown, {p_text(p_fail)}{also}", n, evidence)
    if p_pass <= beta:
        return GateResult(Decision.PASS, f"{said[1]} shown, {p_text(p_pass)}", n, evidence)
    return GateResult(Decision.INCONCLUSIVE, f"neither {said[0]} nor {said[1]} shown", n, evidence)


def p_text(p: float) -> str:
    """Return for example 'p = 0.007' or 'p < 0.0001'."""
    return "p < 0.0001" if p < 1e-4 else f"p = {p:.2g}"


def _mcnemar(strata: Sequence[TwoCounts]) -> float:
    """Return how likely equally good runs lose at least so many of the pairs that differ."""
    lost, won = sum(each.lost or 0 for each in strata), sum(each.won or 0 for each in strata)
    return float(special.bdtrc(lost - 1, lost + won, 0.5)) if lost else 1.0


def _fisher(strata: Sequence[TwoCounts]) -> float:
    """Return how likely equally good runs give at most so many new successes, all totals given."""
    together = np.ones(1)
    for each in strata:
        total = each.new + each.old
        k = np.arange(max(0, total - each.n_old), min(each.n_new, total) + 1)
        logs = _log_choose(each.n_new, k) + _log_choose(each.n_old, total - k)
        chances = np.exp(logs - _log_choose(each.n_new + each.n_old, np.array(total)))
        together = np.convolve(together, np.concatenate([np.zeros(k[0]), chances])).astype(np.float64)
    return float(min(together[: sum(each.new for each in strata) + 1].sum(), 1.0))


def _log_choose(n: int, k: NDArray[np.int64]) -> Floats:
    found: Floats = special.gammaln(n + 1) - special.gammaln(k + 1) - special.gammaln(n - k + 1)
    return found


def _unpaired(strata: Sequence[TwoCounts], confidence: float) -> tuple[float, float, float]:
    """Return the weighted difference and Newcombe's interval.

    Each run's weighted rate has the interval of so many episodes as give its weights' variance.
    """
    weights = np.array([each.n_new * each.n_old / (each.n_new + each.n_old) for each in strata])
    weights /= weights.sum()
    n_new, n_old = np.array([(each.n_new, each.n_old) for each in strata], dtype=np.float64).T
    rates = np.array([(each.new / each.n_new, each.old / each.n_old) for each in strata])
    new, old = np.clip(weights @ rates, 0.0, 1.0).tolist()
    low_new, high_new = wilson(new, 1 / float((weights**2 / n_new).sum()), confidence)
    low_old, high_old = wilson(old, 1 / float((weights**2 / n_old).sum()), confidence)
    d = new - old
    return (
        d,
        d - float(np.hypot(new - low_new, high_old - old)),
        d + float(np.hypot(high_new - new, old - low_old)),
    )


def _paired(strata: Sequence[TwoCounts], confidence: float) -> tuple[float, float, float]:
    n, new, old = (sum(getattr(each, name) for each in strata) for name in ("n_new", "new", "old"))
    lost, won = sum(each.lost or 0 for each in strata), sum(each.won or 0 for each in strata)
    both, neither = old - lost, n - old - won
    product = both * neither - lost * won
    if product > 0:  # Newcombe's correction for continuity
        product = max(product - n / 2, 0.0)
    totals = float(new * (n - new)) * float(old * (n - old))
    phi = product / np.sqrt(totals) if totals else 0.0
    (low_new, high_new), (low_old, high_old) = wilson(new / n, n, confidence), wilson(old / n, n, confidence)

    def reach(a: float, b: float) -> float:
        return float(np.sqrt(max(a**2 - 2 * phi * a * b + b**2, 0.0)))

    d = (new - old) / n
    return (
        d,
        d - reach(new / n - low_new, high_old - old / n),
        d + reach(high_new - new / n, old / n - low_old),
    )
