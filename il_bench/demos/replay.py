"""Put recorded states back into the simulator: what the camera saw there, and how each episode ended."""

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from il_bench.policies.expert import poses_of
from il_bench.pusht.geometry import GOAL_POSE, coverage
from il_bench.pusht.renderer import Image, Renderer
from il_bench.pusht.simulator import DT, K_P, K_V, N_SUBSTEPS, Simulator

IMAGE_SIZE = 96  # px, of lerobot/pusht
#: How far, px, the agent may be from where the recorded actions would have taken it.
_TOLERANCE = 1.0
#: Seconds, too short to move anything: Chipmunk finds contacts only in a step, and none in one of length 0.
_INSTANT = 1e-9


class Drawer:
    """Draws states one by one; for one thread at a time.

    gym-pusht marks every contact of agent, block and walls in red. Chipmunk finds contacts after it has moved
    the bodies, that is, in the state that is recorded. So the recorded state gives the same contacts.
    """

    def __init__(self) -> None:
        self._renderer, self._world = Renderer(), Simulator()

    def __call__(self, agent: NDArray[np.floating], pose: NDArray[np.floating]) -> Image:
        """Draw the agent at (2,) px and the block at `[x, y, angle]`, all finite: (96, 96, 3) uint8 RGB."""
        _put(self._world, np.asarray(agent, np.float64), np.zeros(2), np.asarray(pose, np.float64))
        self._world.space.step(_INSTANT)
        marks = self._renderer.contact_marks(self._world.space)
        return self._renderer.frame(agent, pose, width=IMAGE_SIZE, height=IMAGE_SIZE, contacts=marks)


def coverage_at_ends(
    agent: NDArray[np.float64],
    keypoints: NDArray[np.float64],
    action: NDArray[np.float64],
    ends: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Coverage after the last action of each episode, (E,), to about 0.002; see `poses_at_ends`.

    agent, keypoints, action: (N, 2), (N, 16), (N, 2) px. ends: (E,) one past the last frame of each episode.
    """
    poses = poses_at_ends(agent, poses_of(keypoints[ends - 1]), action, ends)
    return np.array([coverage(x, y, angle) for x, y, angle in poses.tolist()])


def poses_at_ends(
    agent: NDArray[np.float64],
    last: NDArray[np.float64],
    action: NDArray[np.float64],
    ends: NDArray[np.int64],
) -> NDArray[np.float64]:
    """The block's pose `[x, y, angle]` after the last action of each episode, (E, 3).

    The last action is executed from the last recorded state. No frame holds the agent's velocity there, so it
    is computed from the actions before. If these do not lead to where the agent was recorded, others were
    executed, and the pose is that of the last recorded state. The result is not exact: Chipmunk starts a
    step from the last one's contact forces, which no frame holds either.

    agent, action: (N, 2) px. last: (E, 3) the pose in the last frame of each episode. ends: (E,) one past it.
    """
    simulator = Simulator()
    found = []
    for (start, end), pose in zip(pairwise([0, *ends.tolist()]), last, strict=True):
        place, velocity = _drive(agent[start], action[start : end - 1])
        _put(simulator, agent[end - 1], velocity, pose)
        if np.abs(place - agent[end - 1]).max() <= _TOLERANCE:
            simulator.step(*action[end - 1].tolist())
        found.append((simulator.block_x, simulator.block_y, simulator.block_angle))
    return np.array(found)


def _put(
    simulator: Simulator, agent: NDArray[np.float64], velocity: NDArray[np.float64], pose: NDArray[np.float64]
) -> None:
    """Set the whole state of a world: agent (2,) px and (2,) px/s, block `[x, y, angle]`."""
    simulator.set_state([0.0, 0.0, *GOAL_POSE])  # a new world, its agent far from its block
    simulator.agent.position = tuple(agent.tolist())
    simulator.agent_x, simulator.agent_y = agent.tolist()
    simulator.agent_vx, simulator.agent_vy = velocity.tolist()
    simulator.block.angle = float(pose[2])
    simulator.block.position = tuple(pose[:2].tolist())
    simulator.block.velocity, simulator.block.angular_velocity = (0.0, 0.0), 0.0
    simulator.block_x, simulator.block_y, simulator.block_angle = pose.tolist()


def _drive(
    start: NDArray[np.float64], action: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Place and velocity of the agent, which nothing can push, after actions (T, 2) from rest at `start`."""
    place, velocity = start.copy(), np.zeros(2)
    for target in action:
        for _ in range(N_SUBSTEPS):
            velocity += (K_P * (target - place) - K_V * velocity) * DT
            place += velocity * DT
    return place, velocity
