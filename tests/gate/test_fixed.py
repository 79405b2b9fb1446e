"""Tests for fixed numbers of episodes, against scipy, published examples, and brute force."""

from itertools import product
from math import comb

import numpy as np
import pytest
from scipy.stats import binomtest, fisher_exact

from il_bench.errors import IlBenchError
from il_bench.gate import Decision, fixed
from il_bench.gate.fixed import (
    Difference,
    TwoCounts,
    check_counts,
    compare,
    enough,
    times_as_many,
    wilson,
)


def test_45_of_50_shows_more_than_three_quarters() -> None:
    found = check_counts(45, 50, target=0.8)
    assert (found.decision, found.passed) == (Decision.PASS, True)
    assert str(found) == "PASS (> 0.75 shown, p = 0.007, 50 episodes)"


@pytest.mark.parametrize(
    ("k", "n", "target", "decision"),
    [
        (10, 10, 0.8, Decision.INCONCLUSIVE),  # 0.75 ** 10 is 0.056
        (11, 11, 0.8, Decision.PASS),
        (34, 50, 0.8, Decision.FAIL),
        (35, 50, 0.8, Decision.INCONCLUSIVE),
        (0, 3, 0.8, Decision.FAIL),
        (8250, 10_000, 0.85, Decision.FAIL),  # above 0.80, and below 0.85
    ],
)
def test_decisions_are_those_of_scipys_binomial_test(
    k: int, n: int, target: float, decision: Decision
) -> None:
    found = check_counts(k, n, target=target)
    assert found.decision is decision
    assert found.evidence["p_fail"] == pytest.approx(binomtest(k, n, target, "less").pvalue)
    assert found.evidence["p_pass"] == pytest.approx(binomtest(k, n, target - 0.05, "greater").pvalue)


def test_a_rate_between_target_and_floor_fails_and_says_both() -> None:
    assert str(check_counts(8250, 10_000, target=0.85)).startswith(
        "FAIL (< 0.85 shown, p < 0.0001, though > 0.80 too"
    )


