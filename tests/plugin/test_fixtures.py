import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from il_bench.errors import IlBenchError
from il_bench.gate import Decision, GateResult
from il_bench.machine import AS_SAVED, Numerics
from il_bench.plugin import evaluation, fixtures
from il_bench.plugin.evaluation import Evaluate
from il_bench.plugin.fixtures import SETTINGS
from il_bench.plugin.registry import Registry
from il_bench.policies.checkpoint import load_policy
from il_bench.protocol import HUMAN_DATA
from il_bench.pusht.env import PushTEnv
from il_bench.rollout import Outcomes, blocks
from il_bench.rollout.executors import EXECUTORS, InlineExecutor

Batch = dict[str, torch.Tensor]
Gate = Callable[..., GateResult]


@pytest.fixture(autouse=True)
def short_episodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "MAX_STEPS", 3)


@pytest.fixture
def in_process(pytestconfig: pytest.Config) -> Evaluate:
    """`evaluate` without worker processes, which would know nothing of short episodes."""
    return Evaluate(replace(pytestconfig.stash[SETTINGS], workers=1))


class Still:
    """Stays where it is."""

    def reset(self) -> None:
        pass

    def select_action(self, batch: Batch) -> torch.Tensor:
        return batch["observation.state"]


def outcomes(n_successes: int, n: int) -> Outcomes:
    success = np.arange(n) < n_successes
    ones = np.ones(n, int)
    return Outcomes(200_000 + np.arange(n), success, success.astype(float), ones, 0 * ones)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What a rollout is asked for, in the place of one."""
    found: dict[str, Any] = {}

    def instead(source: Any, seeds: np.ndarray, **options: Any) -> Outcomes:
        found.update(options, source=source, seeds=seeds.tolist())
        return outcomes(0, 1)

    monkeypatch.setattr(evaluation, "rollout", instead)
    return found


def test_evaluate_runs_the_first_test_seeds_or_those_it_is_given(evaluate: Evaluate) -> None:
    found = evaluate(Still(), n=60)
    assert found.seeds.tolist() == list(range(200_000, 200_060))
    assert found.success_rate == 0.0
    assert evaluate(Still(), seeds=[7, 3]).seeds.tolist() == [3, 7]


def test_evaluate_runs_a_fixed_number_without_option_too(evaluate: Evaluate, asked: dict[str, Any]) -> None:
    evaluate(Still())
    assert asked["seeds"] == list(range(200_000, 200_200))


def test_evaluate_takes_a_folder_a_loaded_policy_and_any_object(
    in_process: Evaluate, checkpoint: Path
) -> None:
    loaded = load_policy(checkpoint)
    by_hand = SimpleNamespace(reset=loaded.reset, select_action=loaded.select_action)
    first, *others = (in_process(policy, seeds=range(3)) for policy in (checkpoint, str(checkpoint), by_hand))
    assert all(other.to_records() == first.to_records() for other in others)


def test_evaluate_sends_workers_the_weights_as_they_are_now(
    pytestconfig: pytest.Config, checkpoint: Path, asked: dict[str, Any]
) -> None:
    """Also after a test changed them: what a folder holds would be another policy."""
    loaded = load_policy(checkpoint)
    with torch.no_grad():
        next(loaded.policy.parameters()).add_(1.0)
    Evaluate(replace(pytestconfig.stash[SETTINGS], workers=2))(loaded)
    assert asked["workers"] == 2
    copied = asked["source"]()
    assert copied is not loaded
    changed, same = (dict(each.policy.named_parameters()) for each in (loaded, copied))
    assert all(torch.equal(value, same[name]) for name, value in changed.items())


def test_numerics_reach_the_policies_of_rollouts_and_nobody_elses(
    pytestconfig: pytest.Config, checkpoint: Path, asked: dict[str, Any]
) -> None:
    settings = replace(pytestconfig.stash[SETTINGS], workers=2, autocast="bfloat16")
    loaded = load_policy(checkpoint)
    for policy in (checkpoint, loaded):
        Evaluate(settings)(policy)
        assert asked["source"]().numerics == settings.numerics == Numerics("bfloat16")
    assert loaded.numerics == AS_SAVED


class Late(InlineExecutor):
    """Somebody's executor: it waits before it runs the tasks."""

    waited = 0

    def run(self, *arguments: Any, **options: Any) -> Any:
        Late.waited += 1
        return super().run(*arguments, **options)


