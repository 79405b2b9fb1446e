"""Which policies a run takes: those that --il-policy names, or the shipped ones.

Every pytest run loads this module where il_bench is installed: standard library only.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from il_bench import zoo
from il_bench.errors import IlBenchError, printable
from il_bench.protocol import CONTEXT, EXPERT, PIXELS


class PolicyChoice(NamedTuple):
    """One `--il-policy`: `label` as written, `source` for `load_policy`, `name` if given as NAME=PATH.

    `environment`: where it is rolled out, unless in PushT. `in_process`: a project's function makes it, so no
    other process can load it. `version`: of a project's code, which has no hash. `has_journal`: whether
    weights and version say all that its episodes depend on.
    """

    label: str
    source: str
    name: str | None = None
    environment: str | None = None
    in_process: bool = False
    version: str | None = None
    has_journal: bool = True

    @property
    def gate_name(self) -> str:
        """The name of its row and of its gates; a policy meets act's gates only as act or act=PATH."""
        return printable(self.name or self.label)


def shipped(track: str) -> tuple[PolicyChoice, ...]:
    """Every policy of a track that ships with il_bench and is here."""
    return tuple(PolicyChoice(name, zoo.spec_of(name, track)) for name in zoo.shipped(track))


def named(
    labels: Sequence[str], track: str, folder: Path, projects: Mapping[str, PolicyChoice]
) -> tuple[PolicyChoice, ...]:
    """What --il-policy names, each once. IlBenchError: two have one name, or something names nothing.

    folder: where relative paths begin. projects: what the project has added, by name.
    """
    chosen: dict[str, PolicyChoice] = {}
    for label in dict.fromkeys(labels):
        policy = projects.get(label) or _named(label, track, folder, (*zoo.shipped(track), EXPERT, *projects))
        other = chosen.setdefault(policy.gate_name, policy)
        if other is not policy:
            raise IlBenchError(
                f"--il-policy: {other.label} and {label} would both be called {policy.gate_name}; give one "
                "another name (NAME=PATH)"
            )
    return tuple(chosen.values())


def _named(label: str, track: str, folder: Path, offered: Sequence[str]) -> PolicyChoice:
    try:
        name, spec = zoo.split_name(label, folder)
        if (name or label) in CONTEXT and label != EXPERT:
            raise IlBenchError(
                f"{label!r}: {name or label} is one of il_bench's own rows; give the policy another name "
                "(NAME=PATH)"
            )
        found = zoo.resolve(spec, folder, offered, track)
        return PolicyChoice(label, found.spec, name or (found.name if found.track == PIXELS else None))
    except IlBenchError as error:
        raise IlBenchError(f"--il-policy: {error}") from None


def none_shipped(track: str) -> IlBenchError:
    """The error of a run that names no policy on a track that il_bench ships none for."""
    why = f" ({zoo.GET_PIXELS})" if track == PIXELS else ""
    return IlBenchError(
        f"--il-track {track}: il_bench ships no policy for it{why}; name yours with --il-policy PATH|HUB_ID"
    )
