"""Intervals and e-processes: by hand, against scipy, and by simulation under the hypotheses they test."""

import math
import warnings
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from scipy import stats as scipy_stats

from il_bench.errors import IlBenchError
from il_bench.gate import stats

RUNS, EPISODES = 2000, 1000
bits = npst.arrays(np.float64, st.integers(1, 200), elements=st.sampled_from([0.0, 1.0]))
shares = npst.arrays(np.float64, st.integers(1, 200), elements=st.floats(0, 1))


def rng() -> np.random.Generator:
    return np.random.default_rng(7)


mean_evidence = partial(stats.mean_evidence, low=0.0, high=1.0)
differences_evidence = partial(stats.mean_evidence, low=-1.0, high=1.0)


def assert_rate_at_most(hits: np.ndarray, bound: float) -> None:
    """The true rate behind these hits may be at most `bound`: wrong by chance once in 1,000 tests."""
    low, _ = stats.clopper_pearson(int(hits.sum()), hits.size, confidence=0.998)
    assert low <= bound, f"{hits.mean():.4f} of {hits.size} runs, allowed {bound}"


@settings(deadline=None)
@given(st.integers(1, 1000), st.floats(0, 1), st.floats(0.5, 0.999))
def test_clopper_pearson_is_scipys_exact_interval(n: int, share: float, confidence: float) -> None:
    k = round(share * n)
    expected = scipy_stats.binomtest(k, n).proportion_ci(confidence, "exact")
    assert stats.clopper_pearson(k, n, confidence) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_clopper_pearson_by_hand() -> None:
    # All of n succeed: the lower end p solves p^n = 0.025.
    assert stats.clopper_pearson(10, 10) == (pytest.approx(0.025**0.1), 1.0)
    assert stats.clopper_pearson(0, 10) == (0.0, pytest.approx(1 - 0.025**0.1))


def test_mean_interval_depends_on_the_generator_alone() -> None:
    x = rng().random(60)
    np.random.seed(1)
    first = stats.mean_interval(x, 0.95, rng())
    np.random.seed(2)
    assert stats.mean_interval(x, 0.95, rng()) == first
    assert stats.mean_interval(x, 0.95, np.random.default_rng(8)) != first


def test_mean_interval_covers_the_mean_of_skewed_rewards() -> None:
    draws = rng().beta(4, 0.5, (150, 100))  # most rewards at 1, some far below
    ends = [stats.mean_interval(x, 0.90, np.random.default_rng(i)) for i, x in enumerate(draws)]
    assert 3 <= sum(not low <= 4 / 4.5 <= high for low, high in ends) <= 30  # 15 expected


def test_mean_interval_of_equal_values_is_clopper_pearsons() -> None:
    assert stats.mean_interval(np.ones(20), 0.95, rng()) == pytest.approx(stats.clopper_pearson(20, 20))
    assert stats.mean_interval(np.zeros(20), 0.95, rng()) == pytest.approx(stats.clopper_pearson(0, 20))
    low, high = stats.mean_interval([0.5], 0.95, rng())
    assert low < 0.02 and high > 0.98


@settings(deadline=None)
@given(npst.arrays(np.float64, st.integers(1, 12), elements=st.floats(0, 1)))
def test_mean_interval_is_finite_and_contains_the_mean(x: np.ndarray) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        low, high = stats.mean_interval(x, 0.95, rng())
    assert 0 <= low <= x.mean() + 1e-12 and x.mean() - 1e-12 <= high <= 1


def test_bernoulli_evidence_by_hand() -> None:
    against_half = stats.bernoulli_evidence([1, 0, 1], against=0.5, alternative=0.25)
    # A success halves the wealth (0.25 / 0.5), a failure multiplies it by 1.5 (0.75 / 0.5).
    assert np.exp(against_half) == pytest.approx([0.5, 0.75, 0.375])


