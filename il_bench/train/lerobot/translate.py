"""A command line of an older ``lerobot-train``, spelled for the installed one; a note on every change."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from il_bench.errors import IlBenchError
from il_bench.train.lerobot import installed
from il_bench.train.lerobot.changes import BEFORE, DEFAULTS, NO_UPLOAD, RENAMED
from il_bench.train.recipes.pixel_recipe import spell

OURS = {"bc": "il_bc", "bet": "il_bet"}


@dataclass(frozen=True)
class Line:
    """A command line for the installed ``lerobot-train``.

    Attributes:
        flags: by dotted name, in the order they are given.
        notes: one sentence for everything that was changed.
    """

    flags: dict[str, str]
    notes: list[str]


def split(words: list[str]) -> dict[str, str]:
    """Flags of a command line by their dotted names; ``--name=value`` and ``--name value`` alike.

    Raises:
        IlBenchError: for a word that is no flag, a flag without a value, or one given twice.
    """
    if words and words[0] == "lerobot-train":
        words = words[1:]
    flags: dict[str, str] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--") or word == "--":
            raise IlBenchError(f"{word!r} is no flag of lerobot-train; give --name=value.")
        name, separator, value = word[2:].partition("=")
        if not separator:
            if not rest or rest[0].startswith("--"):
                raise IlBenchError(f"--{name} has no value; give --{name}=value.")
            value = rest.pop(0)
        if name in flags:
            raise IlBenchError(f"--{name} is given twice, as {flags[name]} and {value}; give it once.")
        flags[name] = value
    return flags


def translate(flags: Mapping[str, str]) -> Line:
    """Rename what is called otherwise now, and pin the defaults of LeRobot 0.4.4 that have changed.

    Raises:
        IlBenchError: for a policy LeRobot does not have, a flag that is gone, or one there never was, naming
            the nearest.
    """
    notes: list[str] = []
    renamed = _rename(flags, notes)
    policy = renamed.get("policy.type")
    if policy in OURS:
        raise IlBenchError(
            f"--policy.type={policy}: LeRobot has no such policy; il_bench has --policy.type={OURS[policy]} "
            f"and `il-bench train {policy} --track pixels`."
        )
    if policy is not None and policy.startswith("il_") and installed.DISCOVER not in renamed:
        renamed = {installed.DISCOVER: "il_bench.policies", **renamed}
        notes.append(f"--{installed.DISCOVER}=il_bench.policies: so that LeRobot finds {policy}.")
    check_known(renamed)
    _pin(renamed, policy, notes)
    return Line(renamed, notes)


def check_known(flags: Mapping[str, str]) -> None:
    """Raise IlBenchError for a flag that the installed ``lerobot-train`` lacks, naming the nearest."""
    known = installed.defaults(flags)
    for name in flags:
        if name in known or name in {f"{kind}.type" for kind in installed.KINDS}:
            continue
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f"; the nearest is --{near[0]}" if near else ""
        kind = flags.get("policy.type")
        of = f" with --policy.type={kind}" if name.startswith("policy.") and kind else ""
        raise IlBenchError(f"--{name}: LeRobot {installed.VERSION} has no such flag{of}{hint}.")


def _rename(flags: Mapping[str, str], notes: list[str]) -> dict[str, str]:
    table = {change.before: change for change in RENAMED}
    known = installed.defaults(flags)
    result: dict[str, str] = {}
    for name, value in flags.items():
        change = table.get(name)
        if change is None or name in known:
            result[name] = value
        elif change.now is None:
            raise IlBenchError(f"--{name}: gone since LeRobot {BEFORE}; give {change.instead}.")
        elif change.now in flags:
            raise IlBenchError(f"--{name} and --{change.now} are one flag, renamed; give the second alone.")
        else:
            result[change.now] = value
            notes.append(f"--{name} is called --{change.now} in LeRobot {installed.VERSION}.")
    return result


def _pin(flags: dict[str, str], policy: str | None, notes: list[str]) -> None:
    """Add the defaults of 0.4.4 that ``flags`` leaves open and the installed LeRobot has changed."""
    known = installed.defaults(flags)
    for change in DEFAULTS:
        of_policy = change.policy is None or change.policy == policy
        if (
            not of_policy
            or change.flag in flags
            or _same(known.get(change.flag, change.before), change.before)
        ):
            continue
        flags[change.flag] = spell(change.before)
        notes.append(
            f"--{change.flag}={spell(change.before)}: as in LeRobot {BEFORE}; {installed.VERSION} has "
            f"{spell(_plain(known[change.flag]))} ({change.effect})."
        )
    name, value, reason = NO_UPLOAD
    if policy is not None and name not in flags and "policy.repo_id" not in flags:
        flags[name] = value
        notes.append(f"--{name}={value}: {reason}.")


def _same(installed_value: Any, before: Any) -> bool:
    return bool(_plain(installed_value) == before)


def _plain(value: Any) -> Any:
    """A default as the table writes it: a list for a tuple, ``"null"`` for None."""
    if value is None:
        return "null"
    return list(value) if isinstance(value, tuple) else value
