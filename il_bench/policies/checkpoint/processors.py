"""A checkpoint's pre- and post-processor: what its files may bring in, and whether they know what they need.

LeRobot imports whatever module a step's ``class`` names and calls what it finds there. Here a step must be a
`ProcessorStep` of `lerobot.processor`, of il_bench, of the policy's own package or of an installed
``lerobot_policy_*`` one; and no step may load Python code from the Hub.
"""

import importlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from lerobot.configs import NormalizationMode, PreTrainedConfig
from lerobot.policies.factory import make_pre_post_processors
from lerobot.processor import (
    NormalizerProcessorStep,
    ProcessorStep,
    ProcessorStepRegistry,
    UnnormalizerProcessorStep,
)
from lerobot.utils.constants import ACTION

from il_bench.errors import IlBenchError
from il_bench.policies.checkpoint import old_format
from il_bench.policies.checkpoint.configuration import THIRD_PARTY, third_party_packages
from il_bench.policies.checkpoint.locating import PROCESSORS, WEIGHTS, check_weights

#: Steps of robots; one loads a network of the Hub, with its code.
_OF_ROBOTS = "lerobot.processor.hil_processor"
_TRUST = "trust_remote_code"
#: Run with the data set's id put in, it writes the files that are missing.
_MAKE = (
    "import il_bench.policies; from lerobot.configs import PreTrainedConfig as C; "
    "from lerobot.policies.factory import make_pre_post_processors as make; "
    "from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata as M; "
    "[p.save_pretrained({folder!r}) for p in make(C.from_pretrained({folder!r}), "
    "dataset_stats=M('DATASET').stats)]"
)


def load_processors(folder: Path, config: PreTrainedConfig, device: str) -> tuple[Any, Any]:
    """The pre- and the post-processor of a checkpoint, on a device; an old one's out of its weights.

    Raises:
        IlBenchError: naming the file or step that is missing, damaged or not to be trusted.
    """
    if not any((folder / name).exists() for name in PROCESSORS):
        return _of_old_format(folder, config)
    for name in PROCESSORS:
        _check(folder / name, config)
    try:
        pre, post = make_pre_post_processors(
            config,
            pretrained_path=str(folder),
            preprocessor_overrides=_on(device, _steps(folder / PROCESSORS[0])),
        )
    except Exception as error:  # whatever a step raises that does not like its settings or its state
        reason = " ".join(str(error).split())
        raise IlBenchError(
            f"{folder}: {' and '.join(PROCESSORS)} do not make processors in this LeRobot: {reason}"
        ) from None
    return pre, post


def _on(device: str, steps: list[dict[str, Any]]) -> dict[str, Any]:
    """LeRobot's overrides that put a preprocessor on a device; it refuses one of a step that is not there."""
    name = "device_processor"
    return {name: {"device": device}} if any(step.get("registry_name") == name for step in steps) else {}


def _of_old_format(folder: Path, config: PreTrainedConfig) -> tuple[Any, Any]:
    check_weights(folder)
    if not old_format.normalises_itself(folder / WEIGHTS):
        raise IlBenchError(
            f"{folder / PROCESSORS[0]}: missing, and {WEIGHTS} holds no normalisation either, as an older "
            "LeRobot kept it there. Make both processors from the data set the policy was trained on, its id "
            f'in the place of DATASET: python -c "{_MAKE.format(folder=str(folder))}"'
        )
    _, stats = old_format.read_weights(folder / WEIGHTS, config)
    pre, post = make_pre_post_processors(config, dataset_stats=stats)
    return pre, post


def _check(path: Path, config: PreTrainedConfig) -> None:
    """Raise IlBenchError for a file that is missing or damaged, or a step that is not to be trusted."""
    if not path.exists():
        raise IlBenchError(
            f"{path}: missing. A pretrained_model folder holds {' and '.join(PROCESSORS)}, or neither where "
            "an older LeRobot wrote it; fetch it again."
        )
    for number, step in enumerate(_steps(path)):
        where = f"{path}: steps.{number}"
        step_class = _class_of(step, config, where)
        if (step.get("config") or {}).get(_TRUST, getattr(step_class, _TRUST, False)):
            raise IlBenchError(
                f"{where}: {_TRUST} is true: the step would run code from the Hub; nothing of a "
                "checkpoint is run."
            )
        state = str(step.get("state_file", ".safetensors"))
        if Path(state).name != state or not state.endswith(".safetensors"):
            raise IlBenchError(
                f"{where}: state_file {state!r} is no .safetensors file of the folder, and no other is read."
            )


