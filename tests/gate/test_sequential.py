"""Decisions: worked out by hand, for every kind of answer, and their error rates by simulation."""

import json
import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from il_bench.errors import IlBenchError
from il_bench.gate import Decision, GateResult, check_baseline, check_target
from il_bench.gate.power import more_episodes
from il_bench.gate.stats import clopper_pearson, confidence_sequence

TARGET = {"target": 0.85, "margin": 0.05, "alpha": 0.05, "beta": 0.05, "cap": 1000}
BASELINE = {"margin": 0.05, "alpha": 0.05, "beta": 0.05}


def test_pass_by_hand() -> None:
    # Every success multiplies the evidence against p <= 0.80 by 0.85 / 0.80; 1 / 0.05 = 20 takes 50 of them.
    assert (0.85 / 0.80) ** 49 < 20 <= (0.85 / 0.80) ** 50
    assert check_target(np.ones(49), **TARGET).decision == "INCONCLUSIVE"
    result = check_target(np.ones(200), **TARGET)
    assert (result.decision, result.n, result.passed) == ("PASS", 50, True)
    assert result.shown == "> 0.80 shown"
    assert str(result) == "PASS (> 0.80 shown, 50 episodes)"
    assert result.evidence == {
        "mean": 1.0,
        "fail": pytest.approx(-50 * math.log(0.85 / 0.80)),
        "pass": pytest.approx(50 * math.log(0.85 / 0.80)),
        "fail_at": pytest.approx(math.log(20)),
        "pass_at": pytest.approx(math.log(20)),
    }


def test_fail_by_hand() -> None:
    # Every failure multiplies the evidence against p >= 0.85 by 0.20 / 0.15: eleven for 20.
    assert (0.20 / 0.15) ** 10 < 20 <= (0.20 / 0.15) ** 11
    result = check_target(np.zeros(60), **TARGET)
    assert (result.decision, result.n, result.passed, result.shown) == ("FAIL", 11, False, "< 0.85 shown")


@pytest.mark.parametrize(("first", "n", "decision"), [(1, 50, "PASS"), (0, 11, "FAIL")])
def test_the_first_crossing_decides_whatever_comes_after(first: int, n: int, decision: str) -> None:
    assert check_target([first] * n + [1 - first] * 900, **TARGET).decision == decision


@pytest.mark.parametrize(
    ("values", "decision"), [([0] * 60, "BELOW TARGET"), ([1] * 60, "PASS"), ([1] * 10, "INCONCLUSIVE")]
)
def test_a_target_that_is_not_required_is_below_target_and_never_failed(values: list, decision: str) -> None:
    result = check_target(values, **TARGET, required=False)
    assert (result.decision, result.passed) == (decision, decision == "PASS")


@pytest.mark.parametrize("values", [[], [1], [0], np.tile([1, 1, 1, 1, 0], 60)])
def test_too_little_to_tell_is_inconclusive_and_never_passed(values) -> None:
    result = check_target(values, **TARGET)
    assert (result.decision, result.passed, result.n) == ("INCONCLUSIVE", False, len(values))
    assert "neither < 0.85 nor > 0.80 shown; the cap is 1000" in str(result)


def test_without_a_target_nothing_is_gated() -> None:
    result = check_target(np.ones(60), **TARGET | {"target": None})
    assert (result.decision, result.passed, result.evidence) == ("NOT GATED", False, {})


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["success_rate", "mean_max_reward"]), st.integers(1, 60))
def test_blocks_give_the_decision_of_the_whole_sequence(seed: int, metric: str, block: int) -> None:
    values = (np.random.default_rng(seed).random(600) < 0.88).astype(float)
    whole = check_target(values, **TARGET, metric=metric)
    for end in range(block, 600 + block, block):
        grown = check_target(values[:end], **TARGET, metric=metric)
        if grown.decision != "INCONCLUSIVE":
            break
    assert (grown.decision, grown.n) == (whole.decision, whole.n)


def test_mean_max_reward_is_gated_on_the_mean_not_on_successes() -> None:
    rewards = np.tile([0.99, 0.87], 200)  # no episode is a success
    for loss, decision in ((0.0, "PASS"), (0.3, "FAIL")):
        assert check_target(rewards - loss, **TARGET, metric="mean_max_reward").decision == decision


def test_error_rates_of_the_decisions() -> None:
    uniform = np.random.default_rng(3).random((300, 1000))
    for rate, decision in ((0.85, "FAIL"), (0.80, "PASS"), (0.90, "PASS"), (0.75, "FAIL")):
        count = [check_target(values, **TARGET).decision for values in uniform < rate].count(decision)
        is_wrong = 0.80 <= rate <= 0.85
        assert clopper_pearson(count, 300, 0.998)[0] <= 0.05 if is_wrong else count == 300


