"""PushT as a gymnasium environment: `gym_pusht/PushT-v0`, little more expensive than its physics."""

import math
import os
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from il_bench.errors import IlBenchError
from il_bench.protocol import ACTION_HIGH, ACTION_LOW, CONTROL_HZ, SUCCESS_COVERAGE, WORLD_SIZE
from il_bench.pusht import geometry
from il_bench.pusht.simulator import Simulator, start_state

OBS_TYPES = ("state", "environment_state_agent_pos", "pixels", "pixels_agent_pos")
_CONTACT_SUBSTEPS = 1000  # gym-pusht divides by control_hz / dt, not by its ten substeps


class PushTEnv(gymnasium.Env[Any, NDArray[np.float32]]):
    """Push the T-shaped block onto the goal with a round agent.

    Arguments, observations, terminations and infos are gym-pusht 0.1.8's to the bit; coverage and reward
    agree within 1e-12. An action is the agent's target `[x, y]` in [0, 512] px; targets outside are carried
    out too. `reset(options={"reset_to_state": [agent_x, agent_y, block_x, block_y, angle]})` has gym-pusht's
    legacy meaning, see `Simulator.set_state`.

    Args:
        obs_type: `state` (5,) `[agent_x, agent_y, block_x, block_y, angle mod 2 pi]`;
            `environment_state_agent_pos`, dict of `environment_state` (16,) keypoints and `agent_pos` (2,);
            `pixels`, (height, width, 3) uint8; `pixels_agent_pos`, dict of `pixels` and `agent_pos`.
        render_mode: `rgb_array`, or `human` for a window (gym-pusht then observes no `pixels`).
        block_cog: as for `Simulator`.
        damping: as for `Simulator`.
        observation_width: of `pixels`.
        observation_height: of `pixels`.
        visualization_width: of `render()`'s image.
        visualization_height: of `render()`'s image.
        count_contacts: fill `info["n_contacts"]`; without it the entry is 0 and steps in contact are faster.

    Raises IlBenchError for an unknown `obs_type` or `render_mode`, and for an action that is
    not two finite numbers.
    """

    metadata: dict[str, Any] = {  # noqa: RUF012  # gymnasium's type
        "render_modes": ["rgb_array"] if os.environ.get("MUJOCO_GL") == "egl" else ["rgb_array", "human"],
        "render_fps": CONTROL_HZ,
    }
    success_threshold = SUCCESS_COVERAGE

    def __init__(
        self,
        obs_type: str = "state",
        render_mode: str | None = "rgb_array",
        block_cog: tuple[float, float] | None = None,
        damping: float | None = None,
        observation_width: int = 96,
        observation_height: int = 96,
        visualization_width: int = 680,
        visualization_height: int = 680,
        count_contacts: bool = True,
    ) -> None:
        if obs_type not in OBS_TYPES:
            raise IlBenchError(f"obs_type {obs_type!r} is unknown, must be one of {', '.join(OBS_TYPES)}")
        if render_mode is not None and render_mode not in self.metadata["render_modes"]:
            modes = ", ".join(self.metadata["render_modes"])
            raise IlBenchError(f"render_mode {render_mode!r} is unknown, must be one of {modes}")
        self.obs_type, self.render_mode = obs_type, render_mode
        self.observation_width, self.observation_height = observation_width, observation_height
        self.visualization_width, self.visualization_height = visualization_width, visualization_height
        self.observation_space = _observation_space(obs_type, observation_height, observation_width)
        self.action_space = spaces.Box(ACTION_LOW, ACTION_HIGH, (2,), np.float32)
        self.simulator = Simulator(block_cog=block_cog, damping=damping, count_contacts=count_contacts)
        self.goal_pose = np.array(geometry.GOAL_POSE)
        self._last_action: tuple[float, float] | None = None
        self._renderer: Any = None  # made with the first image: its module imports pygame and OpenCV
        self._window: Any = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start at a random state, or at `options["reset_to_state"]`."""
        super().reset(seed=seed)
        state = (options or {}).get("reset_to_state")
        self.simulator.set_state(
            start_state(self.np_random) if state is None else np.asarray(state, np.float64).tolist()
        )
        if self.render_mode == "human":
            self.render()
        return self._observation(), {**self._info(), "is_success": False}

    def step(self, action: NDArray[np.float32]) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Pull the agent towards `action` (2,) px for 0.1 s. `truncated` is always False."""
        try:
            ax, ay = np.asarray(action, np.float64).reshape(2).tolist()
        except (TypeError, ValueError) as error:
            raise IlBenchError(f"action must be two numbers [x, y], got {action!r}") from error
        simulator = self.simulator
        simulator.step(ax, ay)
        self._last_action = ax, ay
        coverage = simulator.coverage()
        success = coverage > SUCCESS_COVERAGE
        info = {**self._info(), "is_success": success, "coverage": coverage}
        return self._observation(), min(coverage / SUCCESS_COVERAGE, 1.0), success, False, info

    def render(self) -> Any:
        """Draw (visualization_height, visualization_width, 3) uint8 for `rgb_array`, a window for `human`."""
        if self.render_mode == "rgb_array":
            return self._frame(self.visualization_width, self.visualization_height, self._last_action)
        if self.render_mode == "human":
            from il_bench.pusht.renderer import Window

            self._window = self._window or Window()
            self._window.show(self._frame(WORLD_SIZE, WORLD_SIZE))
        return None

    def close(self) -> None:
        """Close the window, if there is one."""
        if self._window is not None:
            self._window.close()
            self._window = None

    def _observation(self) -> Any:
        simulator = self.simulator
        agent_pos = np.array([simulator.agent_x, simulator.agent_y])
        if self.obs_type == "state":
            angle = simulator.block_angle % (2 * math.pi)
            return np.array([*agent_pos, simulator.block_x, simulator.block_y, angle])
        if self.obs_type == "environment_state_agent_pos":
            keypoints = geometry.keypoints_at(simulator.block_x, simulator.block_y, simulator.block_angle)
            return {"environment_state": keypoints, "agent_pos": agent_pos}
        pixels = self._frame(self.observation_width, self.observation_height)
        return pixels if self.obs_type == "pixels" else {"pixels": pixels, "agent_pos": agent_pos}

    def _info(self) -> dict[str, Any]:
        simulator = self.simulator
        return {
            "pos_agent": np.array([simulator.agent_x, simulator.agent_y]),
            "vel_agent": np.array([simulator.agent_vx, simulator.agent_vy]),
            "block_pose": np.array([simulator.block_x, simulator.block_y, simulator.block_angle]),
            "goal_pose": self.goal_pose.copy(),
            "n_contacts": math.ceil(simulator.n_contact_points / _CONTACT_SUBSTEPS),
        }

    def _frame(self, width: int, height: int, action: tuple[float, float] | None = None) -> NDArray[np.uint8]:
        from il_bench.pusht.renderer import Renderer

        simulator = self.simulator
        if not hasattr(simulator, "space"):
            raise IlBenchError("nothing to draw before the first reset(): call reset(seed=...) first")
        self._renderer = self._renderer or Renderer()
        frame: NDArray[np.uint8] = self._renderer.view(simulator, width=width, height=height, action=action)
        return frame


def _observation_space(obs_type: str, height: int, width: int) -> spaces.Space[Any]:
    state = spaces.Box(np.zeros(5), np.array([*[WORLD_SIZE] * 4, 2 * np.pi]), dtype=np.float64)
    agent_pos = spaces.Box(0.0, WORLD_SIZE, (2,), np.float64)
    keypoints = spaces.Box(0.0, WORLD_SIZE, (16,), np.float64)
    pixels = spaces.Box(0, 255, (height, width, 3), np.uint8)
    by_type: dict[str, spaces.Space[Any]] = {
        "state": state,
        "environment_state_agent_pos": spaces.Dict({"environment_state": keypoints, "agent_pos": agent_pos}),
        "pixels": pixels,
        "pixels_agent_pos": spaces.Dict({"pixels": pixels, "agent_pos": agent_pos}),
    }
    return by_type[obs_type]
