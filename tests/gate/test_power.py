"""How many episodes a verdict takes: exact numbers against simulated ones."""

import numpy as np
import pytest

from benchmarks import error_rates
from il_bench.gate import Decision, check_target
from il_bench.gate.fixed import chances, check_counts
from il_bench.gate.power import course
from il_bench.protocol import BLOCK_SIZE, MAX_EPISODES

#: docs/explanation/gate.md, of 20,000 runs of `make error-rates` a row: per cent of wrong verdicts at the
#: target and at the floor, then episodes and per cent INCONCLUSIVE at the target, half-way and at the floor.
SIMULATED = [
    ((0.65, 0.05), (0.34, 4.18), (524, 799, 744), (12.7, 53.4, 31.8)),
    ((0.65, 0.10), (0.47, 4.46), (172, 387, 250), (0.0, 5.5, 0.1)),
    ((0.85, 0.05), (0.45, 4.75), (370, 668, 527), (3.5, 32.9, 8.3)),
    ((0.92, 0.10), (0.51, 4.42), (99, 202, 121), (0.0, 0.1, 0.0)),
]


@pytest.mark.parametrize(("declared", "wrong", "episodes", "undecided"), SIMULATED)
def test_the_course_is_what_make_error_rates_simulated(
    declared: tuple[float, float],
    wrong: tuple[float, float],
    episodes: tuple[int, int, int],
    undecided: tuple[float, float, float],
) -> None:
    target, margin = declared
    rates = (target, target - margin / 2, target - margin)
    found = [course(rate, target, margin, 0.05 / 8, 0.05, MAX_EPISODES) for rate in rates]
    assert 100 * found[0].fail.sum() == pytest.approx(wrong[0], abs=0.2)
    assert 100 * found[2].passed.sum() == pytest.approx(wrong[1], abs=0.6)
    for each, n, share in zip(found, episodes, undecided, strict=True):
        assert each.mean(BLOCK_SIZE) == pytest.approx(n, rel=0.02)
        assert 100 * (1 - each.decided[-1]) == pytest.approx(share, abs=1.4)


@pytest.mark.parametrize("rate", [0.78, 0.85, 0.90])
def test_the_course_is_that_of_simulated_gates(rate: float) -> None:
    draws = error_rates.successes(np.random.default_rng(3), 400, p=rate)[0]
    results = [check_target(each, target=0.85, margin=0.1) for each in draws]
    found = course(rate, 0.85, 0.1, 0.05, 0.05, MAX_EPISODES)
    for decision, share in ((Decision.PASS, found.passed.sum()), (Decision.FAIL, found.fail.sum())):
        simulated = np.mean([each.decision is decision for each in results])
        assert simulated == pytest.approx(share, abs=4 * np.sqrt(share * (1 - share) / 400) + 1e-3)
    n = np.array([each.n for each in results])
    assert n.mean() == pytest.approx(found.mean(), abs=4 * n.std() / 20)
    assert np.quantile(n, 0.9) == pytest.approx(found.within(0.9), rel=0.2)


def test_a_course_of_few_episodes_is_counted_by_hand() -> None:
    """At 0.8 against 0.75, only failures decide soon: log(0.25 / 0.2) each, 3.0 needed."""
    found = course(0.0, 0.8, 0.05, 0.05, 0.05, 20)
    assert np.flatnonzero(found.fail).tolist() == [13]
    assert (found.mean(), found.mean(10), found.within(0.9), found.decided[-1]) == (14, 20, 14, 1.0)
    assert course(0.0, 0.8, 0.05, 0.05, 0.05, 13).within(0.9) is None


@pytest.mark.parametrize(("rate", "n"), [(0.8, 50), (0.9, 50), (0.7, 33), (1.0, 11), (0.0, 3)])
def test_chances_of_a_file_are_those_of_every_outcome(rate: float, n: int) -> None:
    from scipy.stats import binom

    decisions = [check_counts(k, n, target=0.8).decision for k in range(n + 1)]
    weights = binom.pmf(np.arange(n + 1), n, rate)
    expected = [
        sum(w for w, each in zip(weights, decisions, strict=True) if each is decision)
        for decision in (Decision.FAIL, Decision.PASS)
    ]
    assert chances(rate, n, target=0.8, margin=0.05, alpha=0.05, beta=0.05) == pytest.approx(expected)