def test_mean_evidence_by_hand() -> None:
    # Against a mean <= 0.5 of values in [0, 1], aiming at 0.6. Prior: 10 episodes with mean gain 0.1 and mean
    # square 0.25 + 0.01. First bet: effect 0.1, variance 0.25, so 0.1 / 0.26; gain of a 1: 0.5.
    first = 1 + 0.1 / 0.26 * 0.5
    # Second bet: mean gain (0.5 + 10 * 0.1) / 11 = 0.13636.. is above 0.1, mean square (0.25 + 2.6) / 11.
    effect = 1.5 / 11
    variance = 2.85 / 11 - effect**2
    second = 1 - effect / (variance + effect**2) * 0.3  # the value 0.2 loses 0.3
    evidence = mean_evidence([1.0, 0.2], against=0.5, alternative=0.6)
    assert np.exp(evidence) == pytest.approx([first, first * second])


def test_no_single_episode_costs_more_than_half_the_wealth() -> None:
    x = np.concatenate([np.zeros(300), [-1.0]])  # as sure as one can be, then a surprise
    evidence = differences_evidence(x, against=-0.05, alternative=0.0)
    assert evidence[-1] - evidence[-2] == pytest.approx(math.log(0.5))


@settings(deadline=None)
@given(bits)
def test_the_two_bernoulli_tests_mirror_each_other(x: np.ndarray) -> None:
    against_high = stats.bernoulli_evidence(x, against=0.85, alternative=0.8)
    assert np.allclose(against_high, -stats.bernoulli_evidence(x, against=0.8, alternative=0.85))
    assert np.allclose(against_high, stats.bernoulli_evidence(1 - x, against=0.15, alternative=0.2))


@settings(deadline=None)
@given(shares)
def test_mean_evidence_does_not_depend_on_units_or_direction(x: np.ndarray) -> None:
    plain = mean_evidence(x, against=0.9, alternative=0.85)
    mirrored = stats.mean_evidence(-x, against=-0.9, alternative=-0.85, low=-1.0, high=0.0)
    percent = stats.mean_evidence(100 * x, against=90.0, alternative=85.0, low=0.0, high=100.0)
    assert np.allclose(plain, mirrored)
    assert np.allclose(plain, percent)


@settings(deadline=None)
@given(shares, st.data())
def test_evidence_so_far_never_depends_on_what_comes_later(x: np.ndarray, data: st.DataObject) -> None:
    cut = data.draw(st.integers(1, len(x)))
    of_means, of_means_so_far = (mean_evidence(each, against=0.6, alternative=0.5) for each in (x, x[:cut]))
    assert np.allclose(of_means_so_far, of_means[:cut], rtol=0, atol=1e-12)
    success, points = np.round(x), {"against": 0.6, "alternative": 0.5}
    of_rates = stats.bernoulli_evidence(success, **points)
    assert (stats.bernoulli_evidence(success[:cut], **points) == of_rates[:cut]).all()


@settings(deadline=None)
@given(shares, st.data())
def test_a_better_episode_weakens_the_evidence_against_high_means(x: np.ndarray, data: st.DataObject) -> None:
    i = data.draw(st.integers(0, len(x) - 1))
    better = x.copy()
    better[i] = data.draw(st.floats(x[i], 1))
    before, after = (mean_evidence(each, against=0.6, alternative=0.5) for each in (x, better))
    # Up to that episode: later bets are made in its light, in either direction.
    assert (after[: i + 1] <= before[: i + 1] + 1e-12).all()


def test_evidence_takes_many_runs_at_once() -> None:
    x = rng().random((3, 5, 40))
    many, one = (mean_evidence(each, against=0.5, alternative=0.6) for each in (x, x[2, 4]))
    assert many.shape == x.shape
    assert np.allclose(many[2, 4], one)


def test_episodes_to_reach() -> None:
    evidence = np.log([[1.0, 20.0, 5.0], [1.0, 2.0, 3.0], [25.0, 1.0, 30.0]])
    assert stats.episodes_to_reach(evidence, 0.05).tolist() == [2, 0, 1]
    assert stats.episodes_to_reach(np.empty((4, 0)), 0.05).tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("target", [0.65, 0.85, 0.92])
