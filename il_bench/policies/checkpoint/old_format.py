"""Checkpoints of an older LeRobot: configurations under other names, the normalisation among the weights.

Until LeRobot 0.3 a policy normalised by itself, by buffers such as
``normalize_inputs.buffer_observation_state.mean`` in ``model.safetensors``; since then processors do, in
files of their own. Until the end of 2024 a configuration had no ``type``, and it had ``input_shapes`` and
``input_normalization_modes`` where features are now.

LeRobot 0.6.1's ``lerobot.processor.migrate_policy_normalization`` makes new folders out of old ones, but not
of the published PushT policies: of ``diffusion_pusht`` it writes an empty ``config.json`` and no weights
(huggingface/lerobot#4649), it stops at ``vqbet_pusht`` (lerobot#4655), and it takes every underscore of a
buffer's name for a dot, so that ``observation.environment_state`` would stay as it is, in px (lerobot#4460).
So old folders are read as they are.
"""

from pathlib import Path
from typing import Any, NamedTuple

import torch
from lerobot.configs import PreTrainedConfig
from safetensors import safe_open
from torch import Tensor

from il_bench.errors import IlBenchError

#: Fields that only one type of policy has ever had: they tell the type of a configuration without one.
_TYPE_BY_FIELD = {
    "noise_scheduler_type": "diffusion",
    "n_vqvae_training_steps": "vqbet",
    "n_vae_encoder_layers": "act",
}
#: Fields that are no more, and the value at which they changed nothing: any where nothing ever read them.
_ANY = object()
_UNUSED: dict[str, dict[str, Any]] = {
    "vqbet": {"mlp_hidden_dim": _ANY},
    "act": {"use_temporal_aggregation": False, "temporal_ensemble_momentum": None},
}
#: Fields that have another name today.
_RENAMED = {"act": {"d_model": "dim_model"}}
#: What policies did before a field existed, where LeRobot's default of today differs.
_OLD_DEFAULTS = {"diffusion": {"use_separate_rgb_encoder_per_camera": False}}
_NORMALISING = ("normalize_inputs.", "normalize_targets.", "unnormalize_outputs.")


class OldWeights(NamedTuple):
    """The weights of a policy that normalises by itself: its network, and the statistics of each feature."""

    network: dict[str, Tensor]
    stats: dict[str, dict[str, Tensor]]  # {"observation.state": {"min": (2,), "max": (2,)}, ..}


def modernised(old_fields: dict[str, Any], path: Path) -> dict[str, Any]:
    """The fields of a ``config.json`` at ``path`` as LeRobot calls them today, ``type`` among them.

    Raises IlBenchError if neither ``type`` nor the other fields say what policy it is.
    """
    fields = dict(old_fields)
    if "type" not in fields:
        fields["type"] = next((kind for field, kind in _TYPE_BY_FIELD.items() if field in fields), None)
    if fields["type"] is None:
        raise IlBenchError(
            f"{path}: field 'type' is missing, and the others do not say what policy it is; "
            'add it, such as "type": "act".'
        )
    if not isinstance(fields["type"], str):
        raise IlBenchError(
            f"{path}: type = {fields['type']!r:.60}; that is not the name of a policy type; fetch it again."
        )
    for name, value in _UNUSED.get(fields["type"], {}).items():
        if value is _ANY or fields.get(name, _ANY) is value:
            fields.pop(name, None)
    for name, now in _RENAMED.get(fields["type"], {}).items():
        if name in fields and now not in fields:
            fields[now] = fields.pop(name)
    if "input_shapes" in fields:
        fields = {**_OLD_DEFAULTS.get(fields["type"], {}), **_with_features(fields)}
    return fields


def read_weights(path: Path, config: PreTrainedConfig) -> OldWeights | None:
    """The weights in the ``model.safetensors`` of a policy that normalises by itself; None of any other.

    Raises IlBenchError for a statistic of no feature, or one that was never filled.
    """
    features = {**(config.input_features or {}), **(config.output_features or {})}
    by_buffer = {"buffer_" + key.replace(".", "_"): key for key in features}
    found = OldWeights({}, {})
    with safe_open(path, framework="pt") as file:
        if not any(name.startswith(_NORMALISING) for name in file.keys()):  # noqa: SIM118 (no dict)
            return None
        for name in file.keys():  # noqa: SIM118
            tensor = file.get_tensor(name)
            if not name.startswith(_NORMALISING):
                found.network[name] = tensor
                continue
            buffer, _, statistic = name.partition(".")[2].rpartition(".")
            if buffer not in by_buffer:
                raise IlBenchError(
                    f"{path}: {name}: a statistic of a feature that config.json does not have "
                    f"({', '.join(features)}); config.json and weights must come from the same training run."
                )
            if not torch.isfinite(tensor).all():
                raise IlBenchError(
                    f"{path}: {name} was never filled: the policy was saved without its data set's "
                    "statistics; save it again with them."
                )
            found.stats.setdefault(by_buffer[buffer], {})[statistic] = tensor
    return found


def _with_features(fields: dict[str, Any]) -> dict[str, Any]:
    """Turn shapes and modes of single keys into features, and modes of their kinds."""
    fields["normalization_mapping"] = {}
    for direction in ("input", "output"):
        modes = fields.pop(f"{direction}_normalization_modes", None) or {}
        fields["normalization_mapping"] |= {_kind(key): str(mode).upper() for key, mode in modes.items()}
        shapes = fields.pop(f"{direction}_shapes", None) or {}
        features = {key: {"type": _kind(key), "shape": shape} for key, shape in shapes.items()}
        fields[f"{direction}_features"] = features
    return fields


def _kind(key: str) -> str:
    """LeRobot's type of a feature, by its key."""
    if key.startswith("observation.image"):
        return "VISUAL"
    return {"action": "ACTION", "observation.environment_state": "ENV"}.get(key, "STATE")
