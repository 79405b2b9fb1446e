"""A checkpoint's ``config.json``: what policy it describes, and whether that fits PushT.

Its type is looked up among the installed policies; it cannot have anything else imported or run.
"""

import importlib
from dataclasses import fields
from importlib import metadata
from pathlib import Path
from typing import Any

import draccus
import lerobot
from lerobot.configs import PreTrainedConfig
from lerobot.utils.constants import OBS_ENV_STATE, OBS_STATE

import il_bench.policies  # noqa: F401  (registers its types of policies)
from il_bench.errors import IlBenchError
from il_bench.files import read_json
from il_bench.policies import pusht_features
from il_bench.policies.checkpoint import old_format
from il_bench.policies.checkpoint.types import wrong_type
from il_bench.protocol import KEYPOINTS, PIXELS
from il_bench.zoo import CONFIG

#: LeRobot looks for policies in installed distributions whose names begin with this.
THIRD_PARTY = "lerobot_policy_"
#: LeRobot's policies that run the Python code of a Hub repository: all of a type, or those with this field.
_RUN_REMOTE_CODE = {"gaussian_actor": "vision_encoder_name", "groot": "", "pi0_fast": "", "wall_x": ""}
#: Lengths of time, and the most that can be meant: some policies make tables of them step by step.
_LENGTHS = {
    **dict.fromkeys(("n_obs_steps", "n_action_steps", "chunk_size", "horizon"), 10_000),
    **dict.fromkeys(("num_train_timesteps", "num_inference_steps"), 1_000_000),
}
_LARGEST_IMAGE = 4096  # px a side


def read_config(folder: Path, device: str) -> PreTrainedConfig:
    """The configuration of the policy in ``folder``, of any type, written by this or an older LeRobot.

    IlBenchError names the type that is not installed, or the field that is unknown or has a wrong type or
    value.
    """
    path = folder / CONFIG
    content = old_format.modernised(read_json(path, "fetch it again."), path)
    config_class = _class_of(content, path)
    unknown = content.keys() - {"type", *(field.name for field in fields(config_class))}
    if unknown:
        raise IlBenchError(
            f"{path}: unknown field {', '.join(map(repr, sorted(unknown)))}: "
            f"type {content['type']!r} of LeRobot {lerobot.__version__} has none. Install the LeRobot that "
            "wrote it, or remove what the policy does not depend on."
        )
    if wrong := wrong_type(config_class, content) or _wrong_length(content):
        raise IlBenchError(f"{path}: {wrong}; fetch it again, or correct the field.")
    if content.get("use_peft"):
        raise IlBenchError(
            f"{path}: use_peft: the folder holds an adapter, not a policy; merge it into its base policy and "
            "save that."
        )
    try:
        config: PreTrainedConfig = draccus.decode(PreTrainedConfig, {**content, "device": device})
    except Exception as error:  # draccus has its own errors around ValueError, TypeError and KeyError
        reason = error if getattr(error, "key_path", ()) else error.__cause__ or error
        raise IlBenchError(f"{path}: not a configuration of {content['type']}: {reason}") from None
    if hasattr(config, "pretrained_backbone_weights"):  # the checkpoint's weights replace them
        config.pretrained_backbone_weights = None
    config.pretrained_path = folder
    return config


def track_of(config: PreTrainedConfig, spec: str) -> str:
    """``keypoints`` or ``pixels``, from the features; IlBenchError names the one that does not fit PushT."""
    expected = {OBS_STATE: [(2,)], OBS_ENV_STATE: [(16,), (pusht_features.SIZE,)]}
    inputs, images = config.input_features or {}, list(config.image_features)
    for key, feature in inputs.items():
        shape = tuple(feature.shape)
        if not (_is_image(shape) if key in images else shape in expected.get(key, [])):
            raise IlBenchError(
                f"{spec}: input feature {key!r} of shape {shape} does not fit PushT, which gives "
                f"{OBS_STATE!r} (2,) and {OBS_ENV_STATE!r} (16,) or one image (3, height, width), of at most "
                f"{_LARGEST_IMAGE} px a side."
            )
    if len(images) > 1:
        raise IlBenchError(f"{spec}: PushT has one camera; the policy asks for {', '.join(images)}.")
    if images and OBS_ENV_STATE in inputs:
        raise IlBenchError(
            f"{spec}: the policy asks for {images[0]!r} and {OBS_ENV_STATE!r}; PushT gives "
            "an image or keypoints, not both."
        )
    if not inputs:
        raise IlBenchError(f"{spec}: input_features is empty: the policy does not say what it sees.")
    action = config.action_feature and tuple(config.action_feature.shape)
    if action != (2,):
        raise IlBenchError(f"{spec}: output feature 'action' of shape {action} does not fit PushT's (2,).")
    return PIXELS if images else KEYPOINTS


def _is_image(shape: tuple[int, ...]) -> bool:
    return len(shape) == 3 and shape[0] == 3 and all(1 <= side <= _LARGEST_IMAGE for side in shape[1:])


def _wrong_length(content: dict[str, Any]) -> str:
    """What is wrong with the first length of time that is none; "" where none is."""
    for name, most in _LENGTHS.items():
        if isinstance(found := content.get(name), int) and not 1 <= found <= most:
            return f"{name} = {found}: has to be between 1 and {most:,}"
    return ""


def third_party_packages() -> tuple[str, ...]:
    """Names of the installed distributions that LeRobot looks for policies in."""
    names = {str(each.metadata["Name"]) for each in metadata.distributions()}
    return tuple(sorted(name for name in names if name.startswith(THIRD_PARTY)))


def _class_of(content: dict[str, Any], path: Path) -> type[PreTrainedConfig]:
    """The configuration class of a type; for an unknown one, import the installed packages of policies."""
    policy_type = content["type"]
    if not isinstance(policy_type, str):
        raise IlBenchError(
            f"{path}: type = {policy_type!r:.60}; that is not the name of a policy type; fetch it again."
        )
    field = _RUN_REMOTE_CODE.get(policy_type)
    if field == "" or (field and content.get(field) is not None):
        name = f"{field} {content[field]!r:.60}" if field else f"type {policy_type!r}"
        raise IlBenchError(
            f"{path}: {name}: LeRobot runs code from the Hub to load such a policy, so il_bench does not "
            "load it."
        )
    known = PreTrainedConfig.get_known_choices
    seen = [] if policy_type in known() else list(map(_import, third_party_packages()))
    if policy_type not in known():
        raise IlBenchError(
            f"{path}: type {policy_type!r} is not a policy type of LeRobot {lerobot.__version__} or of "
            "an installed "
            f"package called {THIRD_PARTY}* (here: {'; '.join(seen) or 'none'}); install the package that "
            f"brings it, such as {THIRD_PARTY}{policy_type}."
        )
    return PreTrainedConfig.get_choice_class(policy_type)  # type: ignore[no-any-return]


def _import(package: str) -> str:
    """Import a package of policies, as LeRobot's commands do; return its name, and what is wrong with it."""
    try:
        importlib.import_module(package)
    except Exception as error:  # whatever somebody else's package raises
        return f"{package}, which cannot be imported ({type(error).__name__}: {error})"
    return package
