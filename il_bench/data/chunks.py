"""Demonstrations for action tokenizers: whole chunks, some episodes held out, and back to px."""

from dataclasses import dataclass

import torch
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.utils.constants import ACTION, OBS_STATE
from torch import Tensor

from il_bench.data import Windows
from il_bench.errors import IlBenchError

#: The last of every so many episodes, in the dataset's order, is held out: 4, 9, 14, ...
HELD_OUT_EVERY = 5
#: Half the arena's width, so that no chunk is longer than about 1.
UNIT_PX = 256.0
CENTRE_PX = 256.0


@dataclass(frozen=True, eq=False)
class Chunks:
    """N chunks of W actions that lie within their episodes."""

    actions: Tensor  # (N, W, 2) px
    agents: Tensor  # (N, 2) px, where the agent is when each chunk begins
    episodes: Tensor  # (N,) int64, the episode of each
    frames: Tensor  # (N,) int64, the frame of the episode where each begins
    places: Tensor | None = None  # (N, W, 2) px, where the agent is at each action; None: nobody has said


@dataclass(frozen=True)
class FromTheAgent:
    """Chunks relative to the agent, in halves of the arena, for tokenizers that belong to no policy."""

    relative: bool = True

    def chunks(self, seen: Chunks) -> Tensor:
        """What the tokenizer encodes, (N, W, 2)."""
        return (seen.actions - seen.agents[:, None]) / UNIT_PX

    def pixels(self, chunks: Tensor, agents: Tensor, places: Tensor | None = None) -> Tensor:
        """Actions (N, W, 2) in px, on the CPU, of a tokenizer's `chunks`.

        agents: (N, 2) px, where each begins. places: (N, W, 2) px, see `Chunks`; None: where it begins.
        """
        return chunks.cpu() * UNIT_PX + agents[:, None]


def cut(dataset: LeRobotDataset, chunk_size: int, *, held_out: bool) -> Chunks:
    """Every whole chunk of `chunk_size` actions in the held-out episodes, or in all the others.

    Raises IlBenchError if there are too few episodes to hold one out, or if none is as long as a chunk.
    """
    n_episodes = dataset.meta.total_episodes
    if n_episodes < HELD_OUT_EVERY:
        raise IlBenchError(
            f"{dataset.repo_id}: {n_episodes} episodes; one in {HELD_OUT_EVERY} is held out, so give at "
            f"least {HELD_OUT_EVERY}."
        )
    chosen = [i for i in range(n_episodes) if (i % HELD_OUT_EVERY == HELD_OUT_EVERY - 1) == held_out]
    seconds = [step / dataset.fps for step in range(chunk_size)]
    windows = Windows(dataset, {ACTION: seconds, OBS_STATE: seconds}, episodes=chosen)
    raw = windows.batch(torch.arange(len(windows)))
    whole = ~raw[f"{ACTION}_is_pad"].any(dim=1)
    if not whole.any():
        raise IlBenchError(f"{dataset.repo_id}: no episode is as long as a chunk of {chunk_size} steps.")
    keys = (ACTION, OBS_STATE, "episode_index", "frame_index")
    actions, places, episodes, frames = (raw[key][whole] for key in keys)
    return Chunks(actions, places[:, 0], episodes, frames, places)
