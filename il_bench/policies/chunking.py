"""What the policies here share: they predict chunks of actions from PushT's keypoints or from its image."""

from abc import abstractmethod
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import torch
from lerobot.configs import NormalizationMode, PreTrainedConfig
from lerobot.optim import AdamWConfig, CosineDecayWithWarmupSchedulerConfig, OptimizerConfig
from lerobot.policies.pretrained import PreTrainedPolicy
from lerobot.policies.utils import populate_queues
from lerobot.policies.vqbet.modeling_vqbet import VQBeTRgbEncoder
from lerobot.utils.constants import ACTION, OBS_ENV_STATE, OBS_STATE
from torch import Tensor, nn

KEYPOINT_KEYS = (OBS_STATE, OBS_ENV_STATE)


def min_max_mapping() -> dict[str, NormalizationMode]:
    """Every low-dimensional feature to [-1, 1]. LeRobot's own defaults leave ``ENV`` as it is."""
    return dict.fromkeys(("STATE", "ENV", "ACTION"), NormalizationMode.MIN_MAX)


@dataclass
class ChunkingConfig(PreTrainedConfig):
    """Fields of `il_bc` and `il_bet`, on keypoints or on one image.

    Args:
        n_obs_steps: observations the policy sees: the current one and those before it.
        chunk_size: steps of the action chunk it predicts, from the current step on.
        n_action_steps: steps of the chunk it executes before it predicts again.
        relative_actions: predict actions relative to the agent's current (normalised) position.
        vision_backbone, crop_shape, crop_is_random, pretrained_backbone_weights, use_group_norm,
            spatial_softmax_num_keypoints: of the image encoder, as in LeRobot's VQ-BeT; unused without an
            image.
        optimizer_lr, optimizer_weight_decay, scheduler_warmup_steps: presets for ``lerobot-train``.
        discover_packages_path: unused. LeRobot 0.6 hands its own flag of this name on to the configuration
            when ``--policy.path`` is given too, and would stop at an unknown field.
    """

    n_obs_steps: int = 2
    chunk_size: int = 8
    n_action_steps: int = 8
    relative_actions: bool = True
    normalization_mapping: dict[str, NormalizationMode] = field(default_factory=min_max_mapping)
    vision_backbone: str = "resnet18"
    crop_shape: tuple[int, int] | None = (84, 84)
    crop_is_random: bool = True
    pretrained_backbone_weights: str | None = None
    use_group_norm: bool = True
    spatial_softmax_num_keypoints: int = 32
    optimizer_lr: float = 1e-3
    optimizer_weight_decay: float = 1e-4
    scheduler_warmup_steps: int = 500
    discover_packages_path: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.n_action_steps <= self.chunk_size:
            raise ValueError(
                f"n_action_steps is {self.n_action_steps}; chunk_size allows 1 .. {self.chunk_size}."
            )
        if self.n_obs_steps < 1:
            raise ValueError(f"n_obs_steps is {self.n_obs_steps}; it must be at least 1.")

    def validate_features(self) -> None:
        """Raise ValueError unless agent and keypoints, or agent and image, lead to an action."""
        check_features(self, image=bool(self.image_features))
        for key, feature in self.image_features.items():
            size, crop = feature.shape[1:], self.crop_shape
            if crop is not None and (crop[0] > size[0] or crop[1] > size[1]):
                raise ValueError(
                    f"crop_shape is {tuple(crop)}; it has to fit into {key!r} of {size[0]} x {size[1]}."
                )

    @property
    def observation_delta_indices(self) -> list[int]:
        return list(range(1 - self.n_obs_steps, 1))

    @property
    def action_delta_indices(self) -> list[int]:
        return list(range(self.chunk_size))

    @property
    def reward_delta_indices(self) -> None:
        return None

    def get_optimizer_preset(self) -> OptimizerConfig:
        return AdamWConfig(lr=self.optimizer_lr, weight_decay=self.optimizer_weight_decay)

    def get_scheduler_preset(self) -> CosineDecayWithWarmupSchedulerConfig:
        return CosineDecayWithWarmupSchedulerConfig(
            num_warmup_steps=self.scheduler_warmup_steps,
            num_decay_steps=100_000,
            peak_lr=self.optimizer_lr,
            decay_lr=self.optimizer_lr / 100,
        )


