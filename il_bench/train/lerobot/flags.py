"""The flags of the installed ``lerobot-train``: their names, their defaults, and how it reads them."""

import contextlib
import dataclasses
import difflib
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

import il_bench.policies  # noqa: F401  (registers its types of policies)
from il_bench.errors import IlBenchError

VERSION = version("lerobot")
DISCOVER = "policy.discover_packages_path"
DISCOVERS = (DISCOVER, "env.discover_packages_path")
# lerobot-train reads these itself, before draccus.
READ_BEFORE = ("config_path", "policy.path", "reward_model.path", *DISCOVERS)
# What draccus says when a configuration raises; the configuration's own message is in the cause.
REFUSED = "Couldn't instantiate class"


def split(words: list[str]) -> dict[str, str]:
    """The flags of a command line, ``--name=value`` or ``--name value``, by their dotted names.

    Raises IlBenchError for a word that is not a flag, a flag without a value, or one given twice.
    """
    flags: dict[str, str] = {}
    rest = words[1:] if words[:1] == ["lerobot-train"] else list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--") or word == "--":
            raise IlBenchError(f"{word!r} is not a flag of lerobot-train; give --name=value.")
        name, separator, value = word[2:].partition("=")
        if not separator:
            if not rest or rest[0].startswith("--"):
                raise IlBenchError(f"--{name} has no value; give --{name}=value.")
            value = rest.pop(0)
        if name in flags:
            raise IlBenchError(f"--{name} is given twice, as {flags[name]} and {value}; give it once.")
        flags[name] = value
    return flags


def defaults(flags: Mapping[str, str]) -> dict[str, Any]:
    """Every flag that ``lerobot-train`` takes, with its default, or ``...`` if it has none.

    They depend on ``policy.type`` and other types among ``flags``.
    """
    _load_plugins(flags)
    with _quiet():
        return dict(_walk(TrainPipelineConfig, "", flags)) | dict.fromkeys(READ_BEFORE)


def policy_fields(policy_type: str) -> dict[str, Any]:
    """The fields of a policy's configuration with their defaults; an IlBenchError for an unknown policy."""
    try:
        config = PreTrainedConfig.get_choice_class(policy_type)
    except KeyError:
        raise IlBenchError(f"LeRobot {VERSION} has no policy of type {policy_type!r}.") from None
    with _quiet():
        return {field.name: _default(field) for field in dataclasses.fields(config)}


def read(flags: Mapping[str, str]) -> TrainPipelineConfig:
    """The configuration that ``lerobot-train`` reads from ``flags``; an IlBenchError in LeRobot's words."""
    _load_plugins(flags)
    given = {name: value for name, value in flags.items() if name not in READ_BEFORE}
    if "policy.path" in flags:  # the policy's flags belong to the configuration at that path
        given = {name: value for name, value in given.items() if not name.startswith("policy.")}
    try:
        # As draccus.parse does, but without argparse, which takes seconds to list the flags of every policy.
        values = {name: draccus.cfgparsing.parse_string(value) for name, value in given.items()}
        with _quiet():
            nested = draccus.utils.deflatten(values, sep=".")
            config: TrainPipelineConfig = draccus.decode(TrainPipelineConfig, nested)
    except Exception as error:  # draccus's, or whatever a configuration's own check raises
        cause: BaseException = error
        while REFUSED in str(error) and cause.__cause__ is not None:
            cause = cause.__cause__
        raise IlBenchError(f"LeRobot {VERSION}: {cause}") from None
    return config


def check_known(flags: Mapping[str, str]) -> None:
    """Raise IlBenchError for a flag that the installed ``lerobot-train`` lacks, naming the nearest."""
    known = defaults(flags)
    for name in flags:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            hint = f"; the nearest is --{near[0]}" if near else ""
            kind = flags.get("policy.type")
            of = f" with --policy.type={kind}" if name.startswith("policy.") and kind else ""
            raise IlBenchError(f"--{name}: LeRobot {VERSION} has no such flag{of}{hint}.")


def _load_plugins(flags: Mapping[str, str]) -> None:
    """Load policies and environments of other packages, as ``lerobot-train`` does."""
    register_third_party_plugins()
    for name in DISCOVERS:
        if name in flags:
            try:
                load_plugin(flags[name])
            except PluginLoadError as error:
                raise IlBenchError(f"--{name}={flags[name]}: {str(error).strip().splitlines()[-1]}") from None


def _walk(config: Any, prefix: str, flags: Mapping[str, str]) -> Iterator[tuple[str, Any]]:
    hints = typing.get_type_hints(config)
    for field in dataclasses.fields(config):
        if not field.init:
            continue
        name = prefix + field.name
        yield name, _default(field)
        inner = _dataclass_in(hints[field.name])
        if inner is not None and issubclass(inner, draccus.ChoiceRegistry):
            yield f"{name}.type", ...
            inner = inner.get_known_choices().get(flags.get(f"{name}.type"))
        if inner is not None:
            yield from _walk(inner, f"{name}.", flags)


def _dataclass_in(hint: Any) -> Any:
    """The dataclass in a hint such as ``X`` or ``X | None``."""
    is_union = typing.get_origin(hint) in (typing.Union, UnionType)
    options = typing.get_args(hint) if is_union else (hint,)
    return next((each for each in options if isinstance(each, type) and dataclasses.is_dataclass(each)), None)


def _default(field: "dataclasses.Field[Any]") -> Any:
    if field.default is not dataclasses.MISSING:
        return field.default
    return ... if field.default_factory is dataclasses.MISSING else field.default_factory()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence LeRobot's warnings of devices and video decoders, which matter to the trainer only."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
