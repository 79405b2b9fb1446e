"""Demonstrations that end at the goal: each moved as a whole, and its mirror image beside it.

People's demonstrations of PushT break off some px before the goal. But away from the walls nothing in PushT
depends on where things are. So a demonstration that is moved, block, agent and actions together, until the
block's last pose is the goal's, is again one: of another start, and without the people's last error. And
PushT is its own mirror image about the goal's axis, but for the one px by which gym-pusht's walls stand off
the middle of its world.
"""

from itertools import pairwise
from pathlib import Path

import numpy as np
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from numpy.typing import NDArray

from il_bench.data.convert import compact, write_dataset
from il_bench.data.lerobot_folder import open_folder
from il_bench.data.replay_buffer import ReplayBuffer
from il_bench.demos import provenance
from il_bench.demos.output import new_dataset
from il_bench.demos.provenance import Provenance
from il_bench.demos.replay import poses_at_ends
from il_bench.demos.states import read_states
from il_bench.files import given_path
from il_bench.protocol import ACTION_HIGH, ACTION_LOW, WORLD_SIZE
from il_bench.pusht.geometry import GOAL_POSE, into_frame, out_of_frame

Array = NDArray[np.float64]


def align_demos(
    source: str | Path, output: str | Path, *, mirror: bool = False, name: str | None = None
) -> LeRobotDataset:
    """Write demonstrations so that each ends at the goal, into the new folder `output`.

    source: as `open_dataset` takes it, with keypoints. mirror: append the mirror image of each demonstration.
    name: what the provenance calls the source. An action that is moved out of [0, 512] px is put at the edge.
    Raises IlBenchError if the source cannot be read, or if `output` exists or cannot be written.
    """
    output, states = given_path(output).resolve(), read_states(source, name)
    agent, action, ends = (
        states.agent.astype(np.float64),
        states.action.astype(np.float64),
        states.episode_ends,
    )
    last = poses_at_ends(agent, states.pose[ends - 1], action, ends)
    parts = [
        aligned(np.concatenate([agent[start:end], states.pose[start:end]], axis=1), action[start:end], pose)
        for (start, end), pose in zip(pairwise([0, *ends.tolist()]), last, strict=True)
    ]
    if mirror:
        parts += [mirrored(*part) for part in parts]
    buffer = ReplayBuffer(
        action=np.concatenate([action for _, action in parts])
        .clip(ACTION_LOW, ACTION_HIGH)
        .astype(np.float32),
        state=np.concatenate([state for state, _ in parts]).astype(np.float32),
        episode_ends=np.cumsum([len(state) for state, _ in parts]),
    )
    with new_dataset(output) as whole:
        write_dataset(buffer, whole)
        compact(whole)
        provenance.write(whole, Provenance.unknown(len(parts)).named(states.name))
    return open_folder(output)


def aligned(state: Array, action: Array, last: Array) -> tuple[Array, Array]:
    """States (T, 5) and actions (T, 2), moved so that the pose `last` (3,) becomes the goal's.

    A state is `[agent x, agent y, block x, block y, block angle]`, in px and radians.
    """
    moved = [
        out_of_frame(into_frame(each, last), GOAL_POSE) for each in (state[:, :2], state[:, 2:4], action)
    ]
    angle = state[:, 4:] - last[2] + GOAL_POSE[2]
    return np.concatenate([*moved[:2], angle], axis=1), moved[2]


def mirrored(state: Array, action: Array) -> tuple[Array, Array]:
    """States (T, 5) and actions (T, 2) in the mirror that leaves the goal as it is: x + y = 512 px."""
    agent, block, target = (WORLD_SIZE - each[:, ::-1] for each in (state[:, :2], state[:, 2:4], action))
    return np.concatenate([agent, block, np.pi / 2 - state[:, 4:]], axis=1), target
