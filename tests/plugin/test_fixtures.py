import os
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from il_bench.errors import IlBenchError
from il_bench.gate import Decision
from il_bench.plugin import evaluation
from il_bench.plugin.evaluation import Evaluate
from il_bench.plugin.fixtures import SETTINGS, Gate
from il_bench.policies.checkpoint import load_policy
from il_bench.protocol import BLOCK_SIZE, HUMAN_DATA
from il_bench.pusht.env import PushTEnv
from il_bench.rollout import Outcomes, blocks, progress

Batch = dict[str, torch.Tensor]


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


def test_evaluate_runs_the_first_test_seeds_by_default(evaluate: Evaluate) -> None:
    found = evaluate(Still(), n=60)
    assert found.seeds.tolist() == list(range(200_000, 200_060))
    assert found.success_rate == 0.0


def test_evaluate_runs_a_fixed_number_without_option_too(
    evaluate: Evaluate, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def instead(policy: Any, seeds: np.ndarray, **_: Any) -> Outcomes:
        asked.extend(seeds.tolist())
        return outcomes(0, 1)

    monkeypatch.setattr(evaluation, "rollout", instead)
    evaluate(Still())
    assert asked == list(range(200_000, 200_200))


def test_evaluate_runs_the_seeds_it_is_given(evaluate: Evaluate) -> None:
    assert evaluate(Still(), seeds=[7, 3]).seeds.tolist() == [3, 7]


def test_evaluate_takes_a_folder_a_loaded_policy_and_any_object(
    in_process: Evaluate, checkpoint: Path
) -> None:
    loaded = load_policy(checkpoint)
    by_path, by_name, by_hand = (
        in_process(policy, seeds=range(3)) for policy in (checkpoint, str(checkpoint), ByHand(loaded))
    )
    assert by_path.to_records() == by_name.to_records() == by_hand.to_records()


class ByHand:
    def __init__(self, policy: Any) -> None:
        self.reset, self.select_action = policy.reset, policy.select_action


def test_evaluate_sends_workers_the_weights_as_they_are_now(
    pytestconfig: pytest.Config, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also after a test changed them: what a folder holds would be another policy."""
    loaded = load_policy(checkpoint)
    with torch.no_grad():
        next(loaded.policy.parameters()).add_(1.0)
    sent = {}

    def instead(loader: Any, seeds: Any, *, workers: int, **_: Any) -> Outcomes:
        sent.update(loader=loader, workers=workers)
        return outcomes(0, 1)

    monkeypatch.setattr(evaluation, "rollout", instead)
    Evaluate(replace(pytestconfig.stash[SETTINGS], workers=2))(loaded)
    assert sent["workers"] == 2
    copied = sent["loader"]()
    assert copied is not loaded
    changed, same = (dict(each.policy.named_parameters()) for each in (loaded, copied))
    assert all(torch.equal(value, same[name]) for name, value in changed.items())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"n": 0}, "n: 0 is not a number of episodes"),
        ({"n": 1001}, "n: 1001 is not a number of episodes; use 1 to 1000"),
        ({"n": 3, "seeds": [1]}, "n=3 and seeds together"),
        ({"seeds": [1, 1_000_000]}, "seed 1000000 is kept for a third evaluation"),
        ({"seeds": [1.5]}, "seeds must be"),
        ({"seeds": []}, "seeds must be"),
        ({"seeds": [4, 4]}, "seed 4 is there more than once"),
    ],
)
def test_evaluate_refuses_bad_seeds(evaluate: Evaluate, arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(IlBenchError, match=said):
        evaluate(Still(), **arguments)


def test_evaluate_refuses_what_is_no_policy(evaluate: Evaluate) -> None:
    with pytest.raises(IlBenchError, match="42 is no policy; give a name, a path"):
        evaluate(42)  # type: ignore[arg-type]
    with pytest.raises(IlBenchError, match="no/such/policy"):
        evaluate("no/such/policy")


def test_gate_passes_only_what_is_shown(gate: Gate) -> None:
    assert gate(outcomes(200, 200), target=0.8).passed
    assert gate(outcomes(0, 200), target=0.8).decision is Decision.FAIL
    few = gate(outcomes(3, 3), target=0.8)
    assert few.decision is Decision.INCONCLUSIVE
    assert not few.passed


def test_gate_without_a_target_is_not_gated(gate: Gate) -> None:
    result = gate(outcomes(200, 200))
    assert result.decision is Decision.NOT_GATED
    assert not result.passed


def test_gate_takes_episodes_in_seed_order(gate: Gate) -> None:
    """The successes come first in seed order, and the test ends on them, however the columns are ordered."""
    mixed = outcomes(100, 200)
    back = Outcomes(
        *(getattr(mixed, name)[::-1] for name in ("seeds", "success", "max_reward", "n_steps", "outside"))
    )
    assert gate(back, target=0.6) == gate(mixed, target=0.6)
    assert gate(back, target=0.6).passed


def test_gate_honours_the_margin(gate: Gate) -> None:
    good = outcomes(60, 60)
    assert gate(good, target=0.9, margin=0.2).passed
    assert not gate(good, target=0.9, margin=0.01).passed


def test_pusht_env_gives_what_keypoint_policies_see(pusht_env: PushTEnv) -> None:
    observation, _ = pusht_env.reset(seed=0)
    assert {key: value.shape for key, value in observation.items()} == {
        "agent_pos": (2,),
        "environment_state": (16,),
    }


@pytest.mark.skipif(HUMAN_DATA not in os.environ, reason=f"{HUMAN_DATA} names no human data")
def test_pusht_dataset_opens_the_demonstrations(pusht_dataset: Any) -> None:
    assert (pusht_dataset.num_episodes, pusht_dataset.num_frames) == (206, 25650)


def test_progress_lines_say_how_many_episodes_are_done() -> None:
    lines: list[str] = []
    with progress.log("act", 2 * BLOCK_SIZE, lines.append, nullcontext) as on_block:
        on_block(1, 2)
        on_block(2, 2)
    assert [line.rsplit(",", 1)[0] for line in lines] == ["act: 100 of 100 episodes"]


def test_progress_of_a_sequential_test_says_what_it_says_so_far_and_ends_when_it_ends() -> None:
    lines: list[str] = []
    with progress.log("act", 20 * BLOCK_SIZE, lines.append, nullcontext) as on_block:
        on_block(1, 20, "target INCONCLUSIVE")
        on_block(2, 20, "target PASS")
    (line,) = lines
    assert line.startswith("act: 100 of at most 1000 episodes, target PASS, ")


def test_a_progress_bar_gives_the_cursor_back_when_a_rollout_fails(tmp_path: Path) -> None:
    with (tmp_path / "terminal").open("w+") as terminal:
        with pytest.raises(RuntimeError), progress.bar("act", 100, terminal, nullcontext) as on_block:
            on_block(1, 2, "target PASS")
            raise RuntimeError
        terminal.seek(0)
        shown = terminal.read()
    assert "50/100" in shown and "target PASS" in shown
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")
