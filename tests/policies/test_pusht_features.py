"""What a policy is shown of the keypoints, and actions relative to the agent: right, saved, refused."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lerobot.policies.factory import make_pre_post_processors

from il_bench.data import open_dataset
from il_bench.data.lerobot_folder import read_column
from il_bench.policies import pusht_features
from il_bench.policies.checkpoint import load_policy
from il_bench.pusht.geometry import GOAL_POSE, block_keypoints, into_frame
from il_bench.train import recipes
from il_bench.train.loop import Trainer

from .conftest import edited, refuses

poses = st.tuples(st.floats(0, 512), st.floats(0, 512), st.floats(0, 2 * math.pi))
places = st.tuples(st.floats(0, 512), st.floats(0, 512))
SMALL = {"down_dims": [8, 16], "n_groups": 2, "diffusion_step_embed_dim": 8, "num_inference_steps": 2}


def of(agent: Any, pose: Any) -> torch.Tensor:
    return pusht_features.features(
        torch.tensor(agent, dtype=torch.float64), torch.from_numpy(block_keypoints(pose))
    )


@given(places, poses)
def test_the_pose_is_found_again_in_the_keypoints(agent: Any, pose: Any) -> None:
    place, cos, sin = pusht_features._pose(torch.from_numpy(block_keypoints(pose)))
    assert np.allclose(place, pose[:2], atol=1e-9)
    assert np.allclose([cos.item(), sin.item()], [math.cos(pose[2]), math.sin(pose[2])], atol=1e-12)
    own = pusht_features._into_frame(torch.tensor(agent, dtype=torch.float64) - place, cos, sin)
    assert np.allclose(own, into_frame(agent, pose), atol=1e-9)


@given(places, poses)
def test_features_are_within_one_and_of_the_promised_number(agent: Any, pose: Any) -> None:
    seen = of(agent, pose)
    assert seen.shape == (pusht_features.SIZE,)
    assert seen.abs().max() <= 1.5  # corners of a block at the wall lie outside the arena
    assert seen[18:].abs().max() <= 1


def test_nothing_is_missing_at_the_goal_and_a_push_away_is_seen() -> None:
    at_goal = of([100.0, 100.0], GOAL_POSE)
    x, y, angle = GOAL_POSE
    turned, moved = of([100.0, 100.0], (x, y, angle + 0.01)), of([100.0, 100.0], (x + 2, y, angle))
    missing = slice(22, 22 + 3 + 16)  # angle at three scales, place at four in two frames
    assert at_goal[missing].abs().max() < 1e-6
    assert turned[22] == pytest.approx(-math.tanh(0.01 / 0.03), abs=1e-6)
    assert moved[25:27].tolist() == pytest.approx([-math.tanh(0.5), 0], abs=1e-6)
    own = [-math.tanh(0.5 * math.cos(math.pi / 4)), math.tanh(0.5 * math.sin(math.pi / 4))]
    assert moved[33:35].tolist() == pytest.approx(own, abs=1e-6)


def recipe(**policy: Any) -> recipes.Recipe:
    whole = recipes.load("diffusion", "keypoints", {"steps": 2, "batch_size": 8, "warmup_steps": 1})
    return whole.model_copy(update={"policy": {**whole.policy, **SMALL, **policy}})


@pytest.fixture(scope="module")
def trainer(tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    trainer = Trainer(recipe(), "expert", seed=1, output=tmp_path_factory.mktemp("run"))
    trainer.train_step()
    return trainer


def test_each_action_is_learned_relative_to_its_own_step_and_executed_so(trainer: Trainer) -> None:
    """Where the agent goes as in the demonstration, what was learned gives back each of its actions."""
    dataset = open_dataset("expert")
    places, actions = (read_column(dataset, key) for key in ("observation.state", "action"))
    episodes = read_column(dataset, "episode_index")
    rows = torch.arange(100, 132)
    learned = trainer._batch(rows)["action"]  # (B, horizon, 2), from the step before on
    for row, chunk in zip(rows.tolist(), learned, strict=True):
        for step, action in zip(range(row - 1, row + 7), chunk, strict=True):
            if episodes[step] == episodes[row]:
                observe(trainer, torch.from_numpy(places[step : step + 1]))
                assert torch.allclose(
                    trainer.postprocessor(action[None]), torch.from_numpy(actions[step]), atol=1e-3
                )


def test_training_sees_normalised_actions_and_features(trainer: Trainer) -> None:
    rows = torch.arange(100, 132)
    seen = trainer._batch(rows)
    assert seen["action"].abs().max() <= 1 + 1e-5
    mean, std = (trainer.preprocessor.steps[-1].stats["action"][name] for name in ("mean", "std"))
    assert torch.as_tensor(mean).abs().max() < 5 and torch.as_tensor(std).min() > 1
    assert seen["observation.environment_state"].shape == (32, 2, pusht_features.SIZE)


def observe(trainer: Trainer, agent: torch.Tensor) -> None:
    keypoints = torch.from_numpy(block_keypoints([[256.0, 256.0, 0.0]] * len(agent))).float()
    trainer.preprocessor({"observation.state": agent.float(), "observation.environment_state": keypoints})


def test_what_is_executed_is_relative_to_the_last_observation(trainer: Trainer) -> None:
    stats = trainer.postprocessor.steps[0].stats["action"]
    middle = (torch.as_tensor(stats["min"]) + torch.as_tensor(stats["max"])) / 2
    for place in (100.0, 300.0):
        agent = torch.full((4, 2), place)
        observe(trainer, agent)
        assert torch.allclose(trainer.postprocessor(torch.zeros(4, 2)), agent + middle, atol=1e-4)


@pytest.fixture
def saved(trainer: Trainer, tmp_path: Path) -> Path:
    folder = tmp_path / "pretrained_model"
    trainer.save_pretrained(folder)
    return folder


def test_a_saved_policy_acts_the_same(saved: Path) -> None:
    observations = {
        "observation.state": torch.tensor([[200.0, 300.0]]),
        "observation.environment_state": torch.from_numpy(block_keypoints([[150.0, 350.0, 1.0]])).float(),
    }
    actions = []
    for _ in range(2):
        policy = load_policy(saved)
        policy.reset()
        torch.manual_seed(0)
        actions.append(policy.select_action(observations))
    assert torch.equal(*actions)
    assert (actions[0] - observations["observation.state"]).abs().max() < 250


def test_lerobot_finds_the_steps_without_being_told_of_il_bench(saved: Path) -> None:
    """A step named by its class is imported by LeRobot; one that is registered only when told of us."""
    steps = json.loads((saved / "policy_preprocessor.json").read_text())["steps"]
    ours = [step["class"] for step in steps if "registry_name" not in step]
    assert ours == ["il_bench.policies.pusht_features.PushTFeatures"]
    pre, post = make_pre_post_processors(load_policy(saved).policy.config, pretrained_path=str(saved))
    assert post.steps[1].relative_step is pre.steps[2]


@pytest.fixture
def saved_before(saved: Path) -> Path:
    """A checkpoint whose whole chunks are relative to the agent's last place."""
    with edited(saved / "policy_preprocessor.json") as preprocessor:
        step = next(
            s for s in preprocessor["steps"] if s.get("registry_name") == "relative_actions_processor"
        )
        del step["registry_name"]
        step["class"] = "il_bench.policies.pusht_features.AgentRelativeActions"
        step["config"]["enabled"] = True
    return saved


def test_chunks_relative_to_the_last_place_are_executed_one_action_a_prediction(saved_before: Path) -> None:
    with edited(saved_before / "config.json") as config:
        config["n_action_steps"] = 4
    refuses(r"n_action_steps is 4; .* allow 1", load_policy, saved_before)
    with edited(saved_before / "config.json") as config:
        config["n_action_steps"] = 1
    policy = load_policy(saved_before)
    agent = torch.full((4, 2, 2), 100.0) + torch.tensor([0.0, 50.0])[:, None]
    keypoints = torch.zeros(4, 2, 16)
    batch = {"observation.state": agent, "observation.environment_state": keypoints, "action": agent}
    shown = policy.preprocessor(batch)
    assert torch.allclose(policy.postprocessor(shown["action"]), agent, atol=1e-3)


def test_features_without_their_step_are_refused(saved: Path) -> None:
    config = load_policy(saved).policy.config
    for processor in make_pre_post_processors(config, dataset_stats={}):
        processor.save_pretrained(saved)
    refuses("does not make 89 features", load_policy, saved)