def _steps(path: Path) -> list[dict[str, Any]]:
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise IlBenchError(f"{path}: not readable as JSON ({error}); fetch it again.") from None
    steps = said.get("steps") if isinstance(said, dict) else None
    if not isinstance(steps, list) or not all(isinstance(step, dict) for step in steps):
        raise IlBenchError(f"{path}: steps is no list of steps, as LeRobot writes it; fetch it again.")
    return steps


def _class_of(step: dict[str, Any], config: PreTrainedConfig, where: str) -> type[ProcessorStep]:
    """The class of a step, if it is one of those that may be made; else IlBenchError.

    A module is imported only if it belongs to a package that may bring one in.
    """
    is_registered = "registry_name" in step
    said = str(step["registry_name"] if is_registered else step.get("class", ""))
    packages = _packages(said, config)
    found: object = None
    if is_registered:
        found = _registered(said, where)
    elif _is_in(said, packages):
        found = _imported(said)
    module = str(getattr(found, "__module__", "")) or said
    # Who registered a step was imported before, and not by the checkpoint. LeRobot has some for robots.
    is_somebodys = is_registered and not _is_in(module, ("lerobot",))
    if module == _OF_ROBOTS or not (is_somebodys or _is_in(module, packages)):
        raise IlBenchError(
            f"{where}: {said} is no step of {', '.join(packages)}, so it is neither imported nor run."
        )
    if not (isinstance(found, type) and issubclass(found, ProcessorStep)):
        raise IlBenchError(f"{where}: {said} is no ProcessorStep of LeRobot's, so it is not run.")
    return found


def _packages(path: str, config: PreTrainedConfig) -> tuple[str, ...]:
    """Packages that may bring a step in; to list the installed ones of policies takes 50 ms."""
    usual = ("lerobot.processor", "il_bench.policies", type(config).__module__.rpartition(".")[0])
    return (*usual, *third_party_packages()) if path.startswith(THIRD_PARTY) else usual


def _registered(name: str, where: str) -> object:
    try:
        found: object = ProcessorStepRegistry.get(name)
    except KeyError:
        raise IlBenchError(
            f"{where}: registry_name {name!r}: no package installed here has such a step; install the one "
            "that brings it."
        ) from None
    return found


def _imported(path: str) -> object:
    module, _, name = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name, None)
    except ImportError:
        return None


def _is_in(module: str, packages: Iterable[str]) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def check_statistics(preprocessor: Any, postprocessor: Any, folder: Path) -> None:
    """Raise IlBenchError where LeRobot would pass a feature on as it is, for lack of its statistics."""
    needed = [
        *_normalised(preprocessor.steps, NormalizerProcessorStep),
        *_normalised(postprocessor.steps, UnnormalizerProcessorStep),
    ]
    for step, key, mode in needed:
        is_of_before = isinstance(step, NormalizerProcessorStep)
        if (key == ACTION) == is_of_before or key in (step.stats or {}):
            continue
        file = PROCESSORS[0] if is_of_before else PROCESSORS[1]
        raise IlBenchError(
            f"{folder / file}: normalises {key!r} by {mode}, but has no statistics of it (it has them of "
            f"{', '.join(step.stats or {}) or 'nothing'}), so LeRobot would pass it on in px; save the "
            "processors again, with the data set's statistics."
        )


def _normalised(steps: Iterable[ProcessorStep], kind: type[ProcessorStep]) -> Iterator[tuple[Any, str, str]]:
    """Each step of a kind with each feature that it changes, and by which rule."""
    for step in steps:
        if not isinstance(step, kind):
            continue
        chosen = step.normalize_observation_keys
        for key, feature in step.features.items():
            if chosen is not None and key not in chosen and key != ACTION:
                continue
            mode = step.norm_map.get(feature.type, NormalizationMode.IDENTITY)
            if mode is not NormalizationMode.IDENTITY:
                yield step, key, mode.value
