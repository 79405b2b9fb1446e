"""The same episodes whatever the workers, their deaths, the order, an interruption or an early stop."""

import multiprocessing
import os
import signal
import subprocess
import sys
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from il_bench import load_policy
from il_bench.errors import IlBenchError
from il_bench.protocol import BLOCK_SIZE
from il_bench.rollout import Outcomes, Policy, executors, rollout
from il_bench.rollout import blocks as module
from il_bench.rollout.journal import Conditions, Journal, opened
from tests.rollout.conftest import FIRST, SEEDS
from tests.rollout.policies import Batch, LastFirst, Wander, load_nothing
from tests.small_policies import save_diffusion


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


def journal_in(folder: Path, *, resume: bool) -> AbstractContextManager[Journal]:
    """Open a journal, all of whose conditions are the same every time."""
    return opened(folder / "mixed.jsonl", Conditions("mixed", "keypoints", "", FIRST, {}), resume=resume)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The first wanted seed of every block that is run."""
    run: list[int] = []
    run_block = module.run_block
    monkeypatch.setattr(module, "run_block", lambda p, w: run.append(int(w[0])) or run_block(p, w))
    return run


def test_finished_blocks_are_not_run_again(wandered: Outcomes, tmp_path: Path, run: list[int]) -> None:
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


class FailsFrom(Wander):
    """Wanders, but returns nan in every block from this seed on."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def select_action(self, batch: Batch) -> torch.Tensor:
        return super().select_action(batch) + (torch.nan if torch.initial_seed() >= self.seed else 0.0)


def test_blocks_that_finished_before_a_policy_failed_are_kept(wandered: Outcomes, tmp_path: Path) -> None:
    with journal_in(tmp_path, resume=False) as mine:
        with pytest.raises(IlBenchError, match="at seed 200050, step 0; expected finite"):
            rollout(FailsFrom(FIRST + BLOCK_SIZE), wandered.seeds, journal=mine)
        kept = mine.recall(np.arange(FIRST, FIRST + BLOCK_SIZE))
    assert kept.to_records() == wandered.to_records()[:BLOCK_SIZE]


# ---- stopping early


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
        monkeypatch.setattr(executors, "choose", lambda *_: LastFirst())
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
    monkeypatch.setattr(executors, "choose", lambda *_: LastFirst())
    with pytest.raises(IlBenchError, match="at seed 200050, step 0; expected finite"):
        rollout(partial(FailsFrom, FIRST + 50), SEEDS, workers=2, stop=hundred)


def test_a_resumed_rollout_stops_where_it_would_have_stopped(
    wandered: Outcomes, tmp_path: Path, run: list[int]
) -> None:
    """The journal has a block too many, which another worker had finished, and lacks one."""
    with journal_in(tmp_path, resume=False) as mine:
        rollout(Wander, [*range(FIRST, FIRST + 50), *range(FIRST + 100, FIRST + 150)], journal=mine)
    run.clear()
    with journal_in(tmp_path, resume=True) as mine:
        found = rollout(Wander, SEEDS, journal=mine, stop=hundred)
    assert found.to_records() == wandered.to_records()[:100]
    assert run == [FIRST + 50]
    with journal_in(tmp_path, resume=True) as mine:
        again = rollout(load_nothing, SEEDS, journal=mine, stop=hundred, workers=2)
    assert again.to_records() == found.to_records()


class Mixed:
    """Two real policies taking turns in the rows of a batch; diffusion draws random numbers."""

    def __init__(self, act: Policy, diffusion: Policy) -> None:
        self.both = (act, diffusion)

    def reset(self) -> None:
        for policy in self.both:
            policy.reset()

    def select_action(self, batch: Batch) -> torch.Tensor:
        act, diffusion = (policy.select_action(batch) for policy in self.both)
        return torch.where(torch.arange(len(act))[:, None] % 2 == 0, act, diffusion)


def load_mixed(act: str, diffusion: str) -> Mixed:
    return Mixed(load_policy(act), load_policy(diffusion))


def killed_half_way(act: str, diffusion: str, folder: str) -> None:
    """Roll out with a journal until two of four blocks are in it, then kill every process of the group."""

    def on_block(done: int, total: int) -> None:
        if done == 2:
            os.killpg(0, signal.SIGKILL)

    with journal_in(Path(folder), resume=False) as mine:
        rollout(partial(load_mixed, act, diffusion), SEEDS, workers=2, on_block=on_block, journal=mine)


@pytest.mark.slow
def test_no_executor_order_kill_or_interruption_changes_an_episode(checkpoint: Path, tmp_path: Path) -> None:
    policies = str(checkpoint), str(save_diffusion(tmp_path / "diffusion"))
    load = partial(load_mixed, *policies)
    expected = rollout(load, SEEDS).to_records()
    assert len({record["max_reward"] for record in expected[1::2]}) > 10, "diffusion's episodes are all alike"
    shuffled = np.random.default_rng(1).permutation(np.array(SEEDS))
    assert rollout(load, shuffled).to_records() == expected
    blocks = [rollout(load(), range(first, first + BLOCK_SIZE)) for first in SEEDS[::BLOCK_SIZE][::-1]]
    assert Outcomes.concatenate(blocks).to_records() == expected
    assert rollout(load, shuffled, workers=2).to_records() == expected
    assert rollout(load, SEEDS, workers=4, on_block=kill_a_worker).to_records() == expected

    this = "from tests.rollout import test_interruptions as this"
    code = f"{this}; this.killed_half_way(*{policies!r}, {str(tmp_path)!r})"
    killed = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[2], start_new_session=True, check=False
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
