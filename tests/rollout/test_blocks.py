"""Episodes are gym-pusht's, blocks are whole, and a policy that fails is named."""

import json
import os
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from gym_pusht.envs.pusht import PushTEnv as Reference

from il_bench.errors import IlBenchError
from il_bench.protocol import BLOCK_SIZE
from il_bench.rollout import Outcomes, rollout
from il_bench.rollout import blocks as module
from tests.rollout.conftest import FIRST
from tests.rollout.policies import Batch, Scripted, Wander, load_nothing, towards_block


class ScriptedWorlds:
    """In place of the physics: world i covers 0.96 of the goal after i + 1 steps, before that 0.5."""

    def reset(self, seeds: np.ndarray) -> None:
        self.n_steps = np.zeros(len(seeds), int)
        self.agent, self.pose = np.zeros((len(seeds), 2)), np.zeros((len(seeds), 3))
        self.coverage = np.zeros(len(seeds))

    def step(self, actions: np.ndarray, active: np.ndarray) -> np.ndarray:
        self.n_steps += active
        reached = self.n_steps >= np.arange(len(active)) + 1
        self.coverage = np.where(reached, np.where(np.arange(len(active)) == 7, 0.95, 0.96), 0.5)
        return self.coverage

    def observations(self, camera: object) -> dict[str, np.ndarray]:
        return {"observation.state": np.repeat(self.n_steps[:, None], 2, 1).astype(np.float32)}


def test_outcomes_do_not_depend_on_which_other_seeds_were_asked_for(wandered: Outcomes) -> None:
    some = [FIRST + 60, FIRST + 3, FIRST + 149]
    expected = [record for record in wandered.to_records() if record["seed"] in some]
    assert rollout(Wander, some).to_records() == expected


def test_episodes_are_those_of_gym_pusht() -> None:
    def act(batch: Batch, step: int) -> torch.Tensor:
        return towards_block(batch) + (60 if step % 40 < 20 else -60)

    outcomes = rollout(Scripted(act), [FIRST, FIRST + 49])
    for record in outcomes.to_records():
        env = Reference("environment_state_agent_pos")
        observation, _ = env.reset(seed=record["seed"])
        rewards = []
        for step in range(300):
            keypoints = torch.from_numpy(observation["environment_state"]).float()[None]
            action = act({"observation.environment_state": keypoints}, step)[0].numpy()
            observation, reward, terminated, _, _ = env.step(action)
            rewards.append(reward)
            if terminated:
                break
        assert record["n_steps"] == len(rewards)
        assert record["success"] == terminated
        assert record["max_reward"] == pytest.approx(max(rewards), abs=1e-12)
    assert outcomes.max_reward.max() > 0


def test_an_episode_ends_at_its_first_success(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PushTBatch", ScriptedWorlds)
    seen = []

    def act(batch: Batch, step: int) -> torch.Tensor:
        seen.append(batch["observation.state"][:, 0].tolist())
        return batch["observation.state"]

    outcomes = rollout(Scripted(act), range(BLOCK_SIZE))
    n_steps = [i + 1 for i in range(BLOCK_SIZE)]
    n_steps[7] = 300  # 0.95 is not above 0.95
    assert outcomes.n_steps.tolist() == n_steps
    assert outcomes.success.tolist() == [i != 7 for i in range(BLOCK_SIZE)]
    assert outcomes.max_reward.tolist() == [1.0] * BLOCK_SIZE
    # A finished world leaves the physics, the policy goes on seeing its last observation.
    assert seen[20] == [min(20, n) for n in n_steps]
    # Nobody waits for episodes that were not asked for.
    seen.clear()
    assert rollout(Scripted(act), [5, 3]).n_steps.tolist() == [4, 6]
    assert len(seen) == 6


def test_steps_with_actions_outside_the_arena_are_counted_and_carried_out() -> None:
    positions = []

    def act(batch: Batch, step: int) -> torch.Tensor:
        positions.append(batch["observation.state"][:, 0])
        action = torch.full((BLOCK_SIZE, 2), 512.0)
        action[0, 1] = -1.0
        action[1:3, 0] = 700.0 if step < 5 else 0.0
        return action

    outcomes = rollout(Scripted(act), range(FIRST, FIRST + 4))
    assert outcomes.outside.tolist() == [300, 5, 5, 0]
    assert outcomes.share_outside == 310 / 1200
    assert positions[5][1] > 512


def breaks(batch: Batch, step: int, *, at: int, how: str) -> Any:
    """Do something wrong at one step."""
    action = batch["observation.state"].clone()
    if step != at:
        return action
    if how == "raise":
        raise RuntimeError("out of ideas")
    if how == "parse":  # an error raised by the standard library
        json.loads("no JSON")
    if how == "nan":
        action[12, 1] = torch.nan
    return {
        "nan": action,
        "shape": action[:, None],
        "list": action.tolist(),
        "inf": action / 0,
        "pair": (action, {}),
        "nothing": None,
        "array": action.numpy(),
        "complex": action + 1j,
        "boolean": action > 0,
        "meta": action.to("meta"),
        "sparse": action.to_sparse(),
        "quantized": torch.quantize_per_tensor(action, 4.0, 0, torch.quint8),
    }[how]


EXPECTED = r"expected a tensor of shape \(50, 2\), of real numbers$"


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("raise", r"at seeds 200000-200049, step 3: RuntimeError: out of ideas \(test_blocks.py, line \d+\)"),
        ("parse", r"step 3: JSONDecodeError: .*\(test_blocks.py, line \d+\)"),
        ("nan", r"action \[\d+\.\d+, nan\] at seed 200012, step 3; expected finite"),
        ("inf", r"action \[inf, inf\] at seed 200000, step 3; expected finite"),
        (
            "shape",
            r"a tensor of shape \(50, 1, 2\) \(torch.float32\) at seeds 200000-200049, step 3, " + EXPECTED,
        ),
        ("list", r"policy returned a list of 50 \(list, list, list, \.\.\) at .* step 3, " + EXPECTED),
        ("pair", r"policy returned a tuple of 2 \(Tensor, dict\) at .* step 3, " + EXPECTED),
        ("nothing", r"policy returned None at .* step 3, " + EXPECTED),
        ("array", r"policy returned a ndarray of shape \(50, 2\) \(float32\) at .* step 3, " + EXPECTED),
        ("complex", r"policy returned a tensor of shape \(50, 2\) \(torch.complex64\) at .* " + EXPECTED),
        ("boolean", r"policy returned a tensor of shape \(50, 2\) \(torch.bool\) at .* " + EXPECTED),
        ("meta", r"a tensor of shape \(50, 2\) \(torch.float32, without values \(meta\)\) at .* " + EXPECTED),
        ("quantized", r"policy returned a tensor of shape \(50, 2\) \(torch.quint8\) at .* " + EXPECTED),
        ("sparse", r"a tensor of shape \(50, 2\) \(torch.float32, torch.sparse_coo\) at .* " + EXPECTED),
    ],
)
def test_a_policy_that_fails_is_named_with_seed_step_and_value(how: str, message: str) -> None:
    with pytest.raises(IlBenchError, match=message):
        rollout(Scripted(partial(breaks, at=3, how=how)), [FIRST + 12])


