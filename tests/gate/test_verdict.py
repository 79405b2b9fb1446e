"""When a policy has been looked at for long enough, and what is then said of it."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from il_bench.errors import IlBenchError
from il_bench.gate import Decision, exit_status, stats
from il_bench.gate.baselines import Baselines, Entry, MeasuredBaseline, Target
from il_bench.gate.verdict import PolicyGates
from il_bench.rollout.outcomes import Outcomes
from tests.gate.made import FINGERPRINT, OTHER_SHA, SHA, declared, episodes, measured, spread

BLOCK = 50
ANYTHING = np.random.default_rng(0).random(1000)
EVEN, GOOD = ANYTHING < 0.5, np.ones(1000, bool)


def outcomes(success: np.ndarray) -> Outcomes:
    return episodes(success, reward=ANYTHING[: len(success)])


def gates(
    target: Target | None = None,
    baseline: MeasuredBaseline | None = None,
    sha256: str | None = OTHER_SHA,
    name: str = "act",
    **options: Any,
) -> PolicyGates:
    given_too = {"baselines": declared(target, baseline), "fingerprint": FINGERPRINT, **options}
    given_too["target"] = given_too.pop("asked", None)
    return PolicyGates.of(name, "keypoints", sha256, **given_too)


def looks(policy: PolicyGates, success: np.ndarray) -> tuple[int, str]:
    """Look after every block as a rollout does; how many episodes it took, and what was said at the end."""
    said = ""
    for n in range(BLOCK, policy.most_episodes() + 1, BLOCK):
        enough, said = policy.look(outcomes(success[:n]))
        if enough:
            return n, said
    return policy.most_episodes(), said


# ---- looking


def test_without_a_gate_no_episode_can_say_anything() -> None:
    assert gates().most_episodes() == 0


def test_a_target_alone_ends_when_it_is_decided_or_at_its_cap() -> None:
    # Two gates would share alpha; one has it all: 50 successes in a row pass, and 49 do not.
    assert looks(gates(Target(value=0.85)), GOOD) == (50, "target PASS")
    assert looks(gates(Target(value=0.85)), ~GOOD) == (50, "target BELOW TARGET")
    undecided = np.tile([1, 1, 1, 1, 1, 0], 200)[:1000].astype(bool)
    assert looks(gates(Target(value=0.85, cap=100)), undecided) == (100, "target INCONCLUSIVE")
    # Before that it says how far the evidence has come: its log over that of 1 / risk.
    open_ = gates(Target(value=0.85))
    for so_far, word in ((GOOD[:45], "PASS"), (~GOOD[:2], "FAIL")):
        found = open_.verdict(outcomes(so_far)).against_target
        assert found is not None
        share = found.evidence[word.lower()] / found.evidence[f"{word.lower()}_at"]
        assert 0 < share < 1
        assert open_.look(outcomes(so_far)) == (False, f"target {100 * share:.0f} % towards {word}")


def test_the_same_weights_leave_only_their_target_to_decide() -> None:
    """They are reproduced or not: how many episodes to run is then for the table's rate to say."""
    same = gates(baseline=measured(outcomes(EVEN)), sha256=SHA)
    assert same.most_episodes() == 0
    assert same.look(outcomes(EVEN[:BLOCK])) == (True, "baseline UNCHANGED")


@pytest.mark.parametrize(
    ("target", "sha256", "now", "expected"),
    [
        (0.45, SHA, EVEN, "target PASS, baseline UNCHANGED"),
        (0.9, OTHER_SHA, EVEN & (ANYTHING < 0.42), "target BELOW TARGET, baseline FAIL"),
    ],
)
def test_both_gates_are_waited_for(target: float, sha256: str, now: np.ndarray, expected: str) -> None:
    n, said = looks(gates(Target(value=target), measured(outcomes(EVEN)), sha256), now)
    assert said == expected and n > 50


def test_a_baseline_that_has_no_more_episodes_is_not_waited_for() -> None:
    few = measured(outcomes(EVEN[:100]))
    both = gates(Target(value=0.52, margin=0.02), few)
    assert both.most_episodes() == 1000
    enough, said = both.look(outcomes(~EVEN[:100]))
    assert not enough and said == "target 13 % towards PASS, baseline INCONCLUSIVE"
    decided = gates(Target(value=0.9), few)
    assert looks(decided, ~EVEN) == (100, "target BELOW TARGET, baseline INCONCLUSIVE")


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1), st.floats(0.5, 0.98), st.sampled_from(["success_rate", "mean_max_reward"]))
def test_looking_by_blocks_decides_what_all_episodes_at_once_decide(
    seed: int, rate: float, metric: str
) -> None:
    success = np.random.default_rng(seed).random(1000) < rate
    both = gates(Target(value=0.85, metric=metric), measured(outcomes(EVEN | (ANYTHING < 0.8))))
    n, _ = looks(both, success)
    early, whole = both.verdict(outcomes(success[:n])), both.verdict(outcomes(success))
    assert early.against_target == whole.against_target
    assert early.against_baseline == whole.against_baseline
    undecided = {early.against_target.decision, early.against_baseline.decision} & {Decision.INCONCLUSIVE}
    assert n == 1000 or not undecided


