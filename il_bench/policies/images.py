"""Where the block is, as a policy sees it: its keypoints as they are, or features of the camera's image."""

from typing import Any

import torch
from lerobot.utils.constants import OBS_ENV_STATE, OBS_STATE
from torch import Tensor, nn

KEYPOINT_KEYS = (OBS_STATE, OBS_ENV_STATE)


def observation_keys(config: Any) -> tuple[str, str]:
    """The two observations of a policy: the agent's place, and the block's keypoints or the image."""
    images = list(config.image_features)
    return (OBS_STATE, images[0]) if images else KEYPOINT_KEYS


def check_image_features(config: Any) -> None:
    """Raise ValueError unless the inputs are the agent's place and one image that the crop fits in."""
    inputs, images = config.input_features, config.image_features
    if len(images) != 1 or set(inputs) != {OBS_STATE, *images}:
        raise ValueError(
            f"{config.type} takes {OBS_STATE!r} and one image, or {list(KEYPOINT_KEYS)}; "
            f"it got {sorted(inputs)}."
        )
    key, feature = next(iter(images.items()))
    height, width = feature.shape[1:]
    if config.crop_shape is not None and (config.crop_shape[0] > height or config.crop_shape[1] > width):
        raise ValueError(
            f"crop_shape is {tuple(config.crop_shape)}; it has to fit into {key!r} of {height} x {width}."
        )


class BlockEncoder(nn.Module):
    """Keypoints (B, T, 16) as they are; or images (B, T, 3, H, W) through LeRobot's encoder of VQ-BeT.

    That encoder is a ResNet with spatial softmax on random crops (the middle one in evaluation), the same as
    Diffusion Policy's. Keypoint policies have no parameters here.

    Attributes:
        feature_dim: F of the features (B, T, F) it returns.
    """

    def __init__(self, config: Any) -> None:
        super().__init__()
        self._key = observation_keys(config)[1]
        if config.image_features:
            from lerobot.policies.vqbet.modeling_vqbet import VQBeTRgbEncoder  # brings torchvision

            self.rgb_encoder: nn.Module | None = VQBeTRgbEncoder(config)
            self.feature_dim: int = self.rgb_encoder.feature_dim
        else:
            self.rgb_encoder = None
            self.feature_dim = config.input_features[OBS_ENV_STATE].shape[0]

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """The block's observation in ``batch``, (B, T, F)."""
        seen = batch[self._key]
        if self.rgb_encoder is None:
            return seen
        features: Tensor = self.rgb_encoder(seen.flatten(0, 1))
        return torch.unflatten(features, 0, seen.shape[:2])