def test_an_executor_that_is_added_runs_the_episodes_where_it_is_asked_for(
    pytestconfig: pytest.Config, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(EXECUTORS, "late", lambda workers, timeout: Late())
    settings = replace(pytestconfig.stash[SETTINGS], workers=1)
    late, usual = (
        Evaluate(replace(settings, executor=name))(checkpoint, seeds=range(3)) for name in ("late", None)
    )
    assert Late.waited == 1 and late.to_records() == usual.to_records()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"n": 0}, "n: 0 is not a number of episodes"),
        ({"n": 100_001}, "n: 100001 is not a number of episodes; use 1 to 100000"),
        ({"n": 3, "seeds": [1]}, "n=3 and seeds together"),
        ({"seeds": [1, 1_000_000]}, "seed 1000000 is reserved for a third evaluation"),
        ({"seeds": [1.5]}, "seeds must be"),
        ({"seeds": []}, "seeds must be"),
        ({"seeds": [4, 4]}, "seed 4 occurs more than once"),
    ],
)
def test_evaluate_refuses_bad_seeds(evaluate: Evaluate, arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(IlBenchError, match=said):
        evaluate(Still(), **arguments)


def test_evaluate_refuses_what_is_no_policy(evaluate: Evaluate) -> None:
    with pytest.raises(IlBenchError, match="42 is not a policy; give a name, a path"):
        evaluate(42)  # type: ignore[arg-type]
    with pytest.raises(IlBenchError, match="no/such/policy"):
        evaluate("no/such/policy")


@pytest.mark.parametrize(
    ("successes", "n", "asked_for", "decision"),
    [
        (200, 200, {"target": 0.8}, Decision.PASS),
        (0, 200, {"target": 0.8}, Decision.FAIL),
        (3, 3, {"target": 0.8}, Decision.INCONCLUSIVE),
        (60, 60, {"target": 0.9, "margin": 0.2}, Decision.PASS),
        (60, 60, {"target": 0.9, "margin": 0.01}, Decision.INCONCLUSIVE),
        (200, 200, {}, Decision.NOT_GATED),
    ],
)
def test_gate_passes_only_what_is_shown(
    gate: Gate, successes: int, n: int, asked_for: dict[str, float], decision: Decision
) -> None:
    result = gate(outcomes(successes, n), **asked_for)
    assert result.decision is decision
    assert result.passed is (decision is Decision.PASS)


def test_a_failed_assertion_says_the_rate_and_what_was_shown(gate: Gate) -> None:
    with pytest.raises(AssertionError) as raised:
        assert gate(outcomes(20, 200), target=0.8).passed
    said = str(raised.value)
    assert "success_rate 0.100 [0." in said and "< 0.80 shown" in said
    assert "<Outcomes: 200 episodes, success_rate 0.100>" in said, "not every column of them"


def test_what_a_gate_says_is_in_test_reports(gate: Gate, request: pytest.FixtureRequest) -> None:
    """As properties of the test that asks, for --junit-xml and plugins; of every gate in it."""
    gate(outcomes(45, 50), target=0.7)
    gate(outcomes(3, 10))
    found = dict(request.node.user_properties)
    assert found["il_bench.decision"] == "PASS" and found["il_bench.told"] == "> 0.65 shown"
    assert (found["il_bench.target.value"], found["il_bench.target.margin"]) == ("0.7", "0.05")
    assert (found["il_bench.success_rate"], found["il_bench.n_episodes"]) == ("0.9", "50")
    assert 0.7 < float(found["il_bench.success_rate.low"]) < 0.9 < float(found["il_bench.success_rate.high"])
    assert found["il_bench.seeds"] == "200000-200049"
    assert found["il_bench.2.decision"] == "NOT GATED" and "il_bench.2.target.value" not in found
    request.node.user_properties.clear()


def test_gate_takes_episodes_in_seed_order(gate: Gate) -> None:
    """The successes come first in seed order, and the test ends on them, however the columns are ordered."""
    mixed = outcomes(100, 200)
    back = Outcomes(
        *(getattr(mixed, name)[::-1] for name in ("seeds", "success", "max_reward", "n_steps", "outside"))
    )
    assert gate(back, target=0.6) == gate(mixed, target=0.6)
    assert gate(back, target=0.6).passed


def test_what_loading_a_policy_changes_holds_while_its_tests_run_only() -> None:
    def first(device: str) -> Still:
        os.environ["OF_FIRST"] = "1"
        return Still()

    registry = Registry()
    registry.policy("first", first)
    config: Any = SimpleNamespace(stash=pytest.Stash())
    config.stash[fixtures.REGISTRY], config.stash[SETTINGS] = registry, SimpleNamespace(device="cpu")
    with pytest.warns(
        UserWarning, match=r"^policy first, while it was loaded, changed the environment .* OF_FIRST;"
    ):
        loaded = fixtures._policy(SimpleNamespace(param=registry.choices(Path())["first"], config=config))
    for used, expected in ((loaded, "1"), ("another", None)):
        call = fixtures.pytest_runtest_call(SimpleNamespace(config=config, funcargs={"policy": used}))
        next(call)
        assert os.environ.get("OF_FIRST") == expected
        with pytest.raises(StopIteration):
            next(call)
    assert "OF_FIRST" not in os.environ


def test_pusht_env_gives_what_keypoint_policies_see(pusht_env: PushTEnv) -> None:
    observation, _ = pusht_env.reset(seed=0)
    assert {key: value.shape for key, value in observation.items()} == {
        "agent_pos": (2,),
        "environment_state": (16,),
    }


@pytest.mark.skipif(HUMAN_DATA not in os.environ, reason=f"{HUMAN_DATA} names no human data")
def test_pusht_dataset_opens_the_demonstrations(pusht_dataset: Any) -> None:
    assert (pusht_dataset.num_episodes, pusht_dataset.num_frames) == (206, 25650)