# ---- the gates of a policy


def test_an_asked_for_target_replaces_the_declared_one_and_has_an_alpha_of_its_own() -> None:
    both = Target(value=0.85), measured(outcomes(EVEN))
    assert gates(*both).target.alpha == gates(*both).baseline.alpha == 0.025
    asked = gates(*both, asked=Target(metric="mean_max_reward", value=0.99, required=True))
    assert (asked.target.alpha, asked.baseline.alpha) == (0.05, 0.025)
    (problem,) = replace(asked, baseline=None).verdict(spread(0.5)).problems
    assert problem.startswith("act: required mean_max_reward of 0.99: FAIL (< 0.99 shown, ")


def test_a_baseline_of_another_task_is_refused_before_any_episode_runs() -> None:
    other = {**FINGERPRINT, "max_steps": 200}
    with pytest.raises(IlBenchError, match=r"fingerprint\.max_steps was 300, is 200 now"):
        gates(baseline=measured(outcomes(EVEN)), fingerprint=other)
    replaced = gates(baseline=measured(outcomes(EVEN)), fingerprint=other, replacing=True)
    assert replaced.verdict(outcomes(EVEN)).against_baseline is None


def test_what_replaces_a_baseline_is_compared_with_it_and_fails_if_shown_to_be_worse() -> None:
    was, worse = measured(outcomes(GOOD)), outcomes(ANYTHING < 0.9)
    for sha256 in (OTHER_SHA, SHA):  # the same weights may give other episodes now
        found = gates(baseline=was, sha256=sha256, replacing=True).verdict(worse)
        (problem,) = found.problems
        assert "worse than its measured baseline: FAIL (< baseline shown" in problem
        assert "was 1.000, is 0.904, lost 96, won 0, e.g. seeds 200005, 200009, 200026" in problem
        accepted = gates(baseline=was, sha256=sha256, replacing=True, accepted=True).verdict(worse)
        assert accepted.problems == () and accepted.accepted
        assert accepted.against_baseline == found.against_baseline
    assert gates(baseline=was, sha256=SHA, replacing=True).verdict(
        outcomes(GOOD)
    ).against_baseline.decision == (Decision.UNCHANGED)


def test_episodes_on_other_than_test_seeds_meet_no_declared_gate() -> None:
    both = Target(value=0.8, required=True), measured(spread(0.9))
    found = gates(*both, seeds=range(100_000, 100_200)).verdict(spread(0.0, first=100_000))
    assert (found.decision, found.against_baseline) == (Decision.NOT_GATED, None)
    asked = gates(*both, seeds=range(100_000, 100_200), asked=Target(value=0.7, required=True))
    assert asked.verdict(spread(0.0, first=100_000)).decision is Decision.FAIL


def test_declared_risks_are_divided_over_all_gates() -> None:
    """With one gate, 14 failures are enough against 0.8; with twenty, more are needed."""
    one = declared(Target(value=0.8, required=True))
    others = {f"p{i}": {"keypoints": Entry(target=Target(value=0.8))} for i in range(19)}
    few = spread(0.0, n=14)
    assert gates(baselines=one).verdict(few).decision is Decision.FAIL
    twenty = gates(baselines=Baselines(gates=others | one.gates))
    assert twenty.verdict(few).decision is Decision.INCONCLUSIVE


# ---- verdicts


@pytest.mark.parametrize(
    ("rate", "required", "decision", "n_problems"),
    [
        (0.95, True, Decision.PASS, 0),
        (0.95, False, Decision.PASS, 0),
        (0.40, True, Decision.FAIL, 1),
        (0.40, False, Decision.BELOW_TARGET, 0),
        (0.775, True, Decision.INCONCLUSIVE, 0),
    ],
)
def test_a_declared_target_decides(rate: float, required: bool, decision: Decision, n_problems: int) -> None:
    target = Target(value=0.8, required=required)
    found = gates(target).verdict(spread(rate))
    assert (found.decision, found.target, len(found.problems)) == (decision, target, n_problems)


