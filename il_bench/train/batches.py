"""What a policy needs for training: its configuration, its windows of the data, and its processors."""

import copy
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import draccus
import numpy as np
import torch
from lerobot.configs import FeatureType, PolicyFeature, PreTrainedConfig
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.policies.factory import get_policy_class, make_policy, make_pre_post_processors
from lerobot.policies.pretrained import PreTrainedPolicy
from lerobot.processor import AbsoluteActionsProcessorStep, RelativeActionsProcessorStep
from lerobot.utils.constants import ACTION, OBS_ENV_STATE, OBS_IMAGE, OBS_STATE
from torch import Tensor

import il_bench.policies  # noqa: F401  (registers its types of policies)
from il_bench.data import Windows
from il_bench.data.lerobot_folder import read_column
from il_bench.errors import IlBenchError
from il_bench.policies import pusht_features
from il_bench.policies.checkpoint.types import wrong_type
from il_bench.train.recipes import Recipe, nearest

READ = (OBS_STATE, OBS_ENV_STATE, ACTION)  # the features of a dataset that training reads
#: Of each weight: itself, its gradient, Adam's two moments and the average, 4 bytes each.
_BYTES = 20
BATCH_KEYS = (*READ, f"{ACTION}_is_pad")


def policy_config(recipe: Recipe, device: str, encoder: Mapping[str, Any] | None = None) -> PreTrainedConfig:
    """LeRobot's configuration from a recipe; an IlBenchError if LeRobot refuses its type or a field.

    With ``encoder``, the policy sees an image in place of keypoints, and has those of these fields it knows.
    """
    where, given = f"{recipe.source}: policy", {**recipe.policy, "device": device, "push_to_hub": False}
    kind, known = given.get("type"), PreTrainedConfig.get_known_choices()
    if not isinstance(kind, str) or kind not in known:
        near = nearest(str(kind), known)
        raise IlBenchError(f"{where}.type = {kind!r:.60}: LeRobot has no such policy{near}.")
    names = {field.name for field in fields(known[kind]) if field.init}
    if unknown := sorted(given.keys() - names - {"type"}):
        near = nearest(unknown[0], names)
        raise IlBenchError(f"{where}.{unknown[0]}: {kind} has no such field{near}.")
    given |= {name: value for name, value in (encoder or {}).items() if name in names}
    for name, value in recipe.policy.items():
        try:
            json.dumps(value, allow_nan=False)  # what it is noted as
        except (ValueError, TypeError):  # TypeError: a date, which TOML has
            raise IlBenchError(f"{where}.{name} = {value!r:.60}: not finite numbers or text.") from None
    if wrong := wrong_type(known[kind], given):
        raise IlBenchError(f"{where}.{wrong}.")
    try:
        config: PreTrainedConfig = draccus.decode(PreTrainedConfig, given)
    except Exception as error:  # draccus has its own errors around ValueError and KeyError
        cause = error.__cause__ or error
        raise IlBenchError(f"{where} ({kind}): {cause}") from None
    # Left to itself, LeRobot would take every feature of the data that is called observation or action.
    config.input_features = {
        OBS_STATE: PolicyFeature(FeatureType.STATE, (2,)),
        OBS_ENV_STATE: PolicyFeature(FeatureType.ENV, (16,)),
    }
    config.output_features = {ACTION: PolicyFeature(FeatureType.ACTION, (2,))}
    if recipe.processing.pusht_features:
        config.input_features = pusht_features.input_features()
    if encoder is not None:
        del config.input_features[OBS_ENV_STATE]
        config.input_features[OBS_IMAGE] = PolicyFeature(FeatureType.VISUAL, (3, 96, 96))
    return config


def make_network(recipe: Recipe, config: PreTrainedConfig, dataset: LeRobotDataset) -> PreTrainedPolicy:
    """The policy of a configuration, with weights drawn by torch's generator.

    Raises IlBenchError if LeRobot cannot make it, or if it would not fit into this machine's memory.
    """
    where = f"{recipe.source}: policy ({config.type})"
    _check_memory(config, where)
    try:
        policy: PreTrainedPolicy = make_policy(config, ds_meta=dataset.meta)
    except Exception as error:  # sizes that do not fit one another, in the words of torch or of LeRobot
        raise IlBenchError(f"{where}: no network can be built from these fields: {error}") from None
    return policy


