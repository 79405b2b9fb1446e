"""A checkpoint's pre- and post-processor: only trusted steps are made.

LeRobot imports whatever module a step's ``class`` names and calls what it finds there. Here a step must be a
`ProcessorStep` of `lerobot.processor`, of il_bench, of the policy's own package or of an installed
``lerobot_policy_*`` one; and no step may load Python code from the Hub.
"""

import importlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lerobot.configs import PreTrainedConfig
from lerobot.policies.factory import make_pre_post_processors
from lerobot.processor import ProcessorStep, ProcessorStepRegistry

from il_bench.errors import IlBenchError
from il_bench.files import read_json
from il_bench.policies.checkpoint import weights
from il_bench.policies.checkpoint.configuration import THIRD_PARTY, third_party_packages
from il_bench.policies.checkpoint.types import wrong_type

PROCESSORS = ("policy_preprocessor.json", "policy_postprocessor.json")
#: Steps for robots; one loads a network from the Hub, with its code.
_OF_ROBOTS = "lerobot.processor.hil_processor"
_TRUST = "trust_remote_code"
#: Python code that writes the processors of a folder; DATASET stands for the id of its data set.
MAKE_PROCESSORS = (
    "import il_bench.policies; from lerobot.configs import PreTrainedConfig as C; "
    "from lerobot.policies.factory import make_pre_post_processors as make; "
    "from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata as M; "
    "[p.save_pretrained({folder!r}) for p in make(C.from_pretrained({folder!r}), "
    "dataset_stats=M('DATASET').stats)]"
)


def load_processors(folder: Path, config: PreTrainedConfig, device: str) -> tuple[Any, Any]:
    """Make the pre- and the post-processor that a checkpoint's files describe, on a device."""
    steps, _ = [_checked_steps(folder / name, config) for name in PROCESSORS]
    # LeRobot refuses to override a step that is missing.
    has_device = any(step.get("registry_name") == "device_processor" for step in steps)
    overrides = {"device_processor": {"device": device}} if has_device else {}
    try:
        pre, post = make_pre_post_processors(
            config, pretrained_path=str(folder), preprocessor_overrides=overrides
        )
    except Exception as error:  # whatever a step raises about its settings or its state
        raise IlBenchError(
            f"{folder}: {' and '.join(PROCESSORS)} do not make processors in this LeRobot: {error}"
        ) from None
    return pre, post


def _checked_steps(path: Path, config: PreTrainedConfig) -> list[dict[str, Any]]:
    """The steps in a file; IlBenchError if it is missing or damaged, or if a step is not to be trusted."""
    if not path.exists():
        raise IlBenchError(
            f"{path}: missing. A pretrained_model folder holds {' and '.join(PROCESSORS)}, or neither where "
            "an older LeRobot wrote it; fetch it again."
        )
    steps: list[dict[str, Any]] | None = read_json(path, "fetch it again.").get("steps")
    if not isinstance(steps, list) or not all(isinstance(step, dict) for step in steps):
        raise IlBenchError(f"{path}: steps is not a list of steps, as LeRobot writes it; fetch it again.")
    for number, step in enumerate(steps):
        where = f"{path}: steps.{number}"
        step_class = _class_of(step, config, where)
        settings = step.get("config", {})
        if not isinstance(settings, dict):
            raise IlBenchError(
                f"{where}.config = {settings!r:.60} is not an object with fields; fetch it again."
            )
        if wrong := wrong_type(step_class, settings):
            raise IlBenchError(f"{where}.config.{wrong}; fetch it again, or correct the field.")
        if settings.get(_TRUST, getattr(step_class, _TRUST, False)):
            raise IlBenchError(
                f"{where}: {_TRUST} is true: the step would run code from the Hub; il_bench "
                "runs no code from a checkpoint."
            )
        state = str(step.get("state_file", ".safetensors"))
        if Path(state).name != state or not state.endswith(".safetensors"):
            raise IlBenchError(
                f"{where}: state_file {state!r} is not a .safetensors file in the folder, and no other "
                "kind of file is read."
            )
        if "state_file" in step:
            try:
                weights.table(path.with_name(state))  # LeRobot would look for a missing one on the Hub
            except IlBenchError as error:
                raise IlBenchError(f"{where}.state_file: {error}") from None
    return steps


def _class_of(step: dict[str, Any], config: PreTrainedConfig, where: str) -> type[ProcessorStep]:
    """The class of a step; IlBenchError unless it may be made. Modules of other packages are not imported."""
    is_registered = "registry_name" in step
    step_name = str(step["registry_name"] if is_registered else step.get("class", ""))
    packages = ["lerobot.processor", "il_bench.policies", type(config).__module__.rpartition(".")[0]]
    if step_name.startswith(THIRD_PARTY):  # to list what is installed takes 50 ms
        packages += third_party_packages()
    found: object = None
    if is_registered:
        try:
            found = ProcessorStepRegistry.get(step_name)
        except KeyError:
            raise IlBenchError(
                f"{where}: registry_name {step_name!r}: no installed package provides this step; "
                "install the one that does."
            ) from None
    elif _is_in(step_name, packages):
        module, _, name = step_name.rpartition(".")
        try:
            found = getattr(importlib.import_module(module), name, None)
        except Exception as error:  # the module is not there, or what somebody else's raises
            raise IlBenchError(
                f"{where}: {step_name}: {module} cannot be imported here "
                f"({type(error).__name__}: {error}); install what it needs."
            ) from None
    module = str(getattr(found, "__module__", "")) or step_name
    # A package that has registered a step was imported already, not by the checkpoint. LeRobot itself
    # registers steps for robots.
    is_users_own = is_registered and not _is_in(module, ("lerobot",))
    if module == _OF_ROBOTS or not (is_users_own or _is_in(module, packages)):
        raise IlBenchError(
            f"{where}: {step_name} is not a step of {', '.join(packages)}, so it is neither imported nor run."
        )
    if not (isinstance(found, type) and issubclass(found, ProcessorStep)):
        raise IlBenchError(
            f"{where}: {step_name} is not one of LeRobot's ProcessorSteps, so il_bench does not run it."
        )
    return found


def _is_in(module: str, packages: Iterable[str]) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)
