import os
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from gym_pusht.envs.pusht import PushTEnv as Reference

from il_bench import rollout as module
from il_bench.errors import IlBenchError
from il_bench.rollout import BLOCK_SIZE, Outcomes, Policy, rollout

FIRST = 200000
Batch = dict[str, torch.Tensor]


def towards_block(batch: Batch) -> torch.Tensor:
    return batch["observation.environment_state"].reshape(-1, 8, 2).mean(dim=1)


class Wander:
    """Drives through the block with noise from torch's generator, a whole batch of it at a time."""

    def reset(self) -> None:
        self.drift = torch.randn(BLOCK_SIZE, 2)

    def select_action(self, batch: Batch) -> torch.Tensor:
        self.drift = 0.9 * self.drift + 30 * torch.randn(len(self.drift), 2)
        return towards_block(batch) + self.drift


class Scripted:
    """Calls a function of (batch, step); kept at the top level so that worker processes can load it."""

    def __init__(self, act: Callable[[Batch, int], Any]) -> None:
        self.act = act

    def reset(self) -> None:
        self.step = -1

    def select_action(self, batch: Batch) -> torch.Tensor:
        self.step += 1
        return self.act(batch, self.step)


class ScriptedWorlds:
    """In place of the physics: world i covers 0.96 of the goal after i + 1 steps, before that 0.5."""

    def reset(self, seeds: np.ndarray) -> None:
        self.n_steps = np.zeros(len(seeds), int)

    def step(self, actions: np.ndarray, active: np.ndarray) -> np.ndarray:
        self.n_steps += active
        reached = self.n_steps >= np.arange(len(active)) + 1
        return np.where(reached, np.where(np.arange(len(active)) == 7, 0.95, 0.96), 0.5)

    def observations(self) -> dict[str, np.ndarray]:
        n = len(self.n_steps)
        return {"observation.state": np.repeat(self.n_steps[:, None], 2, 1).astype(np.float32)[:n]}


def stay(batch: Batch, step: int) -> torch.Tensor:
    return batch["observation.state"]


@pytest.fixture(scope="module")
def wandered() -> Outcomes:
    return rollout(Wander(), range(FIRST, FIRST + 3 * BLOCK_SIZE))


def test_outcomes_do_not_depend_on_workers_or_on_the_order_of_seeds(wandered: Outcomes) -> None:
    shuffled = np.random.default_rng(0).permutation(wandered.seeds)
    seen = []
    again = rollout(Wander, shuffled, workers=2, on_block=lambda *done: seen.append(done))
    assert again.to_records() == wandered.to_records()
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert len(set(wandered.max_reward.tolist())) > 10  # not all episodes are alike


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
            batch = {"observation.environment_state": torch.from_numpy(observation["environment_state"])}
            batch = {key: value.float()[None] for key, value in batch.items()}
            observation, reward, terminated, _, _ = env.step(act(batch, step)[0].numpy())
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
    assert positions[5][1] > 512


def test_torchs_generator_and_threads_are_given_back() -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    during = []

    def act(batch: Batch, step: int) -> torch.Tensor:
        during.append(torch.get_num_threads())
        return batch["observation.state"] + torch.randn(BLOCK_SIZE, 2)

    try:
        torch.manual_seed(1)
        expected = torch.randn(3)
        torch.manual_seed(1)
        rollout(Scripted(act), [FIRST])
        assert torch.equal(torch.randn(3), expected)
        assert torch.get_num_threads() == 2
        assert set(during) == {1}
    finally:
        torch.set_num_threads(threads)


