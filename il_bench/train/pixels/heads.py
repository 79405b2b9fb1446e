"""Train a policy's head, everything but its image encoder, on what the frozen eye says of demonstrations.

The loop is that of keypoint policies. While the head trains, the encoder is a ``Passes``, which hands on what
the cache holds; what is saved is the whole policy, LeRobot's, with the eye in it.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lerobot.configs import PreTrainedConfig
from lerobot.policies.factory import get_policy_class
from lerobot.policies.pretrained import PreTrainedPolicy
from lerobot.utils.constants import ACTION, OBS_ENV_STATE, OBS_IMAGE, OBS_STATE
from safetensors.torch import load_file
from torch import Tensor, nn

from il_bench.data import Windows
from il_bench.errors import IlBenchError
from il_bench.train import batches
from il_bench.train.loop import Trainer, without_prints
from il_bench.train.pixels.cache import eye_file, seen_by
from il_bench.train.pixels.eye import ENCODERS, NUM_KEYPOINTS, encoder_state, load_eye
from il_bench.train.pixels.taught import TaughtVQBeT
from il_bench.train.recipes import Recipe

KEYS = (OBS_STATE, ACTION, f"{ACTION}_is_pad")
#: What the eye demands of every policy: no crop, no group norm, no weights of ImageNet, one encoder.
_ENCODER = {
    "vision_backbone": "resnet18",
    "pretrained_backbone_weights": None,
    "crop_shape": None,
    "use_group_norm": False,
    "spatial_softmax_num_keypoints": NUM_KEYPOINTS,
    "use_separate_rgb_encoder_per_camera": False,
}


class HeadTrainer(Trainer):
    """A run that trains a head on an eye; otherwise a ``Trainer``.

    Args:
        eye: the eye's file, or the folder of its run.
        on_seen: takes how many frames the eye has seen, and of how many, while the cache is filled.
    """

    def __init__(
        self,
        recipe: Recipe,
        source: str,
        *,
        eye: Path,
        on_seen: Callable[[int, int], None] = lambda done, of: None,
        **options: Any,
    ) -> None:
        kind = recipe.policy.get("type")
        if kind not in ENCODERS:
            others = ", ".join(sorted(ENCODERS))
            raise IlBenchError(
                f"{recipe.source}: policy.type = {kind!r}: cannot be trained on an eye; {others} can."
            )
        self._eye_file, self._on_seen = eye_file(eye), on_seen
        super().__init__(recipe, source, **options)

    def _config(self) -> PreTrainedConfig:
        return batches.policy_config(self.recipe, self.device, _ENCODER)

    def _network(self, config: PreTrainedConfig, dataset: Any) -> PreTrainedPolicy:
        kind = config.type
        policy = TaughtVQBeT(config) if kind == "vqbet" else get_policy_class(kind)(config)
        _replace_encoder(policy, Passes(kind == "act"))
        return policy

    def _cut_windows(self, dataset: Any, config: PreTrainedConfig) -> Windows:
        deltas = batches.delta_timestamps(config, dataset.fps)
        if OBS_STATE in deltas:
            deltas["index"] = deltas[OBS_STATE]
        windows = Windows(dataset, deltas)
        windows.stats.pop(OBS_ENV_STATE, None)  # the policy does not see it
        features, maps, sha256 = seen_by(self._eye_file, windows, self._on_seen)
        self._seen: Any = maps if config.type == "act" else np.ascontiguousarray(features)
        self._eye_sha256 = sha256
        return windows

    def _describe_data(self, dataset: Any, name: str) -> dict[str, Any]:
        return {**super()._describe_data(dataset, name), "eye": self._eye_sha256}

    def _batch(self, frames: Tensor) -> dict[str, Tensor]:
        raw = self.windows.batch(frames)
        processed = self.preprocessor({key: raw[key] for key in KEYS})
        batch: dict[str, Tensor] = {key: processed[key] for key in KEYS}
        rows = frames if raw["index"].ndim == 1 else raw["index"]
        seen = torch.from_numpy(self._seen[rows.numpy()]).float().to(self.device)
        batch[OBS_IMAGE] = seen if self.policy.config.type == "act" else seen[..., None, None]
        return batch

    @property
    def whole_policy(self) -> PreTrainedPolicy:
        """The averaged policy with the eye in it, as LeRobot's class."""
        averaged = self.average.policy
        kind = averaged.config.type
        with without_prints():
            whole: PreTrainedPolicy = get_policy_class(kind)(averaged.config)
        eye = encoder_state(load_eye(self._eye_file), kind)
        inside = {f"{ENCODERS[kind]}.{name}": tensor for name, tensor in eye.items()}
        whole.load_state_dict({**averaged.state_dict(), **inside})
        return whole.eval()

    def _load_average(self, path: Path) -> None:
        prefix = f"{ENCODERS[self.policy.config.type]}."
        state = {name: tensor for name, tensor in load_file(path).items() if not name.startswith(prefix)}
        self.average.policy.load_state_dict(state)

    def restore(self) -> None:
        """Continue as ``Trainer`` does."""
        super().restore()
        if isinstance(self.policy, TaughtVQBeT):
            self.policy.resume_at(self.step)


class Passes(nn.Module):
    """In place of the image encoder while a head trains: hands on what the eye said."""

    def __init__(self, is_map: bool) -> None:
        super().__init__()
        self.is_map = is_map

    def forward(self, seen: Tensor) -> Tensor | dict[str, Tensor]:
        """Maps (B, 512, 3, 3) as ACT's backbone returns them; features (B, 128, 1, 1) as (B, 128)."""
        return {"feature_map": seen} if self.is_map else seen.flatten(1)


def _replace_encoder(policy: PreTrainedPolicy, encoder: nn.Module) -> None:
    where, _, name = ENCODERS[policy.config.type].rpartition(".")
    setattr(policy.get_submodule(where), name, encoder)