@pytest.mark.parametrize("margin", [0.05, 0.10])
def test_bernoulli_error_rates_over_all_stopping_times(target: float, margin: float) -> None:
    floor, uniform = target - margin, rng().random((RUNS, EPISODES))
    for rate, alternative in ((target, floor), (floor, target)):
        evidence = stats.bernoulli_evidence(uniform < rate, against=rate, alternative=alternative)
        assert_rate_at_most(stats.episodes_to_reach(evidence, 0.05) > 0, 0.05)


def rare_losses(generator: np.random.Generator, mean: float) -> np.ndarray:
    """Differences that are mostly a small gain, rarely a large loss: hard on a test that trusts variances."""
    losses = generator.random((RUNS, EPISODES)) < 0.05
    return np.where(losses, -0.95, 0.05) + mean


def coin_flips(generator: np.random.Generator, mean: float) -> np.ndarray:
    """Differences of successes, -1, 0 or 1, of two policies that disagree on a quarter of the seeds."""
    uniform = generator.random((RUNS, EPISODES))
    lost = 0.125 - mean / 2
    return np.where(uniform < lost, -1.0, np.where(uniform < 0.25, 1.0, 0.0))


def a_bad_start(generator: np.random.Generator, mean: float) -> np.ndarray:
    """Differences whose spread grows a hundredfold after episode 100, when the bets have become bold."""
    spread = np.where(np.arange(EPISODES) < 100, 0.009, 0.9)
    return np.where(generator.random((RUNS, EPISODES)) < 0.5, -spread, spread) + mean


@pytest.mark.parametrize("draw", [rare_losses, coin_flips, a_bad_start])
@pytest.mark.parametrize("risk", [0.05, 0.2])
def test_betting_error_rates_over_all_stopping_times(draw, risk: float) -> None:
    for mean, alternative in ((0.0, -0.05), (-0.05, 0.0)):
        evidence = differences_evidence(draw(rng(), mean), against=mean, alternative=alternative)
        assert_rate_at_most(stats.episodes_to_reach(evidence, risk) > 0, risk)


def test_betting_on_rewards_keeps_its_error_rates_and_finds_the_truth() -> None:
    generator = rng()
    solved = generator.random((RUNS, EPISODES)) < 0.8
    rewards = np.where(solved, 1.0, generator.beta(2, 2, (RUNS, EPISODES)))  # mean 0.9
    for alternative in (0.85, 0.95):
        wrong = mean_evidence(rewards, against=0.9, alternative=alternative)
        assert_rate_at_most(stats.episodes_to_reach(wrong, 0.05) > 0, 0.05)
    passes = stats.episodes_to_reach(mean_evidence(rewards, against=0.85, alternative=0.9), 0.05)
    assert (passes > 0).mean() > 0.99
    assert passes.mean() < 250


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: stats.bernoulli_evidence([1, 0.5], against=0.8, alternative=0.7), r"success\[1\] = 0.5"),
        (lambda: stats.bernoulli_evidence([np.nan], against=0.8, alternative=0.7), r"success\[0\] = nan"),
        (lambda: stats.bernoulli_evidence([1], against=1.0, alternative=0.7), "against = 1.0"),
        (lambda: stats.bernoulli_evidence([1], against=0.8, alternative=0.8), "use a margin"),
        (lambda: stats.mean_evidence([0, 2], against=0.8, alternative=0.7, low=0, high=1), r"x\[1\] = 2.0"),
        (lambda: stats.mean_evidence([0], against=0.8, alternative=0.0, low=0, high=1), "alternative = 0.0"),
        (lambda: stats.mean_interval([], 0.95, rng()), r"shape \(0,\)"),
        (lambda: stats.mean_interval([0.5, np.nan], 0.95, rng()), r"x\[1\] = nan"),
        (lambda: stats.mean_interval([0.5], 95, rng()), "confidence = 95"),
        (lambda: stats.clopper_pearson(0, 0), "k = 0 successes in n = 0"),
        (lambda: stats.clopper_pearson(-1, 5), "k = -1 successes in n = 5"),
        (lambda: stats.clopper_pearson(6, 5), "k = 6 successes in n = 5"),
    ],
)
def test_bad_input_is_named(call, message: str) -> None:
    with pytest.raises(IlBenchError, match=message):
        call()
