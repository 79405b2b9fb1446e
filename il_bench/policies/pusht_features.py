"""Processor steps: features computed from the keypoints, and actions relative to the agent.

LeRobot's Diffusion Policy reads its observation through one linear layer in every block of its U-Net (Chi et
al. 2023, section 2.3: FiLM). It hardly learns what it cannot read off linearly: where the agent stands in the
block's frame, and by how little the block misses the goal. A checkpoint names these steps by their classes,
and LeRobot's own commands load them where il_bench is installed.
"""

import math
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from lerobot.configs import FeatureType, PipelineFeatureType, PolicyFeature, PreTrainedConfig
from lerobot.lerobot_types import EnvTransition, TransitionKey
from lerobot.processor import ObservationProcessorStep, RelativeActionsProcessorStep
from lerobot.utils.constants import OBS_ENV_STATE, OBS_STATE
from torch import Tensor

from il_bench.errors import IlBenchError
from il_bench.protocol import WORLD_SIZE
from il_bench.pusht.geometry import GOAL_POSE, block_keypoints

WAVELENGTHS = (512.0, 256.0, 128.0, 64.0, 32.0)  # px, of the agent's place in the block's frame
SCALES = (4.0, 16.0, 64.0, 256.0)  # px, of what is missing to the goal
ANGLES = (0.03, 0.12, 0.5)  # rad, likewise


def features(agent: Tensor, keypoints: Tensor) -> Tensor:
    """Features (..., F) of the agent (..., 2) and the block's keypoints (..., 16), both in px.

    In PushT all lie within [-1, 1]: the positions themselves; the block's angle; what is missing to the goal,
    in the world's frame and in the block's, at several scales (tanh); and the agent in the block's frame, as
    waves of several lengths.
    """
    place, cos, sin = _pose(keypoints)
    goal = _constants(agent.dtype, agent.device)[0]
    scales, angles, waves = _scales(agent.dtype, agent.device)
    missing = goal - place
    goal_cos, goal_sin = math.cos(GOAL_POSE[2]), math.sin(GOAL_POSE[2])
    turn = torch.atan2(cos * goal_sin - sin * goal_cos, cos * goal_cos + sin * goal_sin)
    own = _into_frame(agent - place, cos, sin)
    missing_own = _into_frame(missing, cos, sin)
    near = torch.stack([missing, missing_own], dim=-2)[..., None, :] / scales  # (..., 2, S, 2)
    far = torch.stack([own, agent - place], dim=-2)[..., None, :] / scales[2:]
    diagonal = torch.stack([own.sum(dim=-1), own[..., 0] - own[..., 1]], dim=-1) / math.sqrt(2)
    phases = torch.stack([own, diagonal], dim=-2)[..., None, :] * waves  # (..., 2, W, 2)
    parts = [
        torch.cat([agent, keypoints], dim=-1) / (WORLD_SIZE / 2) - 1,
        cos,
        sin,
        torch.cos(turn),
        torch.sin(turn),
        torch.tanh(torch.cat([turn / angles, near.flatten(-3), far.flatten(-3)], dim=-1)),
        torch.stack([torch.sin(phases), torch.cos(phases)], dim=-2).flatten(-4),
    ]
    return torch.cat(parts, dim=-1)