def check_features(config: Any, *, image: bool) -> None:
    """Raise ValueError unless the policy acts on the agent's state and the keypoints, or instead an image."""
    inputs = config.input_features or {}
    keys = {OBS_STATE, *config.image_features} if image else set(KEYPOINT_KEYS)
    if set(inputs) != keys or len(keys) != 2:
        takes = f"{OBS_STATE!r} and one image" if image else f"{OBS_STATE!r} and {OBS_ENV_STATE!r}"
        raise ValueError(f"{config.type} takes the input features {takes}; it got {sorted(inputs)}.")
    if config.action_feature is None:
        raise ValueError(f"{config.type} needs {ACTION!r} among its output features.")


def observation_keys(config: Any) -> tuple[str, str]:
    """The two observations of a policy: the agent's position, and the block's keypoints or the image."""
    images = list(config.image_features)
    return (OBS_STATE, images[0]) if images else KEYPOINT_KEYS


class BlockEncoder(nn.Module):
    """Keypoints (B, T, 16) as they are, or images (B, T, 3, H, W) through an image encoder.

    The encoder is that of LeRobot's VQ-BeT and Diffusion Policy: a ResNet with spatial softmax on random
    crops, in evaluation on the middle one. For keypoints this module has no parameters.

    Attributes:
        feature_dim: F of the features (B, T, F) it returns.
    """

    def __init__(self, config: Any) -> None:
        super().__init__()
        self._key = observation_keys(config)[1]
        if config.image_features:
            self.rgb_encoder: nn.Module | None = VQBeTRgbEncoder(config)
            self.feature_dim: int = self.rgb_encoder.feature_dim
        else:
            self.rgb_encoder = None
            self.feature_dim = config.input_features[OBS_ENV_STATE].shape[0]

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        seen = batch[self._key]
        if self.rgb_encoder is None:
            return seen  # (B, T, F = 16)
        features: Tensor = self.rgb_encoder(seen.flatten(0, 1))  # (B * T, F)
        return torch.unflatten(features, 0, seen.shape[:2])  # (B, T, F)


class ChunkingPolicy(PreTrainedPolicy):
    """Observation history and action queue around ``predict``; subclasses bring network and loss."""

    config_class: Any = ChunkingConfig
    name: Any = "il_chunking"

    def reset(self) -> None:
        """Forget the episode: observations seen, actions queued."""
        n_obs_steps, n_action_steps = self.config.n_obs_steps, self.config.n_action_steps
        keys = observation_keys(self.config)
        self._queues: dict[str, deque[Tensor]] = {key: deque(maxlen=n_obs_steps) for key in keys}
        self._queues[ACTION] = deque(maxlen=n_action_steps)

    @abstractmethod
    def predict(self, batch: dict[str, Tensor]) -> Tensor:
        """The chunk (B, W, 2) for ``observation.state`` (B, T, 2) and the keypoints (B, T, 16) or image."""

    @torch.no_grad()
    def predict_action_chunk(self, batch: dict[str, Tensor], **kwargs: Any) -> Tensor:
        """The chunk (B, W, 2), normalised, for the observations seen so far, or at first for ``batch``."""
        if len(self._queues[OBS_STATE]) > 0:
            keys = observation_keys(self.config)
            batch = {key: torch.stack(list(self._queues[key]), dim=1) for key in keys}
        return self.predict(batch)

    @torch.no_grad()
    def select_action(self, batch: dict[str, Tensor], **kwargs: Any) -> Tensor:
        """One action (B, 2), normalised, for the observations of one step (B, .)."""
        self.eval()
        seen = {key: batch[key] for key in observation_keys(self.config)}
        self._queues = populate_queues(self._queues, seen)
        queue = self._queues[ACTION]
        if len(queue) == 0:
            actions = self.predict_action_chunk(batch)[:, : self.config.n_action_steps]
            queue.extend(actions.transpose(0, 1))
        return queue.popleft()

    def get_optim_params(self) -> Any:
        """All parameters, in one group."""
        return self.parameters()
