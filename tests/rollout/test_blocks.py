import json
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gym_pusht.envs.pusht import PushTEnv as Reference

from il_bench.errors import IlBenchError
from il_bench.protocol import BLOCK_SIZE
from il_bench.rollout import Outcomes, Policy, executors, rollout
from il_bench.rollout import blocks as module
from il_bench.rollout.journal import Conditions, Journal, opened

FIRST = 200000
SEEDS = range(FIRST, FIRST + 4 * BLOCK_SIZE)
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

    def observations(self, camera: object) -> dict[str, np.ndarray]:
        n = len(self.n_steps)
        return {"observation.state": np.repeat(self.n_steps[:, None], 2, 1).astype(np.float32)[:n]}


def stay(batch: Batch, step: int) -> torch.Tensor:
    return batch["observation.state"]


@pytest.fixture(scope="module")
def wandered() -> Outcomes:
    return rollout(Wander(), range(FIRST, FIRST + 3 * BLOCK_SIZE))


def kill_a_worker(done: int, total: int) -> None:
    """As the kernel does when memory runs out; called when the first block is done and others are not."""
    if done == 1:
        busy = multiprocessing.active_children()[0].pid
        assert busy is not None
        os.kill(busy, signal.SIGKILL)


def test_outcomes_do_not_depend_on_workers_their_deaths_or_the_order_of_seeds(wandered: Outcomes) -> None:
    shuffled = np.random.default_rng(0).permutation(wandered.seeds)
    seen = []

    def on_block(done: int, total: int) -> None:
        seen.append((done, total))
        kill_a_worker(done, total)

    again = rollout(Wander, shuffled, workers=2, on_block=on_block)
    assert again.to_records() == wandered.to_records()
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert len(set(wandered.max_reward.tolist())) > 10  # not all episodes are alike


# ---- interruptions


@contextmanager
def journal_in(folder: Path, *, resume: bool) -> Iterator[Journal]:
    """Open a journal, all of whose conditions are the same every time."""
    with opened(
        folder / "mixed.jsonl", Conditions("mixed", "keypoints", "", FIRST, {}), resume=resume
    ) as mine:
        yield mine


def test_finished_blocks_are_not_run_again(
    wandered: Outcomes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run: list[int] = []
    run_block = module.run_block

    def counted(policy: Policy, wanted: np.ndarray) -> Outcomes:
        run.append(int(wanted[0]))
        return run_block(policy, wanted)

    monkeypatch.setattr(module, "run_block", counted)
    seen: list[tuple[int, int]] = []
    with journal_in(tmp_path, resume=False) as mine:
        rollout(Wander, range(FIRST + BLOCK_SIZE, FIRST + 2 * BLOCK_SIZE), journal=mine)
    run.clear()
    with journal_in(tmp_path, resume=True) as mine:
        found = rollout(Wander, wandered.seeds, journal=mine, on_block=lambda *done: seen.append(done))
    assert found.to_records() == wandered.to_records()
    assert run == [FIRST, FIRST + 2 * BLOCK_SIZE]
    assert seen == [(1, 3), (2, 3), (3, 3)]
    with journal_in(tmp_path, resume=True) as mine:
        again = rollout(load_nothing, wandered.seeds, journal=mine, workers=2)  # nothing left to load it for
    assert again.to_records() == wandered.to_records()
    assert again.seconds > found.seconds / 2, "the time that blocks took is not forgotten"


class FailsLater(Wander):
    """Returns nan in its second block."""

    n_blocks = 0

    def reset(self) -> None:
        super().reset()
        self.n_blocks += 1

    def select_action(self, batch: Batch) -> torch.Tensor:
        return super().select_action(batch) + (torch.nan if self.n_blocks == 2 else 0.0)


def test_blocks_that_finished_before_a_policy_failed_are_kept(wandered: Outcomes, tmp_path: Path) -> None:
    with journal_in(tmp_path, resume=False) as mine:
        with pytest.raises(IlBenchError, match="at seed 200050, step 0; expected finite"):
            rollout(FailsLater(), wandered.seeds, journal=mine)
        kept = mine.recall(np.arange(FIRST, FIRST + BLOCK_SIZE))
    assert kept is not None
    assert kept.to_records() == wandered.to_records()[:BLOCK_SIZE]


# ---- stopping early


class LastFirst:
    """In place of worker processes: tasks finish in the most confusing order."""

    def run(self, load: Any, function: Any, tasks: list[Any], *, name: Any) -> Iterator[Any]:
        policy = load()
        yield from [function(policy, task) for task in reversed(tasks)]


class FailsFrom(Wander):
    """Wanders, but returns nan in every block from this seed on."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def select_action(self, batch: Batch) -> torch.Tensor:
        return super().select_action(batch) + (torch.nan if torch.initial_seed() >= self.seed else 0.0)


def hundred(so_far: Outcomes) -> bool:
    """Enough; asked after every block, in seed order."""
    assert so_far.seeds.tolist() == list(range(FIRST, FIRST + len(so_far)))
    return len(so_far) >= 100


@pytest.mark.parametrize("confused", [False, True])
def test_a_rollout_stops_at_the_same_block_whoever_finishes_first(
    wandered: Outcomes, confused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a block beyond it had failed already: with one worker it would not have been run."""
    if confused:
        monkeypatch.setattr(executors, "choose", lambda workers, n_tasks: LastFirst())
    seen: list[tuple[int, int]] = []
    found = rollout(
        partial(FailsFrom, FIRST + 100),
        SEEDS,
        workers=2 if confused else 1,
        stop=hundred,
        on_block=lambda *done: seen.append(done),
    )
    assert found.to_records() == wandered.to_records()[:100]
    assert seen == ([(0, 4), (0, 4), (0, 4), (2, 4)] if confused else [(1, 4), (2, 4)])


def test_the_first_block_that_fails_is_the_one_that_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executors, "choose", lambda workers, n_tasks: LastFirst())
    with pytest.raises(IlBenchError, match="at seed 200050, step 0; expected finite"):
        rollout(partial(FailsFrom, FIRST + 50), SEEDS, workers=2, stop=hundred)


