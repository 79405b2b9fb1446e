"""Reach a goal in the plane within some steps; every third goal is farther away than that."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

STEP = 0.1
NEAR, FAR = 1.0, 4.0


class Reach(gymnasium.Env[Any, Any]):
    """Actions are moves [x, y], each within STEP; the observation is the robot's place and the goal's."""

    observation_space = spaces.Dict(
        {
            "agent_pos": spaces.Box(-10, 10, (2,), np.float32),
            "environment_state": spaces.Box(-10, 10, (2,), np.float32),
        }
    )
    action_space = spaces.Box(-STEP, STEP, (2,), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._agent = np.zeros(2)
        angle = self.np_random.uniform(0, 2 * np.pi)
        distance = FAR if seed is not None and seed % 3 == 0 else NEAR
        self._goal = distance * np.array([np.cos(angle), np.sin(angle)])
        return self._observation(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._agent = self._agent + np.clip(action, -STEP, STEP)
        distance = float(np.linalg.norm(self._goal - self._agent))
        is_there = distance < STEP
        return self._observation(), -distance, is_there, False, {"is_success": is_there}

    def _observation(self) -> dict[str, Any]:
        return {
            "agent_pos": self._agent.astype(np.float32),
            "environment_state": self._goal.astype(np.float32),
        }
