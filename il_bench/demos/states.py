"""Demonstrations as states, which `il-bench demos build` draws, from any source without images."""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.utils.constants import ACTION, OBS_ENV_STATE, OBS_STATE
from numpy.typing import NDArray

from il_bench.data.convert import coverage_after, outcome_columns
from il_bench.data.lerobot_folder import episode_ends, read_column
from il_bench.data.replay_buffer import arrays_sha256, read_replay_buffer
from il_bench.data.sources import find_replay_buffer, open_dataset
from il_bench.demos import provenance
from il_bench.demos.provenance import Provenance
from il_bench.errors import IlBenchError
from il_bench.files import given_path
from il_bench.policies.expert import poses_of

REWARD, SUCCESS = "next.reward", "next.success"
OF_THE_SOURCE = "of the source, and right by the block's poses"  # this text is stored
COMPUTED = "computed from the block's poses"
#: How far a reward may be from the pose's, which float32 keypoints give to about 1e-4 px.
_TOLERANCE = 1e-3


@dataclass(frozen=True)
class States:
    """N frames of E episodes."""

    name: str  # what reports call the source
    agent: NDArray[np.float32]  # (N, 2) px, before each action
    pose: NDArray[np.float64]  # (N, 3), the block's `[x, y, angle]` before each action
    action: NDArray[np.float32]  # (N, 2) px
    reward: NDArray[np.float32]  # (N,), after each action
    success: NDArray[np.bool_]  # (N,), after each action
    episode_ends: NDArray[np.int64]  # (E,) one past the last frame of each episode
    reward_from: str  # where reward and success come from, OF_THE_SOURCE or COMPUTED
    made_by: Provenance

    @property
    def spans(self) -> list[tuple[int, int]]:
        """First frame of each episode and one past its last."""
        return list(pairwise([0, *self.episode_ends.tolist()]))

    def sha256(self) -> str:
        """Hash of the numbers, the same for every kind of source."""
        keys = ("agent", "pose", "action", "reward", "success", "episode_ends")
        return arrays_sha256({key: getattr(self, key) for key in keys})


def read_states(source: str | Path, name: str | None = None) -> States:
    """Read demonstrations: a replay buffer as it is, the poses of any other source from its keypoints.

    source: as `open_dataset` takes it. name: what reports call it; default is the last part of its path.
    Raises IlBenchError if it cannot be read, holds no keypoints, or its rewards disagree with its poses.
    """
    path, name = given_path(source), name or Path(source).name
    if not path.exists() or (path / "meta" / "info.json").exists():
        return _of_dataset(open_dataset(source), str(source), name)
    buffer = read_replay_buffer(find_replay_buffer(path))
    pose, ends = buffer.state[:, 2:5].astype(np.float64), buffer.episode_ends
    outcomes = outcome_columns(coverage_after(pose, ends), ends)
    return States(
        name=name,
        agent=buffer.state[:, :2],
        pose=pose,
        action=buffer.action,
        reward=outcomes[REWARD],
        success=outcomes[SUCCESS],
        episode_ends=ends,
        reward_from=COMPUTED,
        made_by=Provenance.unknown(len(ends)).named(name),
    )


def _of_dataset(dataset: LeRobotDataset, where: str, name: str) -> States:
    if OBS_ENV_STATE not in dataset.features:
        raise IlBenchError(
            f"{where}: has no feature {OBS_ENV_STATE}, and only keypoints say where the block is; give "
            "low-dimensional data, such as lerobot/pusht_keypoints"
        )
    ends = episode_ends(dataset)
    pose = poses_of(read_column(dataset, OBS_ENV_STATE, np.float64))
    reward, success, reward_from = _outcomes(dataset, pose, ends, where)
    return States(
        name=name,
        agent=read_column(dataset, OBS_STATE, np.float32),
        pose=pose,
        action=read_column(dataset, ACTION, np.float32),
        reward=reward,
        success=success,
        episode_ends=ends,
        reward_from=reward_from,
        made_by=provenance.read(Path(dataset.root), len(ends)).named(name),
    )


def _outcomes(
    dataset: LeRobotDataset, pose: NDArray[np.float64], ends: NDArray[np.int64], where: str
) -> tuple[NDArray[np.float32], NDArray[np.bool_], str]:
    """Reward, success and where they come from: the source if it has both, else computed."""
    computed = outcome_columns(coverage_after(pose, ends), ends)
    if not {REWARD, SUCCESS} <= set(dataset.features):
        return computed[REWARD], computed[SUCCESS], COMPUTED
    reward = read_column(dataset, REWARD, np.float32).reshape(-1)
    success = read_column(dataset, SUCCESS, np.bool_).reshape(-1)
    wrong = ~(np.abs(reward - computed[REWARD]) <= _TOLERANCE)  # so that NaN is wrong too
    wrong[ends - 1] = False  # only the source knows the state after an episode's last action
    _check(f"{where}: {REWARD}", reward, computed[REWARD], wrong, "the block's pose after it")
    _check(f"{where}: {SUCCESS}", success, reward >= 1.0, success != (reward >= 1.0), "its reward")
    return reward, success, OF_THE_SOURCE


def _check(
    where: str, found: NDArray[Any], expected: NDArray[Any], wrong: NDArray[np.bool_], by: str
) -> None:
    if wrong.any():
        first = int(np.argmax(wrong))
        raise IlBenchError(
            f"{where} is {found[first]} at frame {first}, but {by} makes it {expected[first]} ({wrong.sum()} "
            f"such frames); remove {REWARD} and {SUCCESS} to have them computed"
        )