def breaks(batch: Batch, step: int, *, at: int, how: str) -> Any:
    """Do something wrong at one step."""
    action = batch["observation.state"].clone()
    if step != at:
        return action
    if how == "raise":
        raise RuntimeError("out of ideas")
    if how == "nan":
        action[12, 1] = torch.nan
    return {"nan": action, "shape": action[:, None], "list": action.tolist(), "inf": action / 0}[how]


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("raise", "policy failed at seeds 200000-200049, step 3: RuntimeError: out of ideas"),
        ("nan", r"action \[\d+\.\d+, nan\] at seed 200012, step 3; expected finite"),
        ("inf", r"action \[inf, inf\] at seed 200000, step 3; expected finite"),
        ("shape", r"shape \(50, 1, 2\) at seeds 200000-200049, step 3, expected \(50, 2\)"),
        ("list", r"policy returned \[\[.* step 3, expected a tensor of shape \(50, 2\)"),
    ],
)
def test_a_policy_that_fails_is_named_with_seed_step_and_value(how: str, message: str) -> None:
    with pytest.raises(IlBenchError, match=message):
        rollout(Scripted(partial(breaks, at=3, how=how)), [FIRST + 12])


def test_a_policy_whose_reset_fails_is_named() -> None:
    class Broken(Wander):
        def reset(self) -> None:
            raise KeyError("codebook")

    with pytest.raises(IlBenchError, match=r"reset\(\), seeds 200000-200049: KeyError: 'codebook'"):
        rollout(Broken(), [FIRST])


def vanish(batch: Batch, step: int) -> torch.Tensor:
    os._exit(9)


def load_vanishing() -> Policy:
    return Scripted(vanish)


def load_nothing() -> Policy:
    raise IlBenchError("checkpoint runs/mine has no model.safetensors")


@pytest.mark.parametrize(
    ("loader", "message"),
    [
        (load_vanishing, "one of 2 worker processes died .*workers=1"),
        (load_nothing, "runs/mine has no model.safetensors"),
    ],
)
def test_failures_in_worker_processes_arrive_as_one_error(loader: Any, message: str) -> None:
    with pytest.raises(IlBenchError, match=message):
        rollout(loader, range(FIRST, FIRST + 100), workers=2)


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
        (Wander(), [4, 8, 4], 1, "seed 4 is there more than once"),
    ],
)
def test_bad_arguments_are_refused(policy: Any, seeds: Any, workers: int, message: str) -> None:
    with pytest.raises(IlBenchError, match=message):
        rollout(policy, seeds, workers=workers)


def outcomes_of(seeds: list[int], seconds: float = 1.0) -> Outcomes:
    n = len(seeds)
    rewards = np.linspace(0.25, 1.0, n) if n else np.zeros(0)
    return Outcomes(np.array(seeds), rewards >= 1, rewards, np.arange(n) + 1, np.arange(n) * 2, seconds)


def test_outcomes_sum_up_and_join_in_seed_order() -> None:
    joined = Outcomes.concatenate([outcomes_of([7, 5]), outcomes_of([6, 1], 2.0)])
    assert joined.seeds.tolist() == [1, 5, 6, 7]
    assert joined.max_reward.tolist() == [1.0, 1.0, 0.25, 0.25]
    assert joined.success.tolist() == [True, True, False, False]
    assert (joined.n, len(joined), joined.seconds) == (4, 4, 3.0)
    assert (joined.success_rate, joined.mean_max_reward) == (0.5, 0.625)
    assert Outcomes.concatenate([]).n == 0
    assert np.isnan(Outcomes.concatenate([]).success_rate)


def test_outcomes_survive_as_records() -> None:
    outcomes = outcomes_of([3, 4, 9])
    records = outcomes.to_records()
    assert records[1] == {"seed": 4, "success": False, "max_reward": 0.625, "n_steps": 2, "outside": 2}
    again = Outcomes.from_records(records, seconds=2.5)
    assert again.to_records() == records
    assert (again.seconds, again.success.dtype, again.seeds.dtype) == (2.5, np.bool_, np.int64)
    del records[2]["n_steps"]
    with pytest.raises(IlBenchError, match="record 2 has no field 'n_steps'"):
        Outcomes.from_records(records)


def test_outcomes_of_unequal_length_are_refused() -> None:
    with pytest.raises(IlBenchError, match=r"success must have shape \(2,\) as seeds, got \(1,\)"):
        Outcomes(np.arange(2), np.ones(1), np.ones(2), np.ones(2), np.ones(2))
