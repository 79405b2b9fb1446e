"""One demonstration: the expert solves PushT from where a simulator stands, and every frame is kept."""

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from il_bench.protocol import ACTION_HIGH, ACTION_LOW, MAX_STEPS, SUCCESS_COVERAGE
from il_bench.pusht.simulator import Simulator

#: How much of the disturbance of a step is left in the next.
NOISE_COEFFICIENT = 0.9
# Second word of an episode's seed sequence, so that no two of its random numbers are the same stream.
NOISE_STREAM, TAKEOVER_STREAM = 1, 2


class Demonstrator(Protocol):
    """Who demonstrates: `il_bench.pusht.expert.Expert`, or anything with its methods."""

    def reset(self) -> None:
        """Forget the last episode."""

    def act(self, agent: NDArray[np.float64], pose: NDArray[np.float64]) -> NDArray[np.float64]:
        """Where to pull the agent at (2,) px, with the block at `[x, y, angle]`: (2,) px."""


@dataclass(frozen=True)
class Recording:
    """The T steps of one demonstration.

    agent:    (T, 2) float64 px, before each action
    pose:     (T, 3) float64, the block's `[x, y, angle]` before each action
    action:   (T, 2) float32 px, what the demonstrator said
    coverage: (T,) float64, after each action
    """

    agent: NDArray[np.float64]
    pose: NDArray[np.float64]
    action: NDArray[np.float32]
    coverage: NDArray[np.float64]

    @property
    def success(self) -> bool:
        """Whether the last step solved the task."""
        return bool(self.coverage[-1] > SUCCESS_COVERAGE)


class Noise:
    """Disturbs what is executed, not what is recorded (DART, Laskey et al. 2017).

    The way from the agent to the target is turned by an angle and stretched by exp(scale), two AR(1)
    processes with the stationary standard deviation `size`; both start in their stationary distribution.

    Args:
        size: radians for the angle, natural logarithm for the scale; at 0 targets pass unchanged to the bit.
        seed: of the episode.
    """

    def __init__(self, size: float, seed: int) -> None:
        self._size = size
        self._rng = stream(seed, NOISE_STREAM)
        self._state = size * self._rng.standard_normal(2)

    def __call__(self, agent: NDArray[np.float64], action: NDArray[np.float64]) -> NDArray[np.float64]:
        """What is executed, (2,) px in [0, 512], where the demonstrator at `agent` said `action`."""
        if self._size == 0.0:
            return action
        angle, scale = self._state.tolist()
        fresh = self._size * math.sqrt(1.0 - NOISE_COEFFICIENT**2) * self._rng.standard_normal(2)
        self._state = NOISE_COEFFICIENT * self._state + fresh
        x, y = (math.exp(scale) * (action - agent)).tolist()
        cos, sin = math.cos(angle), math.sin(angle)
        turned = np.array([x * cos - y * sin, x * sin + y * cos])
        return np.asarray(np.clip(agent + turned, ACTION_LOW, ACTION_HIGH))


def stream(seed: int, which: int) -> np.random.Generator:
    """The random numbers of one episode for one use."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, which])))


def record(simulator: Simulator, demonstrator: Demonstrator, noise: Noise) -> Recording:
    """Let the demonstrator go on from where the simulator stands, until it is solved or for 300 steps.

    Actions are rounded to float32 before they are executed: without noise, replaying the recorded ones gives
    the recorded frames to the bit.
    """
    agents, poses, actions, coverage = [], [], [], []
    demonstrator.reset()
    for _ in range(MAX_STEPS):
        agent = np.array([simulator.agent_x, simulator.agent_y])
        pose = np.array([simulator.block_x, simulator.block_y, simulator.block_angle])
        action = demonstrator.act(agent.copy(), pose.copy()).astype(np.float32)
        x, y = noise(agent, action.astype(np.float64)).tolist()
        simulator.step(x, y)
        agents.append(agent)
        poses.append(pose)
        actions.append(action)
        coverage.append(simulator.coverage())
        if coverage[-1] > SUCCESS_COVERAGE:
            break
    return Recording(np.array(agents), np.array(poses), np.array(actions), np.array(coverage))
