"""What the installed ``lerobot-train`` takes: flags, their defaults, and how it reads a command line."""

import contextlib
import dataclasses
import logging
import typing
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from types import UnionType
from typing import Any

import draccus
from lerobot.configs import PreTrainedConfig
from lerobot.configs.parser import PluginLoadError, load_plugin
from lerobot.configs.train import TrainPipelineConfig
from lerobot.utils.import_utils import register_third_party_plugins

import il_bench.policies  # noqa: F401  (registers il_bc, il_bet and il_vqbet)
from il_bench.errors import IlBenchError

VERSION = version("lerobot")
DISCOVER = "policy.discover_packages_path"
# What lerobot-train reads itself, before draccus does.
PLUGINS = (DISCOVER, "env.discover_packages_path")
READ_BEFORE = ("config_path", "policy.path", "reward_model.path", *PLUGINS)
# What draccus says of a configuration that raised, whose own words are in the cause.
REFUSED = "Couldn't instantiate class"
# What may be given in several kinds, and the flag that says which.
KINDS = ("policy", "env", "reward_model", "optimizer", "scheduler", "sample_weighting")


def defaults(flags: Mapping[str, str]) -> dict[str, Any]:
    """Every flag that ``lerobot-train`` takes beside ``flags``, with its default; ``...`` where it has none.

    Args:
        flags: of a command line; ``policy.type`` and the like among them decide what else there is.
    """
    _load_plugins(flags)
    with _quiet():
        return dict(_walk(TrainPipelineConfig, "", flags)) | dict.fromkeys(READ_BEFORE)


def policy_fields(policy_type: str) -> dict[str, Any]:
    """Fields of the policy's configuration, with their defaults.

    Raises:
        IlBenchError: the installed LeRobot has no such policy.
    """
    try:
        config = PreTrainedConfig.get_choice_class(policy_type)
    except KeyError:
        raise IlBenchError(f"LeRobot {VERSION} has no policy of type {policy_type!r}.") from None
    with _quiet():
        return {field.name: _default(field) for field in dataclasses.fields(config)}


def read(flags: Mapping[str, str]) -> TrainPipelineConfig:
    """What ``lerobot-train`` makes of ``flags``; nothing is trained, made or fetched.

    Raises:
        IlBenchError: LeRobot refuses the line, in LeRobot's words.
    """
    _load_plugins(flags)
    given = {name: value for name, value in flags.items() if name not in READ_BEFORE}
    if "policy.path" in flags:  # the policy's own flags are for the configuration at that path
        given = {name: value for name, value in given.items() if not name.startswith("policy.")}
    try:
        # As draccus.parse does it, but for argparse, which takes seconds to list the flags of every policy.
        values = {name: draccus.cfgparsing.parse_string(value) for name, value in given.items()}
        with _quiet():
            nested = draccus.utils.deflatten(values, sep=".")
            config: TrainPipelineConfig = draccus.decode(TrainPipelineConfig, nested)
    except Exception as error:  # draccus, and whatever a configuration's own check raises
        raise IlBenchError(f"LeRobot {VERSION}: {_reason(error)}") from None
    return config


def _load_plugins(flags: Mapping[str, str]) -> None:
    """Policies and environments of other packages, as ``lerobot-train`` finds them."""
    register_third_party_plugins()
    for name in PLUGINS:
        if name in flags:
            try:
                load_plugin(flags[name])
            except PluginLoadError as error:
                raise IlBenchError(f"--{name}={flags[name]}: {_last_line(str(error))}") from None


def _walk(config: Any, prefix: str, flags: Mapping[str, str]) -> Iterator[tuple[str, Any]]:
    hints = typing.get_type_hints(config)
    for field in dataclasses.fields(config):
        if not field.init:
            continue
        name = prefix + field.name
        yield name, _default(field)
        inner = _dataclass_in(hints[field.name])
        if inner is None:
            continue
        if issubclass(inner, draccus.ChoiceRegistry):
            yield f"{name}.type", ...
            inner = _kind(inner, flags.get(f"{name}.type"))
        if inner is not None:
            yield from _walk(inner, f"{name}.", flags)


def _kind(registry: Any, choice: str | None) -> Any:
    try:
        return registry.get_choice_class(choice)
    except KeyError:  # not given, or not a kind there is: draccus says so
        return None


def _dataclass_in(hint: Any) -> Any:
    """The dataclass of a hint such as ``X``, ``X | None``."""
    is_union = typing.get_origin(hint) in (typing.Union, UnionType)
    options = typing.get_args(hint) if is_union else (hint,)
    for option in options:
        if isinstance(option, type) and dataclasses.is_dataclass(option):
            return option
    return None


def _default(field: "dataclasses.Field[Any]") -> Any:
    if field.default is not dataclasses.MISSING:
        return field.default
    return ... if field.default_factory is dataclasses.MISSING else field.default_factory()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without LeRobot's warnings of devices and video decoders: those are the trainer's concern."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def _reason(error: BaseException) -> str:
    """What draccus says is wrong; where a configuration's own check refused a value, what that says."""
    if REFUSED in str(error):
        while error.__cause__ is not None:
            error = error.__cause__
    return " ".join(str(error).split())


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    return lines[-1] if lines else "the command line is not understood"