def test_the_same_episodes_of_other_weights_pass_the_baseline() -> None:
    episodes = np.tile([1.0, 1.0, 1.0, 0.0], 50)
    result = check_baseline(episodes, episodes, **BASELINE)
    assert (result.decision, result.passed, result.shown) == ("PASS", True, "> baseline - 0.05 shown")


def test_a_loss_against_the_baseline_fails_and_a_gain_passes() -> None:
    generator = np.random.default_rng(0)
    old = (generator.random(1000) < 0.85).astype(float)
    worse = np.where(generator.random(1000) < 0.12, 0.0, old)  # ten points
    assert check_baseline(worse, old, **BASELINE).decision == "FAIL"
    assert check_baseline(old, worse, **BASELINE).decision == "PASS"
    assert check_baseline(worse[:20], old[:20], **BASELINE).decision == "INCONCLUSIVE"


def test_error_rates_against_a_baseline_of_equal_and_of_worse_policies() -> None:
    generator = np.random.default_rng(1)
    old, equal = (generator.random((2, 200, 1000)) < 0.85).astype(float)
    worse = (generator.random((200, 1000)) < 0.80).astype(float)
    for now, wrong in ((equal, "FAIL"), (worse, "PASS")):
        decisions = [check_baseline(*pair, **BASELINE).decision for pair in zip(now, old, strict=True)]
        assert clopper_pearson(decisions.count(wrong), 200, 0.998)[0] <= 0.05


def test_the_same_weights_are_unchanged_only_to_the_bit() -> None:
    old = np.random.default_rng(0).random(50)
    result = check_baseline(old, old.copy(), **BASELINE, same=True)
    assert (result.decision, result.passed, result.n) == ("UNCHANGED", True, 50)
    new = old.copy()
    new[17] = np.nextafter(new[17], 2)
    result = check_baseline(new, old, **BASELINE, same=True)
    assert (result.decision, result.passed) == ("FAIL", False)
    assert "did not reproduce episode 17" in result.shown
    # Equal in the gated number, but not in another that was recorded.
    result = check_baseline(old, old, **BASELINE, same=True, differs_at=200_031)
    assert result.decision == "FAIL"
    assert "did not reproduce seed 200031" in result.shown
    assert "--il-update-baselines" in result.shown
    assert check_baseline([], [], **BASELINE, same=True).decision == "INCONCLUSIVE"


def test_a_result_has_no_truth_value() -> None:
    with pytest.raises(TypeError, match=r"\.passed"):
        assert check_target(np.zeros(60), **TARGET)


@settings(deadline=None)
@given(st.lists(st.integers(0, 1), max_size=300))
def test_evidence_is_plain_json(values: list[int]) -> None:
    evidence = check_target(values, **TARGET).evidence
    assert json.loads(json.dumps(evidence, allow_nan=False)) == evidence


@pytest.mark.parametrize(
    ("values", "changes", "message"),
    [
        ([0, 1, np.nan], {}, r"values\[2\] = nan"),
        ([0, 0.5], {}, r"values\[1\] = 0.5"),
        ([0.2, 1.5], {"metric": "mean_max_reward"}, r"values\[1\] = 1.5"),
        ([1], {"metric": "reward"}, "metric = 'reward'"),
        ([[1, 0]], {}, "one number an episode"),
        (np.ones(11), {"cap": 10}, "11 episodes, but the cap is 10"),
        ([1], {"cap": 1001}, "cap = 1001: need 1 to 1000"),
        ([1], {"cap": 0}, "cap = 0"),
        ([1], {"target": 1.0}, "target = 1.0"),
        ([1], {"target": math.nan}, "target = nan"),
        ([1], {"margin": 0.0}, "margin = 0.0"),
        ([1], {"margin": 0.85}, "margin = 0.85"),
        ([1], {"alpha": 0.0}, "alpha = 0.0"),
        ([1], {"beta": 5}, "beta = 5"),
    ],
)
def test_bad_input_to_a_target_is_named(values, changes, message: str) -> None:
    with pytest.raises(IlBenchError, match=message):
        check_target(values, **TARGET | changes)