def _check_memory(config: PreTrainedConfig, where: str) -> None:
    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            network = get_policy_class(config.type)(copy.deepcopy(config))
        numbers = sum(weight.numel() for weight in network.state_dict().values())
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except Exception:  # what cannot be made without memory, or asked here, is not judged
        return
    if (needed := _BYTES * numbers) > memory:
        raise IlBenchError(
            f"{where}: {numbers:,} numbers take {needed / 1e9:,.0f} GB to train, and this machine has "
            f"{memory / 1e9:,.0f} GB; choose smaller dimensions"
        )


def processors(recipe: Recipe, config: PreTrainedConfig, windows: Windows) -> tuple[Any, Any]:
    """LeRobot's processors for the policy, with the recipe's steps inserted."""
    processing = recipe.processing
    preprocessor, postprocessor = make_pre_post_processors(config, dataset_stats=windows.stats)
    if processing.relative_actions:
        # Not enabled: the windows' actions are relative already. It remembers the place to be added again.
        relative = RelativeActionsProcessorStep(enabled=False)
        preprocessor.steps.insert(-2, relative)
        postprocessor.steps.insert(1, AbsoluteActionsProcessorStep(enabled=True, relative_step=relative))
    if processing.pusht_features:
        preprocessor.steps.insert(-1, pusht_features.PushTFeatures())
    return preprocessor, postprocessor


def delta_timestamps(config: PreTrainedConfig, fps: int) -> dict[str, list[float]]:
    """LeRobot's ``delta_timestamps`` for the policy's windows, in seconds."""
    result = {ACTION: [i / fps for i in config.action_delta_indices or [0]]}
    if (observations := config.observation_delta_indices) is not None:
        result |= {key: [i / fps for i in observations] for key in (OBS_STATE, OBS_ENV_STATE)}
    return result


def usable_frames(windows: Windows, drop_n_last_frames: int) -> Tensor:
    """The frames that windows may be taken at: all but the last few of each episode."""
    everything = torch.arange(len(windows))
    episodes = windows.batch(everything)["episode_index"]
    _, lengths = torch.unique_consecutive(episodes, return_counts=True)
    last = (lengths.cumsum(0) - 1).repeat_interleave(lengths)
    usable = everything[last - everything >= drop_n_last_frames]
    if len(usable) == 0:
        raise IlBenchError(f"No episode is longer than drop_n_last_frames = {drop_n_last_frames} frames.")
    return usable


def check_keypoints(dataset: LeRobotDataset, source: str | Path) -> None:
    """Raise IlBenchError unless the data hold PushT's keypoints."""
    if OBS_ENV_STATE not in dataset.meta.features:
        others = ", ".join(key for key in dataset.meta.features if key.startswith("observation."))
        raise IlBenchError(
            f"{source}: holds no keypoints ({OBS_ENV_STATE}), but {others}; to train on images, add "
            "--track pixels"
        )


def check_spread(dataset: LeRobotDataset, source: str | Path) -> None:
    """Raise IlBenchError for a column that is the same in every frame: nothing can be normalised by it."""
    for key in READ:
        column = read_column(dataset, key)
        same = np.flatnonzero(column.min(axis=0) == column.max(axis=0))
        if len(same):
            raise IlBenchError(
                f"{source}: {key}: column {same[0]} is {column[0, same[0]]:g} in every frame; normalised by "
                "its spread, any other value would be infinite: give data in which it varies"
            )


def describe_data(dataset: LeRobotDataset, name: str, windows: Windows) -> dict[str, Any]:
    """A record of the training data: name, size, and a hash of its states and actions."""
    columns = windows.batch(torch.arange(len(windows)))
    digest = hashlib.sha256()
    for column in (columns[key] for key in READ):
        of_frame = column if column.ndim == 2 else column[:, 0]
        digest.update(of_frame.contiguous().numpy().tobytes())
    return {
        "name": name,
        "episodes": dataset.meta.total_episodes,
        "frames": dataset.meta.total_frames,
        "sha256": digest.hexdigest(),
    }
