"""What the policies share: they predict chunks of actions from PushT's keypoints or from its image."""

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


def min_max_mapping() -> dict[str, NormalizationMode]:
    """Every low-dimensional feature to [-1, 1]; LeRobot's own defaults leave ``ENV`` as it is."""
    return dict.fromkeys(("STATE", "ENV", "ACTION"), NormalizationMode.MIN_MAX)


@dataclass
class ChunkingConfig(PreTrainedConfig):
    """Fields of `il_bc` and `il_bet`, on keypoints or on one image."""

    n_obs_steps: int = 2  # observations the policy sees: the current one and those before it
    chunk_size: int = 8  # steps of the action chunk it predicts, from the current step on
    n_action_steps: int = 8  # steps of the chunk it executes before it predicts again
    relative_actions: bool = True  # relative to the agent's current (normalised) position
    normalization_mapping: dict[str, NormalizationMode] = field(default_factory=min_max_mapping)
    # Of the image encoder, as in LeRobot's VQ-BeT; unused without an image.
    vision_backbone: str = "resnet18"
    crop_shape: tuple[int, int] | None = (84, 84)
    crop_is_random: bool = True
    pretrained_backbone_weights: str | None = None
    use_group_norm: bool = True
    spatial_softmax_num_keypoints: int = 32
    # Presets for `lerobot-train`.
    optimizer_lr: float = 1e-3
    optimizer_weight_decay: float = 1e-4
    scheduler_warmup_steps: int = 500
    # Unused: with `--policy.path`, LeRobot 0.6 passes its flag of this name on to the configuration.
    discover_packages_path: str | None = None
    reward_delta_indices = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.n_action_steps <= self.chunk_size:
            raise ValueError(
                f"n_action_steps is {self.n_action_steps}; chunk_size allows 1 .. {self.chunk_size}."
            )
        if self.n_obs_steps < 1:
            raise ValueError(f"n_obs_steps is {self.n_obs_steps}; it must be at least 1.")

    def validate_features(self) -> None:
        """Raise ValueError unless agent and keypoints, or agent and an image, are mapped to an action."""
        check_features(self, observation_keys(self)[1])
        for key, feature in self.image_features.items():
            (height, width), crop = feature.shape[1:], self.crop_shape
            if crop is not None and (crop[0] > height or crop[1] > width):
                raise ValueError(
                    f"crop_shape is {tuple(crop)}; it has to fit into {key!r} of {height} x {width}."
                )

    @property
    def observation_delta_indices(self) -> list[int]:
        return list(range(1 - self.n_obs_steps, 1))

    @property
    def action_delta_indices(self) -> list[int]:
        return list(range(self.chunk_size))

    def get_optimizer_preset(self) -> OptimizerConfig:
        return AdamWConfig(lr=self.optimizer_lr, weight_decay=self.optimizer_weight_decay)

    def get_scheduler_preset(self) -> CosineDecayWithWarmupSchedulerConfig:
        return CosineDecayWithWarmupSchedulerConfig(
            num_warmup_steps=self.scheduler_warmup_steps,
            num_decay_steps=100_000,
            peak_lr=self.optimizer_lr,
            decay_lr=self.optimizer_lr / 100,
        )


def check_features(config: Any, block: str = OBS_ENV_STATE) -> None:
    """Raise ValueError unless the inputs are the agent's state and ``block``, the output an action."""
    seen = sorted(config.input_features or {})
    if seen != sorted((OBS_STATE, block)):
        raise ValueError(
            f"{config.type} takes two input features, {OBS_STATE!r} and {block!r}; it got {seen}."
        )
    if config.action_feature is None:
        raise ValueError(f"{config.type} needs {ACTION!r} among its output features.")


def observation_keys(config: Any) -> tuple[str, str]:
    """The two observations of a policy: the agent's position, and the image or else the block's keypoints."""
    return OBS_STATE, next(iter(config.image_features), OBS_ENV_STATE)


def l1_loss(predicted: Tensor, target: Tensor, is_pad: Tensor) -> Tensor:
    """Mean L1 loss of chunks (B, W, 2) over the steps that lie inside the episode."""
    inside = ~is_pad  # (B, W)
    error = (predicted - target).abs().mean(dim=-1)
    return (error * inside).sum() / inside.sum().clamp_min(1)


class BlockEncoder(nn.Module):
    """Keypoints (B, T, 16) as they are, or images (B, T, 3, H, W) through an image encoder: (B, T, F).

    The encoder is that of LeRobot's VQ-BeT and Diffusion Policy: a ResNet with spatial softmax on random
    crops, in evaluation on the middle one. For keypoints this module has no parameters.
    """

    def __init__(self, config: Any) -> None:
        super().__init__()
        self._key = observation_keys(config)[1]
        self.rgb_encoder = VQBeTRgbEncoder(config) if config.image_features else None
        shape = config.input_features[self._key].shape  # (16,) or (3, H, W)
        self.feature_dim: int = self.rgb_encoder.feature_dim if self.rgb_encoder else shape[0]

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
        lengths = dict.fromkeys(observation_keys(self.config), self.config.n_obs_steps)
        lengths[ACTION] = self.config.n_action_steps
        self._queues: dict[str, deque[Tensor]] = {key: deque(maxlen=n) for key, n in lengths.items()}

    @abstractmethod
    def predict(self, batch: dict[str, Tensor]) -> Tensor:
        """The chunk (B, W, 2) for ``observation.state`` (B, T, 2) and the keypoints (B, T, 16) or image."""

    def origin(self, batch: dict[str, Tensor]) -> Tensor:
        """The position (B, 1, 2) that chunks are relative to: the agent's, or 0 for absolute actions."""
        return batch[OBS_STATE][:, -1:] * self.config.relative_actions  # type: ignore[no-any-return]

    @torch.no_grad()
    def predict_action_chunk(self, batch: dict[str, Tensor], **kwargs: Any) -> Tensor:
        """The chunk (B, W, 2), normalised, for the observations seen so far, or at first for ``batch``."""
        if self._queues[OBS_STATE]:
            keys = observation_keys(self.config)
            batch = {key: torch.stack(list(self._queues[key]), dim=1) for key in keys}
        return self.predict(batch)

    @torch.no_grad()
    def select_action(self, batch: dict[str, Tensor], **kwargs: Any) -> Tensor:
        """One action (B, 2), normalised, for the observations of one step (B, .)."""
        self.eval()
        populate_queues(self._queues, batch, exclude_keys=[ACTION])
        queue = self._queues[ACTION]
        if not queue:
            actions = self.predict_action_chunk(batch)[:, : self.config.n_action_steps]
            queue.extend(actions.transpose(0, 1))
        return queue.popleft()

    def get_optim_params(self) -> Any:
        """All parameters, in one group."""
        return self.parameters()