def test_a_resumed_rollout_stops_where_it_would_have_stopped(
    wandered: Outcomes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The journal has a block too many, which another worker had finished, and lacks one."""
    with journal_in(tmp_path, resume=False) as mine:
        rollout(Wander, [*range(FIRST, FIRST + 50), *range(FIRST + 100, FIRST + 150)], journal=mine)
    run: list[int] = []
    run_block = module.run_block
    monkeypatch.setattr(module, "run_block", lambda p, w: run.append(int(w[0])) or run_block(p, w))
    with journal_in(tmp_path, resume=True) as mine:
        found = rollout(Wander, SEEDS, journal=mine, stop=hundred)
    assert found.to_records() == wandered.to_records()[:100]
    assert run == [FIRST + 50]
    with journal_in(tmp_path, resume=True) as mine:
        again = rollout(load_nothing, SEEDS, journal=mine, stop=hundred, workers=2)
    assert again.to_records() == found.to_records()


class Mixed:
    """Two real policies, taking turns in the rows of a batch: an act, and a bet that draws random numbers."""

    def __init__(self, act: Policy, bet: Policy) -> None:
        self.both = (act, bet)

    def reset(self) -> None:
        for policy in self.both:
            policy.reset()

    def select_action(self, batch: Batch) -> torch.Tensor:
        act, bet = (policy.select_action(batch) for policy in self.both)
        return torch.where(torch.arange(len(act))[:, None] % 2 == 0, act, bet)


def load_mixed(act: str) -> Mixed:
    from il_bench.policies.checkpoint import load_policy

    return Mixed(load_policy(act), small_bet())


def small_bet() -> Policy:
    """Untrained: its centres and offsets are random, so it wanders about where it starts."""
    from lerobot.configs import FeatureType, PolicyFeature
    from lerobot.policies.factory import make_pre_post_processors

    from il_bench.policies.bet import ILBeTConfig, ILBeTPolicy
    from il_bench.policies.checkpoint import wrap

    dims = {"observation.state": 2, "observation.environment_state": 16, "action": 2}
    kinds = (FeatureType.STATE, FeatureType.ENV, FeatureType.ACTION)
    features = {key: PolicyFeature(kind, (dims[key],)) for key, kind in zip(dims, kinds, strict=True)}
    config = ILBeTConfig(
        output_features={"action": features.pop("action")},
        input_features=features,
        device="cpu",
        codebook_size=4,
        softmax_temperature=1.0,
        gpt_input_dim=16,
        gpt_hidden_dim=16,
        gpt_output_dim=16,
        gpt_n_layer=1,
        gpt_n_head=2,
    )
    limits = {
        key: {"min": torch.zeros(dim), "max": torch.full((dim,), 512.0), "mean": torch.zeros(dim)}
        for key, dim in dims.items()
    }
    with torch.random.fork_rng():
        torch.manual_seed(1)
        policy = ILBeTPolicy(config)
        policy.fit_tokenizer(
            {"action": torch.randn(64, 8, 2) / 4, "observation.state": torch.zeros(64, 1, 2)}
        )
    return wrap(policy, *make_pre_post_processors(config, dataset_stats=limits), name="bet")


def killed_half_way(act: str, folder: str) -> None:
    """Roll out with a journal until two of four blocks are in it, then kill every process of the group."""

    def on_block(done: int, total: int) -> None:
        if done == 2:
            os.killpg(0, signal.SIGKILL)

    with journal_in(Path(folder), resume=False) as mine:
        rollout(partial(load_mixed, act), SEEDS, workers=2, on_block=on_block, journal=mine)


@pytest.mark.slow
def test_no_executor_order_kill_or_interruption_changes_an_episode(checkpoint: Path, tmp_path: Path) -> None:
    load = partial(load_mixed, str(checkpoint))
    expected = rollout(load, SEEDS).to_records()
    assert len({record["max_reward"] for record in expected[1::2]}) > 10, "bet's episodes are all alike"
    shuffled = np.random.default_rng(1).permutation(np.array(SEEDS))
    assert rollout(load, shuffled).to_records() == expected
    blocks = [rollout(load(), range(first, first + BLOCK_SIZE)) for first in SEEDS[::BLOCK_SIZE][::-1]]
    assert Outcomes.concatenate(blocks).to_records() == expected
    assert rollout(load, shuffled, workers=2).to_records() == expected
    assert rollout(load, SEEDS, workers=4, on_block=kill_a_worker).to_records() == expected

    code = f"import test_blocks as this; this.killed_half_way({str(checkpoint)!r}, {str(tmp_path)!r})"
    killed = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parent, start_new_session=True, check=False
    )
    assert killed.returncode == -signal.SIGKILL
    path = tmp_path / "mixed.jsonl"
    assert len(path.read_bytes().splitlines()) == 3, "a line of conditions and two of blocks"
    path.write_bytes(path.read_bytes()[:-40])  # the second block did not reach the disk whole
    seen = []
    with journal_in(tmp_path, resume=True) as mine:
        resumed = rollout(load(), shuffled, journal=mine, on_block=lambda *done: seen.append(done))
    assert resumed.to_records() == expected
    assert len(path.read_bytes().splitlines()) == 5
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


# ---- episodes


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
    assert outcomes.share_outside == 310 / 1200
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
    if how == "parse":  # an error raised by the standard library
        json.loads("no JSON")
    if how == "nan":
        action[12, 1] = torch.nan
    return {"nan": action, "shape": action[:, None], "list": action.tolist(), "inf": action / 0}[how]


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (
            "raise",
            r"at seeds 200000-200049, step 3: RuntimeError: out of ideas \(test_blocks.py, line \d+\)",
        ),
        ("parse", r"step 3: JSONDecodeError: .*\(test_blocks.py, line \d+\)"),
        ("nan", r"action \[\d+\.\d+, nan\] at seed 200012, step 3; expected finite"),
        ("inf", r"action \[inf, inf\] at seed 200000, step 3; expected finite"),
        ("shape", r"shape \(50, 1, 2\) at seeds 200000-200049, step 3, expected a tensor of shape \(50, 2\)"),
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

    with pytest.raises(
        IlBenchError, match=r"reset\(\), seeds 200000-200049: KeyError: 'codebook' \(test_blocks"
    ):
        rollout(Broken(), [FIRST])


def vanish(batch: Batch, step: int) -> torch.Tensor:
    os._exit(9)


def load_vanishing() -> Policy:
    return Scripted(vanish)


def load_nothing() -> Policy:
    raise IlBenchError("checkpoint runs/mine has no model.safetensors")


def test_a_policy_that_cannot_be_loaded_in_a_worker_is_one_error() -> None:
    with pytest.raises(IlBenchError, match=r"^checkpoint runs/mine has no model\.safetensors$"):
        rollout(load_nothing, range(FIRST, FIRST + 100), workers=2)


def test_a_block_that_kills_its_workers_is_named_by_its_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executors.processes, "MAX_DEATHS", 1)
    with pytest.raises(IlBenchError, match=r"^seeds 2000(00-200049|50-200099): 1 worker .*exit code 9"):
        rollout(load_vanishing, range(FIRST, FIRST + 100), workers=2)


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