def test_a_policy_without_gates_is_not_gated() -> None:
    found = gates(Target(value=0.8), measured(spread(0.9)), name="mine").verdict(spread(1.0))
    assert (found.decision, found.against_target, found.against_baseline) == (Decision.NOT_GATED, None, None)


def test_the_same_weights_reproduce_their_episodes_or_fail_and_name_the_seed() -> None:
    was = spread(0.5)
    same = gates(baseline=measured(was), sha256=SHA)
    found = same.verdict(was)
    assert (found.against_baseline.decision, found.decision) == (Decision.UNCHANGED, Decision.NOT_GATED)
    (problem,) = same.verdict(replace(was, n_steps=was.n_steps + (was.seeds == 200_007))).problems
    assert "act: worse than its measured baseline: FAIL" in problem
    assert "seed 200007" in problem


def test_a_worse_checkpoint_fails_on_the_seeds_both_have() -> None:
    found = gates(baseline=measured(spread(0.9, n=200))).verdict(spread(0.2, n=300))
    assert found.against_baseline.decision is Decision.FAIL
    assert found.against_baseline.n <= 200 and len(found.problems) == 1


# ---- intervals


@pytest.mark.parametrize("sequential", [False, True])
def test_intervals_hold_their_estimates_and_repeat(sequential: bool) -> None:
    of = replace(spread(0.5), n_steps=np.arange(200) + 1)
    found = PolicyGates("act").verdict(of, sequential=sequential).estimates
    for estimate, low, high in (found["success_rate"], found["mean_max_reward"]):
        assert 0.0 < low < estimate < high < 1.0
    assert found["success_rate"].estimate == of.success_rate
    steps = found["mean_steps_to_success"]
    assert steps.estimate == of.n_steps[of.success].mean()
    assert 1.0 < steps.low < steps.estimate < steps.high < 300.0
    assert PolicyGates("act").verdict(of, sequential=sequential).estimates == found


def test_each_metric_has_the_interval_of_its_kind() -> None:
    of = spread(0.5)
    fixed, stopped = (PolicyGates("act").verdict(of, sequential=each).estimates for each in (False, True))
    assert fixed["success_rate"][1:] == stats.clopper_pearson(100, 200)
    assert stopped["success_rate"][1:] == stats.confidence_sequence(of.success)
    reward = stats.mean_interval(of.max_reward, 0.95, np.random.default_rng(0))
    assert fixed["mean_max_reward"][1:] == reward
    assert stopped["mean_max_reward"][1:] == stats.confidence_sequence(of.max_reward)
    low, high = stats.confidence_sequence((of.n_steps[of.success] - 1) / 299)
    assert stopped["mean_steps_to_success"][1:] == (1 + 299 * low, 1 + 299 * high)


def test_steps_to_success_are_bounded_by_the_environments_and_absent_without_a_success() -> None:
    long = replace(spread(1.0, n=20), n_steps=np.full(20, 450))
    longer = gates(fingerprint={**FINGERPRINT, "max_steps": 500}).verdict(long).estimates
    estimate, low, high = longer["mean_steps_to_success"]
    assert 1.0 < low < estimate == 450.0 < high < 500.0
    assert list(gates().verdict(spread(0.0)).estimates) == ["success_rate", "mean_max_reward"]


# ---- the exit status of a run


def row(
    target: str | None = None, required: bool = True, baseline: str | None = None, accepted: bool = False
) -> dict:
    return {
        "target": None if target is None else {"decision": target, "required": required},
        "baseline": None if baseline is None else {"decision": baseline, "accepted": accepted},
    }


@pytest.mark.parametrize(
    ("rows", "status"),
    [
        ([], 0),
        ([row("PASS", baseline="UNCHANGED"), row("NOT GATED"), row()], 0),
        ([row("PASS"), row("FAIL")], 1),
        ([row("PASS", baseline="FAIL")], 1),
        ([row("BELOW TARGET", required=False, baseline="PASS")], 0),
        ([row("BELOW TARGET", required=False, baseline="FAIL")], 1),
        ([row("INCONCLUSIVE")], 6),
        ([row("INCONCLUSIVE", required=False)], 0),
        ([row("PASS", baseline="INCONCLUSIVE")], 0),
        ([row("PASS", baseline="FAIL", accepted=True)], 0),
        ([row("FAIL", baseline="FAIL", accepted=True)], 1),
        ([row("INCONCLUSIVE"), row("FAIL")], 1),
    ],
)
def test_exit_status(rows: list[dict], status: int) -> None:
    assert exit_status(rows) == status


def test_exit_status_refuses_words_it_does_not_know() -> None:
    with pytest.raises(IlBenchError, match="decision = 'FAILED'"):
        exit_status([row("FAILED")])
