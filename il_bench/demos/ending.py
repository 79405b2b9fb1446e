"""How much of the goal is covered when an episode ends, out of frames that stop before the last action."""

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from il_bench.policies.expert import poses_of
from il_bench.pusht.geometry import GOAL_POSE
from il_bench.pusht.simulator import DT, K_P, K_V, N_SUBSTEPS, Simulator

#: How far the agent may be, px, from where the recorded actions would have taken it.
_TOLERANCE = 1.0


def coverage_at_ends(
    agent: NDArray[np.float64],
    keypoints: NDArray[np.float64],
    action: NDArray[np.float64],
    ends: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Coverage after the last action of each episode, (E,), to about 0.002.

    The last action is executed in the simulator from the last recorded state. The agent's velocity there,
    which no frame holds, is what the actions before gave it; if they do not lead the agent to where it was
    recorded, because others were executed, the coverage is that of the last recorded state. Not exact,
    because Chipmunk starts a step from the contact forces of the one before, which no frame holds either.

    Args:
        agent, keypoints, action: (N, 2), (N, 16), (N, 2) px, the frames of all episodes.
        ends: (E,) one past the last frame of each.
    """
    simulator = Simulator()
    covered = []
    for (start, end), pose in zip(pairwise([0, *ends.tolist()]), poses_of(keypoints[ends - 1]), strict=True):
        place, velocity = _drive(agent[start], action[start : end - 1])
        put(simulator, agent[end - 1], velocity, pose)
        if np.abs(place - agent[end - 1]).max() <= _TOLERANCE:
            simulator.step(*action[end - 1].tolist())
        covered.append(simulator.coverage())
    return np.array(covered)


def put(
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
    """Place and velocity of an agent, at rest at `start` (2,), after actions (T, 2); nothing can push it."""
    place, velocity = start.copy(), np.zeros(2)
    for target in action:
        for _ in range(N_SUBSTEPS):
            velocity += (K_P * (target - place) - K_V * velocity) * DT
            place += velocity * DT
    return place, velocity