def _pose(keypoints: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Place (..., 2) px, cosine and sine (..., 1) of the block that has these keypoints (..., 16)."""
    _, middle, model = _constants(keypoints.dtype, keypoints.device)
    seen = keypoints.unflatten(-1, (8, 2))
    seen_middle = seen.mean(dim=-2)
    seen = seen - seen_middle[..., None, :]
    cos = (seen * model).sum(dim=(-2, -1))
    sin = (seen[..., 1] * model[:, 0] - seen[..., 0] * model[:, 1]).sum(dim=-1)
    length = torch.hypot(cos, sin).clamp_min(1e-6)
    cos, sin = (cos / length)[..., None], (sin / length)[..., None]
    turned = torch.cat([middle[0] * cos - middle[1] * sin, middle[0] * sin + middle[1] * cos], dim=-1)
    return seen_middle - turned, cos, sin


@lru_cache
def _constants(dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """The goal's place (2,), the middle (2,) of a block at 0, 0, 0, and its keypoints (8, 2) about that."""
    with torch.inference_mode(False):  # training may use them too
        corners = torch.from_numpy(block_keypoints([0.0, 0.0, 0.0])).to(device, dtype).unflatten(-1, (8, 2))
        middle = corners.mean(dim=0)
        return torch.tensor(GOAL_POSE[:2], dtype=dtype, device=device), middle, corners - middle


@lru_cache
def _scales(dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """The scales (S, 1) px, the angles (3,) rad, and the wave numbers (W, 1) a px."""
    with torch.inference_mode(False):
        scales, angles = torch.tensor(SCALES, dtype=dtype), torch.tensor(ANGLES, dtype=dtype)
        waves = torch.tensor([2 * math.pi / each for each in WAVELENGTHS], dtype=dtype)
        return scales[:, None].to(device), angles.to(device), waves[:, None].to(device)


def _into_frame(vector: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Vectors (..., 2) of the world in the frame turned by the angle of ``cos`` and ``sin`` (..., 1)."""
    x, y = vector[..., :1], vector[..., 1:]
    return torch.cat([x * cos + y * sin, y * cos - x * sin], dim=-1)


SIZE = features(torch.zeros(2), torch.arange(16.0)).shape[-1]


class PushTFeatures(ObservationProcessorStep):
    """Replaces ``observation.environment_state``, (..., 16) px, by ``features``, (..., SIZE)."""

    def observation(self, observation: dict[str, Any]) -> dict[str, Any]:
        agent, keypoints = observation[OBS_STATE], observation[OBS_ENV_STATE]
        return {**observation, OBS_ENV_STATE: features(agent, keypoints)}

    def transform_features(
        self, features: dict[PipelineFeatureType, dict[str, PolicyFeature]]
    ) -> dict[PipelineFeatureType, dict[str, PolicyFeature]]:
        observations = {**features[PipelineFeatureType.OBSERVATION], OBS_ENV_STATE: FEATURE}
        return {**features, PipelineFeatureType.OBSERVATION: observations}


FEATURE = PolicyFeature(type=FeatureType.ENV, shape=(SIZE,))


def input_features() -> dict[str, PolicyFeature]:
    """The input features of a policy behind ``PushTFeatures``."""
    return {OBS_STATE: PolicyFeature(type=FeatureType.STATE, shape=(2,)), OBS_ENV_STATE: FEATURE}


class AgentRelativeActions(RelativeActionsProcessorStep):
    """LeRobot's relative actions for observations with a history: relative to the agent's last place.

    LeRobot's step takes states (B, 2); with ``n_obs_steps`` above 1 they are (B, T, 2). Only the latest place
    is kept to add back, so a policy has to predict at every step: ``n_action_steps`` is 1.
    """

    _registry_name = None  # LeRobot's name would bring back LeRobot's step

    def __call__(self, transition: EnvTransition) -> EnvTransition:
        observation = transition.get(TransitionKey.OBSERVATION)
        state = None if observation is None else observation.get(OBS_STATE)
        if state is None or state.ndim < 3:
            return super().__call__(transition)
        now = {**transition, TransitionKey.OBSERVATION: {**observation, OBS_STATE: state[:, -1]}}
        return {**super().__call__(now), TransitionKey.OBSERVATION: observation}


def check(config: PreTrainedConfig, steps: Iterable[object], folder: Path) -> None:
    """Raise IlBenchError where a policy does not fit the steps of its preprocessor.

    Either only one of the two knows of `features`, or the policy executes more than one relative action.
    """
    makes_features = any(isinstance(step, PushTFeatures) for step in steps)
    env_state = (config.input_features or {}).get(OBS_ENV_STATE)
    shape = env_state and tuple(env_state.shape)
    if (shape == (SIZE,)) != makes_features:
        raise IlBenchError(
            f"{folder}: the policy takes {OBS_ENV_STATE!r} of shape {shape}, and its preprocessor "
            f"{'makes' if makes_features else 'does not make'} {SIZE} features of the keypoints; "
            "config.json and policy_preprocessor.json must come from the same training run."
        )
    relative = any(isinstance(step, RelativeActionsProcessorStep) and step.enabled for step in steps)
    n_action_steps = getattr(config, "n_action_steps", 1)
    if relative and n_action_steps != 1:
        raise IlBenchError(
            f"{folder / 'config.json'}: n_action_steps is {n_action_steps}; actions relative to the agent "
            "allow 1: a later action would be added to a place the agent has left."
        )
