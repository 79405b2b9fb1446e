"""Demonstrations as tokenizers see them: which chunks there are, and that what was coded comes back in px."""

from pathlib import Path

import numpy as np
import pytest
import torch
from lerobot.datasets.lerobot_dataset import LeRobotDataset

from il_bench.data import chunks, open_dataset
from il_bench.data.convert import write_dataset
from il_bench.errors import IlBenchError
from il_bench.policies.checkpoint import Checkpoint, load_policy
from il_bench.policies.tokenizers import PolicyCoordinates
from tests.data.conftest import make_buffer


@pytest.fixture(scope="module")
def expert() -> LeRobotDataset:
    return open_dataset("expert")


def test_every_fifth_episode_is_held_out_and_none_is_lost(expert: LeRobotDataset) -> None:
    held, others = (chunks.cut(expert, 5, held_out=way) for way in (True, False))
    assert set(held.episodes.tolist()) == set(range(4, 200, 5))
    assert set(others.episodes.tolist()) == set(range(200)) - set(range(4, 200, 5))
    # An episode of L frames has L - 4 chunks of 5.
    assert len(held.actions) + len(others.actions) == expert.meta.total_frames - 4 * 200


def test_a_chunk_is_what_was_done_from_its_frame_on(expert: LeRobotDataset) -> None:
    held = chunks.cut(expert, 5, held_out=True)
    table = expert.hf_dataset.with_format("numpy")[:]
    actions, states = table["action"], table["observation.state"]
    episodes, frames = table["episode_index"], table["frame_index"]
    for row in (0, 100, len(held.frames) - 1):
        episode, frame = held.episodes[row].item(), held.frames[row].item()
        (start,) = np.flatnonzero((episodes == episode) & (frames == frame))
        assert (episodes[start : start + 5] == episodes[start]).all()
        np.testing.assert_array_equal(held.actions[row], actions[start : start + 5])
        np.testing.assert_array_equal(held.agents[row], states[start])


def test_chunks_from_the_agent_by_hand() -> None:
    where = chunks.FromTheAgent()
    seen = chunks.Chunks(
        actions=torch.tensor([[[356.0, 100.0], [100.0, 228.0]]]),
        agents=torch.tensor([[100.0, 100.0]]),
        episodes=torch.tensor([4]),
        frames=torch.tensor([0]),
    )
    coded = where.chunks(seen)
    assert coded.tolist() == [[[1.0, 0.0], [0.0, 0.5]]]
    assert torch.equal(where.pixels(coded, seen.agents), seen.actions)


def test_a_policys_tokenizer_is_measured_on_what_its_training_saw(expert: LeRobotDataset) -> None:
    policy = load_policy("bet")
    held = chunks.cut(expert, 5, held_out=True)
    where = PolicyCoordinates(policy)
    batch = policy.preprocessor({"action": held.actions, "observation.state": held.agents})
    in_training = policy.policy.chunks({**batch, "observation.state": batch["observation.state"][:, None]})
    assert where.relative
    assert torch.equal(where.chunks(held), in_training)
    back = where.pixels(where.chunks(held), held.agents)
    torch.testing.assert_close(back, held.actions, atol=1e-3, rtol=0)


def test_actions_may_be_relative_to_the_place_at_each_step(
    expert: LeRobotDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    where, seen = PolicyCoordinates(Checkpoint.find("vqbet@pixels")), chunks.cut(expert, 4, held_out=True)
    assert seen.places is not None and torch.equal(seen.places[0, 1], seen.agents[1])
    told = where.chunks(seen)
    assert where.relative and told.abs().max() <= 1.5, "of the width of what the policy was trained on"
    torch.testing.assert_close(where.pixels(told, seen.agents, seen.places), seen.actions, atol=0.01, rtol=0)


def test_a_policy_that_codes_places_is_not_relative(checkpoint: Path, expert: LeRobotDataset) -> None:
    where = PolicyCoordinates(Checkpoint.find(checkpoint))
    held = chunks.cut(expert, 5, held_out=True)
    assert not where.relative
    normalised = (held.actions - 256) / 100  # by the checkpoint's mean and std
    torch.testing.assert_close(where.chunks(held), normalised)
    torch.testing.assert_close(where.pixels(where.chunks(held), held.agents), held.actions)


@pytest.mark.parametrize(
    ("n_episodes", "length", "said"),
    [(4, 9, "4 episodes; one in 5 is held out"), (5, 3, "no episode is as long as a chunk of 5 steps")],
)
def test_too_little_is_refused(tmp_path: Path, n_episodes: int, length: int, said: str) -> None:
    write_dataset(make_buffer([length] * n_episodes), tmp_path / "few")
    with pytest.raises(IlBenchError, match=said):
        chunks.cut(open_dataset(tmp_path / "few"), 5, held_out=True)