@pytest.mark.parametrize("kind", ["gradient", torch.float64, torch.bfloat16, torch.int64])
def test_actions_may_carry_a_gradient_and_be_of_any_real_type(kind: Any) -> None:
    weights = torch.nn.Parameter(torch.full((BLOCK_SIZE, 2), 256.0))

    def act(batch: Batch, step: int) -> torch.Tensor:
        with torch.inference_mode(False), torch.enable_grad():
            return weights * 1 if kind == "gradient" else weights.detach().to(kind)

    found = rollout(Scripted(act), [FIRST]).to_records()
    assert (
        found
        == rollout(Scripted(lambda batch, step: torch.full((BLOCK_SIZE, 2), 256.0)), [FIRST]).to_records()
    )


def test_a_policy_whose_reset_fails_is_named() -> None:
    class Broken(Wander):
        def reset(self) -> None:
            raise KeyError("codebook")

    with pytest.raises(IlBenchError, match=r"reset\(\), seeds 200000-200049: KeyError: 'codebook' \(test_b"):
        rollout(Broken(), [FIRST])


def vanish(batch: Batch, step: int) -> torch.Tensor:
    os._exit(9)


def test_a_policy_that_cannot_be_loaded_in_a_worker_is_one_error() -> None:
    with pytest.raises(IlBenchError, match=r"^checkpoint runs/mine has no model\.safetensors$"):
        rollout(load_nothing, range(FIRST, FIRST + 100), workers=2)


def test_a_block_that_kills_its_workers_is_named_by_its_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("il_bench.rollout.executors.processes.MAX_DEATHS", 1)
    with pytest.raises(IlBenchError, match=r"^seeds 2000(00-200049|50-200099): 1 worker .*exit code 9"):
        rollout(partial(Scripted, vanish), range(FIRST, FIRST + 100), workers=2)


@pytest.mark.parametrize(
    ("policy", "seeds", "workers", "message"),
    [
        (Wander(), [0], 2, "workers=2 needs a picklable callable .*Wander"),
        (Wander(), [0], 0, "workers must be at least 1, got 0"),
        ("bc", [0], 1, "expected a policy .*got 'bc'"),
        (Wander(), [], 1, "non-empty list of integers"),
        (Wander(), [-1], 1, "integers >= 0"),
        (Wander(), [0.5], 1, "integers >= 0"),
        (Wander(), [[1, 2]], 1, "non-empty list of integers"),
        (Wander(), [4, 8, 4], 1, "seed 4 occurs more than once"),
    ],
)
def test_bad_arguments_are_refused(policy: Any, seeds: Any, workers: int, message: str) -> None:
    with pytest.raises(IlBenchError, match=message):
        rollout(policy, seeds, workers=workers)