@pytest.mark.parametrize(("k", "n"), [(40, 50), (78, 100), (10, 10)])
def test_so_many_episodes_decide_four_times_in_five(k: int, n: int) -> None:
    """Against futures that are drawn: a rate from what the episodes leave open, then a new run."""
    needed = enough(k, n, target=0.8, margin=0.05, alpha=0.05, beta=0.05)
    assert needed is not None
    rng = np.random.default_rng(5)
    for size, is_enough in ((needed, True), (needed // 3, False)):
        futures = rng.binomial(size, rng.beta(k + 0.5, n - k + 0.5, 1000))
        decided = {each: check_counts(each, size, target=0.8).decision for each in set(futures.tolist())}
        share = np.mean([decided[each] is not Decision.INCONCLUSIVE for each in futures.tolist()])
        assert bool(share > 0.77) is is_enough
    assert enough(795_000, 1_000_000, target=0.8, margin=0.01, alpha=0.05, beta=0.05) is None


@pytest.mark.parametrize("lost", [None, 8])
def test_so_many_times_as_many_episodes_decide_a_comparison(lost: int | None) -> None:
    """Against futures of other random numbers; pairs need fewer."""
    now = [TwoCounts(85, 100, 88, 100, lost)]
    risks = {"margin": 0.05, "alpha": 0.05, "beta": 0.05}
    assert compare(now, **risks)[0].decision is Decision.INCONCLUSIVE
    factor = times_as_many(now, **risks)
    assert factor is not None and (factor > 5 if lost is None else factor > 1.5)
    rng = np.random.default_rng(9)
    decided = {}
    for size in (factor, factor / 4):
        drawn = [fixed._drawn(now[0], fixed._rates(now[0], rng), size, rng) for _ in range(200)]
        found = [compare([each], **risks)[0].decision for each in drawn]
        decided[size] = np.mean([each is not Decision.INCONCLUSIVE for each in found])
    assert decided[factor] > 0.7 > decided[factor / 4]
    assert times_as_many([TwoCounts(8500, 10_000, 8500, 10_000)], margin=0.001, alpha=0.05, beta=0.05) is None


@pytest.mark.parametrize("n", [20, 50, 137])
def test_risks_hold_at_the_target_and_at_the_floor(n: int) -> None:
    """Every possible outcome, each with its probability."""
    decisions = [check_counts(k, n, target=0.8).decision for k in range(n + 1)]
    for rate, wrong in ((0.8, Decision.FAIL), (0.75, Decision.PASS)):
        weights = [comb(n, k) * rate**k * (1 - rate) ** (n - k) for k in range(n + 1)]
        assert sum(w for w, decision in zip(weights, decisions, strict=True) if decision is wrong) <= 0.05


@pytest.mark.parametrize(("k", "n"), [(0, 10), (9, 10), (14, 30), (50, 50)])
def test_wilson_is_scipys(k: int, n: int) -> None:
    found = binomtest(k, n).proportion_ci(0.95, "wilson")
    assert wilson(k / n, n) == pytest.approx((found.low, found.high), abs=1e-12)


def difference(*strata: TwoCounts) -> Difference:
    return compare(strata)[1]


@pytest.mark.parametrize(
    ("counts", "low", "high"),
    [  # Newcombe 1998, p. 878: table II, method 10
        (TwoCounts(56, 70, 48, 80), 0.0524, 0.3339),
        (TwoCounts(9, 10, 3, 10), 0.1705, 0.8090),
        (TwoCounts(6, 7, 2, 7), 0.0582, 0.8062),
        (TwoCounts(5, 56, 0, 29), -0.0381, 0.1926),
        (TwoCounts(10, 10, 0, 20), 0.6791, 1.0),
    ],
)
def test_unpaired_intervals_are_newcombes(counts: TwoCounts, low: float, high: float) -> None:
    assert difference(counts)[1:3] == pytest.approx((low, high), abs=6e-5)


def test_a_paired_interval_is_newcombes() -> None:
    """Newcombe 1998, p. 2643, table II: 36 both, 12 and 2 in one only, 0 in neither."""
    found = difference(TwoCounts(48, 50, 38, 50, lost=2))
    assert found[:3] == pytest.approx((0.2, 0.0569, 0.3404), abs=6e-5)


@pytest.mark.parametrize(
    ("new", "n_new", "old", "n_old"), [(30, 50, 45, 50), (0, 5, 5, 5), (7, 7, 1, 9), (90, 100, 92, 120)]
)
def test_one_unpaired_task_is_fishers_test(new: int, n_new: int, old: int, n_old: int) -> None:
    table = [[new, n_new - new], [old, n_old - old]]
    result, found = compare([TwoCounts(new, n_new, old, n_old)])
    assert found.p == pytest.approx(fisher_exact(table, "less").pvalue)
    assert (result.decision is Decision.FAIL) == (found.p <= 0.05)


def test_several_unpaired_tasks_are_fishers_test_of_each_together() -> None:
    """All ways to deal the successes of each task to the two runs, counted one by one."""
    strata = [TwoCounts(2, 4, 4, 5), TwoCounts(1, 3, 3, 3), TwoCounts(0, 2, 1, 2)]
    few = total = 0
    ways = []
    for each in strata:
        successes = each.new + each.old
        ways.append(
            [(k, comb(each.n_new, k) * comb(each.n_old, successes - k)) for k in range(successes + 1)]
        )
    for drawn in product(*ways):
        weight = int(np.prod([w for _, w in drawn]))
        total += weight
        few += weight * (sum(k for k, _ in drawn) <= 3)
    assert difference(*strata).p == pytest.approx(few / total)


def test_tasks_of_other_difficulty_do_not_hide_a_drop() -> None:
    """The new run has more episodes of the easy task, so its overall rate is higher; it is worse in both."""
    strata = [TwoCounts(340, 400, 95, 100), TwoCounts(10, 100, 120, 400)]
    assert 350 / 500 > 215 / 500
    result, found = compare(strata)
    assert result.decision is Decision.FAIL
    assert found.high < 0


def test_paired_tasks_are_mcnemars_test_of_all_pairs() -> None:
    strata = [TwoCounts(40, 50, 44, 50, lost=6), TwoCounts(30, 50, 37, 50, lost=9)]
    found = difference(*strata)
    assert found.p == pytest.approx(binomtest(15, 15 + 2 + 2, 0.5, "greater").pvalue)
    assert found.estimate == pytest.approx(-0.11)
    assert compare(strata)[0].decision is Decision.FAIL


@pytest.mark.parametrize(("rate", "n"), [(0.65, 30), (0.9, 30)])
def test_a_run_that_is_worse_by_the_margin_seldom_passes(rate: float, n: int) -> None:
    """Newcombe's interval is no exact test: by all outcomes, its risk is near what is declared."""
    k = np.arange(n + 1)
    coefficients = np.array([comb(n, i) for i in k], dtype=np.float64)
    new, old = (coefficients * p**k * (1 - p) ** (n - k) for p in (rate - 0.1, rate))
    passes = [
        (i, j)
        for i in k
        for j in k
        if compare([TwoCounts(i, n, j, n)], margin=0.1)[0].decision is Decision.PASS
    ]
    assert sum(new[i] * old[j] for i, j in passes) < 0.06


@pytest.mark.parametrize(
    "wrong", [(5, 4, 1, 4, None), (1, 0, 0, 1, None), (3, 4, 3, 5, 0), (1, 4, 4, 4, 2), (4, 4, 0, 4, 1)]
)
def test_numbers_that_no_episodes_give_are_refused(wrong: tuple[int, int, int, int, int | None]) -> None:
    with pytest.raises(IlBenchError, match="no episodes give these"):
        TwoCounts(*wrong)
