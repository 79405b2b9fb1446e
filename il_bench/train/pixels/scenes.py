"""Scenes of PushT drawn on the spot: images with known poses, and what the eye is to say of them.

Half the blocks lie anywhere, half around the goal at mixed distances. The agent touches the block, is near
it, or is anywhere. A batch depends on its generator alone.
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from il_bench.demos.replay import Drawer
from il_bench.policies.pusht_features import features
from il_bench.protocol import WORLD_SIZE
from il_bench.pusht.geometry import GOAL_POSE, OUTLINE, block_keypoints, coverage

Array = NDArray[np.float64]

# The eye's targets, in this order. The first 89 are `pusht_features.features`.
AGENT, KEYPOINTS = slice(0, 2), slice(2, 18)  # px / 256 - 1
SHORT_WAVES = (slice(61, 69), slice(81, 89))  # of 64 and 32 px: too short for an eye that errs by some px
N_TARGETS = 89 + 16 + 16 + 1

_CENTRE_OF_MASS = (0.0, 45.0)  # in the block's frame
_CORNER_SCALE = 8.0  # px, within which a corner's way to its place at the goal is told finely
_GOAL_KEYPOINTS = block_keypoints(np.array(GOAL_POSE))
_CORNERS = np.array(OUTLINE)
_EDGES = np.roll(_CORNERS, -1, axis=0) - _CORNERS
_LENGTHS = np.linalg.norm(_EDGES, axis=1)
_NORMALS = np.stack([_EDGES[:, 1], -_EDGES[:, 0]], axis=1) / _LENGTHS[:, None]  # outward


def _turned(point: tuple[float, float], angle: float) -> tuple[float, float]:
    cos, sin = math.cos(angle), math.sin(angle)
    return point[0] * cos - point[1] * sin, point[0] * sin + point[1] * cos


def _pose_about(centre: Array, angle: float) -> Array:
    """The pose `[x, y, angle]` whose centre of mass is at ``centre``."""
    x, y = _turned(_CENTRE_OF_MASS, angle)
    return np.array([centre[0] - x, centre[1] - y, angle])


def _goal_centre() -> Array:
    u, v = _CENTRE_OF_MASS
    cos, sin = math.cos(GOAL_POSE[2]), math.sin(GOAL_POSE[2])
    return np.array([GOAL_POSE[0] + u * cos - v * sin, GOAL_POSE[1] + u * sin + v * cos])


_GOAL_CENTRE = _goal_centre()


def uniform_pose(rng: np.random.Generator) -> Array:
    """A pose anywhere on the table, (3,)."""
    while True:
        pose = _pose_about(rng.uniform(40, 472, 2), rng.uniform(-math.pi, math.pi))
        keypoints = block_keypoints(pose)
        if keypoints.min() > 6 and keypoints.max() < 506:
            return pose


def near_pose(rng: np.random.Generator) -> Array:
    """A pose around the goal, (3,): the scales of shift and turn are log-uniform from 1 to 60 px.

    The turn is measured at 45 px from the centre of mass, about which it turns.
    """
    shift = math.exp(rng.uniform(0.0, math.log(60.0)))
    turn = math.exp(rng.uniform(0.0, math.log(60.0))) / 45.0
    return _pose_about(_GOAL_CENTRE + rng.normal(0, shift, 2), GOAL_POSE[2] + rng.normal(0, turn))


def _gap(agent: Array, pose: Array) -> float:
    """Distance, px, of the agent's centre to the block's outline; negative inside of it."""
    cos, sin = math.cos(pose[2]), math.sin(pose[2])
    dx, dy = agent - pose[:2]
    place = np.array([dx * cos + dy * sin, dy * cos - dx * sin])
    along = np.clip(((place - _CORNERS) * _EDGES).sum(1) / (_EDGES * _EDGES).sum(1), 0, 1)
    distance = float(np.linalg.norm(place - (_CORNERS + along[:, None] * _EDGES), axis=1).min())
    in_bar = abs(place[0]) < 60 and 0 < place[1] < 30
    in_stem = abs(place[0]) < 15 and 0 < place[1] < 120
    return -distance if in_bar or in_stem else distance


def agent_place(rng: np.random.Generator, pose: Array) -> Array:
    """A place (2,) of the agent: touching the block (0.35), near it (0.45), anywhere; never deep inside."""
    for _ in range(50):
        kind = rng.random()
        if kind < 0.8:
            edge = rng.choice(8, p=_LENGTHS / _LENGTHS.sum())
            gap = rng.normal(-0.5, 0.8) if kind < 0.35 else abs(rng.normal(0, 35))
            local = _CORNERS[edge] + rng.random() * _EDGES[edge] + (15 + gap) * _NORMALS[edge]
            if kind >= 0.35:
                local = local + rng.normal(0, 8, 2)
            agent = np.array(_turned(local, pose[2])) + pose[:2]
        else:
            agent = rng.uniform(0, WORLD_SIZE, 2)
        if agent.min() >= 0 and agent.max() <= WORLD_SIZE and _gap(agent, pose) > 11.5:
            break
    return agent


class Scenes:
    """Draws scenes, contact marks and all, as an evaluation shows them; for one thread at a time."""

    def __init__(self) -> None:
        self._draw = Drawer()

    def draw(self, agents: Array, poses: Array) -> NDArray[np.uint8]:
        """Images (n, 96, 96, 3) of agents (n, 2) px and blocks (n, 3) `[x, y, angle]`."""
        return np.stack([self._draw(agent, pose) for agent, pose in zip(agents, poses, strict=True)])

    def batch(self, rng: np.random.Generator, n: int) -> tuple[NDArray[np.uint8], Array, Array]:
        """Images (n, 96, 96, 3), agents (n, 2), poses (n, 3); the second half is near the goal."""
        poses = np.stack([uniform_pose(rng) if i < n // 2 else near_pose(rng) for i in range(n)])
        agents = np.stack([agent_place(rng, pose) for pose in poses])
        return self.draw(agents, poses), agents, poses


def targets(agents: Array, poses: Array) -> Tensor:
    """What the eye is to say, (n, N_TARGETS) float32, within about [-1, 1].

    ``pusht_features.features``; how far each corner is from its place at the goal, and from the agent;
    coverage.
    """
    keypoints = torch.from_numpy(block_keypoints(poses))
    agent = torch.from_numpy(np.asarray(agents, np.float64))
    missing = keypoints - torch.from_numpy(_GOAL_KEYPOINTS)
    covered = torch.tensor([[2 * coverage(*pose) - 1] for pose in np.asarray(poses).tolist()])
    parts = [
        features(agent, keypoints),
        torch.tanh(missing / _CORNER_SCALE),
        (keypoints - agent.repeat(1, 8)) / WORLD_SIZE,
        covered,
    ]
    return torch.cat(parts, dim=-1).float()


def distance_to_goal(poses: Array) -> Array:
    """Of blocks (n, 3): the root mean square, over the corners, of their distance to the goal's, (n,) px."""
    apart = (block_keypoints(poses) - _GOAL_KEYPOINTS).reshape(-1, 8, 2)
    return np.sqrt((apart**2).sum(-1).mean(-1))  # type: ignore[no-any-return]


def to_tensor(images: NDArray[np.uint8]) -> Tensor:
    """Images (n, 96, 96, 3) as LeRobot shows them: (n, 3, 96, 96) in [0, 1], channels last in memory."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float().div_(255)
