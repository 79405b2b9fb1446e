"""When a policy has been looked at for long enough, and that looking by blocks changes no decision."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from il_bench.errors import IlBenchError
from il_bench.gate import Decision
from il_bench.gate.baselines import Baselines, Entry, Measured, Target
from il_bench.gate.verdict import PolicyGates
from il_bench.rollout.outcomes import Outcomes

OLD, NEW = "a" * 64, "b" * 64
FIRST, BLOCK = 200_000, 50
FINGERPRINT: dict[str, Any] = {
    "task": "PushT",
    "simulator": "s",
    "max_steps": 300,
    "success_coverage": 0.95,
    "block_size": BLOCK,
}
ANYTHING = np.random.default_rng(0).random(1000)


def outcomes(success: np.ndarray, first: int = FIRST) -> Outcomes:
    steps = np.full(len(success), 100)
    reward = np.where(success, 1.0, ANYTHING[: len(success)])
    return Outcomes(first + np.arange(len(success)), success, reward, steps, 0 * steps)


def measured(success: np.ndarray, first: int = FIRST, **fields: Any) -> Measured:
    found = outcomes(success, first)
    return Measured.from_outcomes(found, data="human", sha256=OLD, fingerprint=FINGERPRINT, **fields)


def gates(
    declared: Target | None = None, baseline: Measured | None = None, sha256: str = NEW, **options: Any
) -> PolicyGates:
    found = Baselines(gates={"act": {"keypoints": Entry(target=declared, baseline=baseline)}})
    given_too = {"fingerprint": FINGERPRINT, **options}
    return PolicyGates.of("act", "keypoints", sha256, baselines=found, **given_too)


def looks(policy: PolicyGates, success: np.ndarray) -> tuple[int, str]:
    """Look after every block as a rollout does; how many episodes it took, and what was said at the end."""
    said = ""
    for n in range(BLOCK, policy.most_episodes() + 1, BLOCK):
        enough, said = policy.look(outcomes(success[:n]))
        if enough:
            return n, said
    return policy.most_episodes(), said


EVEN = ANYTHING < 0.5
GOOD = np.ones(1000, bool)


def test_without_a_gate_no_episode_can_say_anything() -> None:
    assert gates().most_episodes() == 0
    assert gates(baseline=measured(EVEN), compare=False).most_episodes() == 0


def test_a_target_alone_ends_when_it_is_decided_or_at_its_cap() -> None:
    # Two gates would share alpha; one has it all: 50 successes in a row pass, and 49 do not.
    assert looks(gates(Target(value=0.85)), GOOD) == (50, "target PASS")
    assert looks(gates(Target(value=0.85)), ~GOOD) == (50, "target BELOW TARGET")
    undecided = np.tile([1, 1, 1, 1, 1, 0], 200)[:1000].astype(bool)
    assert looks(gates(Target(value=0.85, cap=120)), undecided) == (120, "target INCONCLUSIVE")


def test_the_same_weights_alone_leave_nothing_to_decide() -> None:
    """They are reproduced or not: how many episodes to run is then for the table's rate to say."""
    same = gates(baseline=measured(EVEN), sha256=OLD)
    assert same.most_episodes() == 0
    assert same.look(outcomes(EVEN[:BLOCK])) == (True, "baseline UNCHANGED")


def test_the_same_weights_have_to_meet_their_target_all_the_same() -> None:
    n, said = looks(gates(Target(value=0.45), measured(EVEN), sha256=OLD), EVEN)
    assert said == "target PASS, baseline UNCHANGED"
    assert n > 50


def test_both_gates_are_waited_for() -> None:
    worse = EVEN & (ANYTHING < 0.42)
    quick = Target(value=0.9)
    n, said = looks(gates(quick, measured(EVEN)), worse)
    assert said == "target BELOW TARGET, baseline FAIL"
    assert n > 50


def test_a_baseline_that_has_no_more_episodes_is_not_waited_for() -> None:
    slow, few = Target(value=0.52, margin=0.02), measured(EVEN[:100])
    both = gates(slow, few)
    assert both.most_episodes() == 1000
    enough, said = both.look(outcomes(~EVEN[:100]))
    assert (enough, said) == (False, "target INCONCLUSIVE, baseline INCONCLUSIVE")
    decided = gates(Target(value=0.9), few)
    assert looks(decided, ~EVEN) == (100, "target BELOW TARGET, baseline INCONCLUSIVE")


def test_an_asked_for_target_has_an_alpha_of_its_own() -> None:
    declared = gates(Target(value=0.85), measured(EVEN))
    asked = gates(Target(value=0.85), measured(EVEN), target=Target(value=0.8))
    assert (declared.target_alpha, declared.baseline_alpha) == (0.025, 0.025)
    assert asked.target is not None
    assert (asked.target.value, asked.target_alpha, asked.baseline_alpha) == (0.8, 0.05, 0.025)


def test_a_baseline_of_another_task_is_refused_before_any_episode_runs() -> None:
    with pytest.raises(IlBenchError, match=r"fingerprint\.max_steps was 300 when measured and is 200"):
        gates(baseline=measured(EVEN), fingerprint={**FINGERPRINT, "max_steps": 200})


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1), st.floats(0.5, 0.98), st.sampled_from(["success_rate", "mean_max_reward"]))
def test_looking_by_blocks_decides_what_all_episodes_at_once_decide(
    seed: int, rate: float, metric: str
) -> None:
    success = np.random.default_rng(seed).random(1000) < rate
    both = gates(Target(value=0.85, metric=metric), measured(EVEN | (ANYTHING < 0.8)))
    n, _ = looks(both, success)
    early, whole = both.check(outcomes(success[:n])), both.check(outcomes(success))
    assert early == whole
    assert n == 1000 or all(result.decision is not Decision.INCONCLUSIVE for result in early)
