"""The script behind the gate's error rates tells right from wrong; confidence sequences cover the truth."""

import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from scipy import stats as scipy_stats

from benchmarks import error_rates
from il_bench.errors import IlBenchError
from il_bench.gate import Decision, stats
from tests.benchmarks.conftest import Invoke

counts = st.integers(1, 1000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
confidences = st.sampled_from([0.5, 0.8, 0.95, 0.999])
shares = npst.arrays(np.float64, st.integers(1, 60), elements=st.floats(0, 1))


def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def successes(k: int, n: int) -> np.ndarray:
    return np.arange(n) < k


# Confidence sequences


@settings(deadline=None, max_examples=50)
@given(counts, confidences)
def test_confidence_sequence_of_successes_is_robbins_and_contains_scipys_exact_interval(
    kn: tuple[int, int], confidence: float
) -> None:
    k, n = kn
    low, high = stats.confidence_sequence(successes(k, n), confidence)
    level = (1 - confidence) / (n + 1)
    assert low == 0 if k == 0 else scipy_stats.binom.pmf(k, n, low) == pytest.approx(level, rel=1e-3)
    assert high == 1 if k == n else scipy_stats.binom.pmf(k, n, high) == pytest.approx(level, rel=1e-3)
    exact = scipy_stats.binomtest(k, n).proportion_ci(confidence, "exact")
    assert low <= exact.low + 1e-9 and exact.high <= high + 1e-9


def test_confidence_sequence_costs_half_as_much_width_again() -> None:
    low, high = stats.confidence_sequence(successes(170, 200))
    exact_low, exact_high = stats.clopper_pearson(170, 200)
    assert 1.4 < (high - low) / (exact_high - exact_low) < 1.8


def test_confidence_sequence_by_hand() -> None:
    # n of n: the average of (theta / m)^n over theta is 1 / ((n + 1) m^n), and 20 at the lower end.
    assert stats.confidence_sequence([1]) == (pytest.approx(0.025), 1.0)
    assert stats.confidence_sequence([0]) == (0.0, pytest.approx(0.975))
    assert stats.confidence_sequence(np.ones(30)) == (pytest.approx((0.05 / 31) ** (1 / 30)), 1.0)
    # One half: (theta / m + (1 - theta) / (1 - m)) / 2 averages to 1 / (4 m (1 - m)), so m (1 - m) = 1 / 80.
    half = (1 - np.sqrt(0.95)) / 2
    assert stats.confidence_sequence([0.5]) == pytest.approx((half, 1 - half))
    # One and one half: theta^2 averages to 1/3 and theta (1 - theta) to 1/6.
    for m in stats.confidence_sequence([1, 0.5]):
        assert 1 / (6 * m**2) + 1 / (12 * m * (1 - m)) == pytest.approx(20)


@settings(deadline=None, max_examples=50)
@given(shares, confidences)
def test_confidence_sequence_contains_the_mean_and_knows_neither_order_nor_direction(
    x: np.ndarray, confidence: float
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        low, high = stats.confidence_sequence(x, confidence)
    assert 0 <= low <= x.mean() + 1e-9 and x.mean() - 1e-9 <= high <= 1
    assert stats.confidence_sequence(x[::-1], confidence) == pytest.approx((low, high), abs=1e-9)
    assert stats.confidence_sequence(1 - x, confidence) == pytest.approx((1 - high, 1 - low), abs=1e-9)


def test_confidence_sequence_is_narrower_for_values_that_differ_less() -> None:
    low, high = stats.confidence_sequence(rng().choice([0.4, 0.6], 300))
    wide_low, wide_high = stats.confidence_sequence(rng().choice([0.0, 1.0], 300))
    assert high - low < (wide_high - wide_low) / 3


def most_damning(x: np.ndarray, mean: float) -> np.ndarray:
    """The run up to where its mean is farthest from the truth, in standard errors: the worst time to stop."""
    n = np.arange(1, x.size + 1)
    distance = np.abs(np.cumsum(x - mean)) / np.sqrt(n)
    return x[: distance.argmax() + 1]


def misses(interval: Callable[[np.ndarray], tuple[float, float]], runs: np.ndarray, mean: float) -> float:
    ends = np.array([interval(most_damning(run, mean)) for run in runs])
    return float(((ends[:, 0] > mean) | (ends[:, 1] < mean)).mean())


def test_confidence_sequence_covers_success_rates_at_the_worst_time_to_stop() -> None:
    runs = (rng().random((400, 1000)) < 0.85).astype(float)
    assert misses(stats.confidence_sequence, runs, 0.85) <= 0.05
    # Where an interval for a fixed number of episodes is worth nothing.
    assert misses(lambda x: stats.clopper_pearson(int(x.sum()), x.size), runs, 0.85) > 0.2


def test_confidence_sequence_covers_mean_rewards_at_the_worst_time_to_stop() -> None:
    (runs,) = error_rates.rewards(rng(), 150, mean=0.9, near_misses=True)
    runs = runs[:, :400]
    assert misses(stats.confidence_sequence, runs, 0.9) <= 0.05
    assert misses(lambda x: stats.confidence_sequence(x, 0.3), runs, 0.9) > 0.05


@pytest.mark.parametrize(
    ("x", "confidence", "message"),
    [
        ([], 0.95, r"shape \(0,\)"),
        ([[0.5]], 0.95, r"shape \(1, 1\)"),
        ([0.5, np.nan], 0.95, r"x\[1\] = nan"),
        ([-0.1], 0.95, r"x\[0\] = -0.1"),
        ([0.5], 1.0, "confidence = 1.0"),
        ([0.5], 0.0, "confidence = 0.0"),
    ],
)
def test_bad_input_to_a_confidence_sequence_is_named(x, confidence: float, message: str) -> None:
    with pytest.raises(IlBenchError, match=message):
        stats.confidence_sequence(x, confidence)


# What is simulated


@pytest.mark.parametrize("near_misses", [True, False])
@pytest.mark.parametrize("mean", [0.8, 0.9])
def test_rewards_have_the_mean_they_are_said_to_have(near_misses: bool, mean: float) -> None:
    (x,) = error_rates.rewards(rng(), 300, mean=mean, near_misses=near_misses)
    assert x.min() >= 0 and x.max() == 1
    assert x.mean() == pytest.approx(mean, abs=4 * x.std() / np.sqrt(x.size))


@pytest.mark.parametrize("agreement", error_rates.AGREEMENTS)
@pytest.mark.parametrize("change", [0.0, -0.05, -0.1])
def test_pairs_have_the_change_and_the_agreement_they_are_said_to_have(
    agreement: float, change: float
) -> None:
    new, old = error_rates.pairs(rng(), 300, change=change, agreement=agreement)
    assert old.mean() == pytest.approx(0.85, abs=0.003)
    assert new.mean() - old.mean() == pytest.approx(change, abs=0.004)
    assert (new == old).mean() == pytest.approx(agreement, abs=0.004)


# What is counted


def situation(study: int, *about: str) -> error_rates.Situation:
    return next(s for s in error_rates.studies(8)[study].situations if s.about == about)


def row(chosen: error_rates.Situation, runs: int = 1000) -> dict[str, str]:
    simulated = list(error_rates.simulate(chosen, runs, rng()))
    cells = error_rates.verdicts(chosen, simulated)
    return dict(zip(error_rates.VERDICTS, cells, strict=True))


def test_every_wrong_verdict_is_wrong_and_every_right_one_is_right() -> None:
    wrong = {
        study.title.partition(",")[0]: [s.wrong for s in study.situations]
        for study in error_rates.studies(8)
        if "the rule" not in study.title
    }
    three, four = [Decision.FAIL, None, Decision.PASS], [Decision.FAIL, None, Decision.PASS, Decision.PASS]
    assert list(wrong.values()) == [three * 12, three * 4, four * 4]


@pytest.mark.parametrize(
    ("study", "about", "too_early"),  # by so many times the risk, where the gate is to be found out
    [
        (0, "0.92 0.10 0.05000 0.920", 1),
        (0, "0.92 0.10 0.00625 0.920", 1),
        (0, "0.92 0.10 0.05000 0.820", 1),
        (2, "near 0.10 0.900", 1),
        (3, "0.85 0.05000 -0.100", 1),
        (0, "0.65 0.10 0.05000 0.650", 2),
        (0, "0.65 0.10 0.05000 0.550", 2),
        (2, "zero 0.10 0.800", 2),
        (0, "0.85 0.10 0.00625 0.850", 8),
        (3, "0.85 0.00625 +0.000", 8),
    ],
)
def test_the_gate_holds_what_it_declares_and_one_that_decides_too_early_is_found_out(
    study: int, about: str, too_early: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    reach = stats.episodes_to_reach
    monkeypatch.setattr(stats, "episodes_to_reach", lambda evidence, risk: reach(evidence, too_early * risk))
    held = row(situation(study, *about.split()))["held"]
    assert held in ("yes", "unclear") if too_early == 1 else held == "NO"


@pytest.mark.parametrize(
    ("study", "held", "beside"),
    [
        (0, "0.85 0.10 0.00625 0.850", "0.85 0.10 0.00625 0.750"),
        (3, "0.85 0.00625 +0.000", "0.85 0.00625 -0.050"),
    ],
)
def test_alpha_is_divided_over_the_gates_and_beta_is_not(study: int, held: str, beside: str) -> None:
    assert situation(study, *held.split()).allowed == 0.05 / 8
    assert situation(study, *beside.split()).allowed == 0.05


@pytest.mark.parametrize("target", error_rates.TARGETS)
def test_the_naive_rule_errs_as_the_binomial_says(target: float) -> None:
    runs = 2000
    at_target = situation(1, f"{target:.2f}", "0.05", f"{target:.3f}")
    simulated = error_rates.simulate(at_target, runs, rng())
    fails = Counter(run.result.decision for run in simulated)[Decision.FAIL]
    needed = np.ceil(50 * target)
    low, high = stats.clopper_pearson(fails, runs, 0.999)
    assert low <= scipy_stats.binom.cdf(needed - 1, 50, target) <= high
    assert row(at_target)["held"] == "NO"


def simulated(chosen: error_rates.Situation, values: np.ndarray) -> error_rates.Simulated:
    """One run of these values."""
    (run,) = error_rates.simulate(replace(chosen, draw=lambda rng, runs: (values[None],)), 1, rng())
    return run


def test_cells_by_hand() -> None:
    at_target = situation(0, "0.85", "0.05", "0.05000", "0.850")
    passed, failed = simulated(at_target, np.ones(1000)), simulated(at_target, np.zeros(1000))
    undecided = simulated(at_target, np.tile([1, 1, 1, 1, 1, 0], 25))
    assert (passed.result.n, failed.result.n, undecided.result.n) == (50, 11, 150)
    assert (passed.rolled_out, failed.rolled_out, undecided.rolled_out) == (50, 50, 150)
    cells = error_rates.verdicts(at_target, [passed, passed, failed, undecided])
    upper = 1 - scipy_stats.beta.ppf(0.05, 3, 2)  # one-sided, 1 of 4
    assert cells == ["25.00", "50.00", "25.00", "65", "75", "FAIL", f"{100 * upper:.2f}", "5", "unclear"]


def test_intervals_are_taken_where_the_suite_stops() -> None:
    """Fifteen episodes decide, of the fifty of their block."""
    at_target = situation(0, "0.65", "0.10", "0.05000", "0.650")
    run = simulated(at_target, np.r_[np.ones(30), np.zeros(970)])
    assert (str(run.result.decision), run.result.n, run.rolled_out, run.total) == ("PASS", 18, 50, 30.0)
    exact, sequence = stats.clopper_pearson(30, 50), stats.confidence_sequence(successes(30, 50))
    between = (exact[0] + sequence[0]) / 2
    missed, width, sequence_missed, sequence_width = error_rates.coverage(between, [run])
    assert (missed, width) == ("100.00", f"{exact[1] - exact[0]:.3f}")
    assert (sequence_missed, sequence_width) == ("0.00", f"{sequence[1] - sequence[0]:.3f}")


def test_the_script_prints_its_tables_and_the_seed_decides_them(invoke: Invoke) -> None:
    def printed(*arguments: str) -> str:
        result = invoke(error_rates.main, "--runs", "3", "--gates", "8", *arguments)
        assert result.exit_code == 0, result.output
        return result.stdout

    first = printed()
    for study in error_rates.studies(8):
        assert study.title in first
    assert "where the suite stops" in first
    assert printed() == first
    assert printed("--seed", "1") != first