@pytest.mark.parametrize(
    ("new", "old", "changes", "message"),
    [
        ([1, 0], [1, 0, 1], {}, "2 new episodes, 3 of the baseline"),
        ([1, np.nan], [1, 0], {}, r"new\[1\] = nan"),
        ([1, 0], [1, -1], {}, r"old\[1\] = -1.0"),
        ([1], [1], {"margin": 1.0}, "margin = 1.0"),
        ([1], [1], {"alpha": 1.0}, "alpha = 1.0"),
    ],
)
def test_bad_input_to_a_baseline_is_named(new, old, changes, message: str) -> None:
    with pytest.raises(IlBenchError, match=message):
        check_baseline(new, old, **BASELINE | changes)


def test_passed_is_true_for_pass_and_unchanged_alone() -> None:
    passed = {decision for decision in Decision if GateResult(decision, "", 0).passed}
    assert passed == {Decision.PASS, Decision.UNCHANGED}


# ---- what is told


def test_pytest_prints_rate_interval_and_what_was_shown() -> None:
    values = np.arange(200) % 20 != 0
    low, high = confidence_sequence(values)
    rate = f"success_rate 0.950 [{low:.2f}, {high:.2f}] of 200 episodes"
    said = repr(check_target(values, **TARGET))
    assert said.startswith(f"<PASS: {rate}; > 0.80 shown after ")
    assert repr(check_target(values, target=None)) == f"<NOT GATED: {rate}; no target>"
    assert f"<FAIL: {rate}; < 0.99 shown after 101>" == repr(check_target(values, target=0.99, margin=0.01))
    assert len(repr(check_target(values, target=0.96))) < 240, "pytest cuts longer ones"
    assert repr(check_target([], **TARGET)).startswith("<INCONCLUSIVE (neither < 0.85")


def test_inconclusive_says_how_many_more_episodes_would_decide() -> None:
    # 36 more successes in a row pass; of a policy that may fail one in 40, it takes a few more.
    result = check_target(np.ones(20), **TARGET)
    found = re.search(r"; about (\d+) more episodes would decide \(4 times in 5\)", str(result))
    assert found is not None and 30 <= int(found[1]) <= 60
    assert "would decide" in repr(result) and "would decide" not in result.shown
    half_way = np.tile([1, 1, 1, 1, 1, 1, 1, 0, 1, 1, 1, 1, 1, 0, 1, 1, 1, 1, 0, 1], 20)[:380]
    for cap, left in ((1000, "620 are left"), (381, "1 is left"), (380, "there are no more")):
        said = str(check_target(half_way, **TARGET | {"cap": cap, "margin": 0.02}))
        assert re.search(rf"it would take about [\d,]+ more episodes to decide, and {left}", said), said


def test_a_forecast_comes_true_about_four_times_in_five() -> None:
    rng, hits = np.random.default_rng(0), []
    for rate in rng.uniform(0.6, 1.0, 300):
        values = (rng.random(3000) < rate).astype(float)
        test = check_target(values[:30], target=0.8).test
        more = more_episodes(values[:30], test.decided_after, low=0.0, high=1.0)
        hits.append(0 < test.decided_after(values) <= 30 + more)
    assert 0.7 < np.mean(hits) < 0.9


def test_a_forecast_repeats_and_grows_where_the_difference_is_small() -> None:
    rng = np.random.default_rng(0)
    old = (rng.random(100) < 0.9).astype(float)

    def more(rate: float) -> float:
        test = check_baseline((rng.random(100) < rate).astype(float), old, **BASELINE).test
        found = [more_episodes(test.values, test.decided_after, low=-1.0, high=1.0) for _ in range(2)]
        assert found[0] == found[1]
        return found[0] or math.inf

    assert more(0.9) < more(0.85)


def test_a_loss_says_what_was_lost_and_where() -> None:
    old = np.ones(200)
    new = np.where(np.arange(200) % 4 == 1, 0.0, 1.0)
    result = check_baseline(new, old, **BASELINE, seeds=200_000 + np.arange(200))
    told = "was 1.000, is 0.750, lost 50, won 0, e.g. seeds 200001, 200005, 200009"
    assert str(result) == f"FAIL (< baseline shown, {result.n} episodes; {told})"
    assert "success_rate - baseline -0.250 [-0.3" in repr(result) and told in repr(result)
    assert (result.beside.lost[:2], result.beside.won) == ((200_001, 200_005), ())
    gain = check_baseline(old, new, **BASELINE)
    assert str(gain) == f"PASS (> baseline - 0.05 shown, {gain.n} episodes)"
    assert len(gain.beside.won) == 50
    undecided = str(check_baseline(new[:8], old[:8], **BASELINE, cap=200))
    assert "lost 2, won 0, e.g. seeds 1, 5; about " in undecided
