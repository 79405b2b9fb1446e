"""Where demonstrations come from: `meta/il_bench.json` in a dataset's folder, which LeRobot leaves alone."""

import hashlib
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from il_bench.errors import IlBenchError, wrong_field
from il_bench.files import write_whole

FILE = Path("meta") / "il_bench.json"


class EpisodeOrigin(BaseModel):
    """Where one demonstration comes from.

    seed: of the start state. steps: of the expert. max_coverage: its best; the last state's if it succeeded.
    takeover: how many steps a policy drove before; None without a policy.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: int
    steps: int
    max_coverage: float
    success: bool
    noise: float
    takeover: int | None = None


class Inputs(BaseModel):
    """Everything that the data of a command depend on: equal inputs give equal data."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    def differences(self, other: "Inputs") -> list[str]:
        """One text a field that differs: 'noise 0.1 instead of 0.0'."""
        mine, theirs = _flat(self.model_dump()), _flat(other.model_dump())
        return [
            f"{name} {theirs.get(name)!r} instead of {mine.get(name)!r}"
            for name in {**mine, **theirs}
            if mine.get(name) != theirs.get(name)
        ]


class MakeInputs(Inputs):
    """What the data of `il-bench demos make` depend on.

    expert: sha256 of the sources of `il_bench.pusht`. policy: name, sha256, takeover_max and only_unsolved,
    None without. fingerprint: versions and arithmetic, `machine.fingerprint()`.
    """

    episodes: int
    seed: int
    noise: float
    expert: str
    policy: dict[str, Any] | None
    fingerprint: dict[str, Any]


class Part(BaseModel):
    """A run of episodes that were made together.

    n_episodes: how many of the dataset's episodes. source: what it was merged from. command, made: None for
    data that `il-bench demos make` did not make. left_out: episodes that the expert did not solve, which are
    not in the data.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    n_episodes: int
    source: str | None = None
    command: str | None = None
    made: MakeInputs | None = None
    left_out: list[EpisodeOrigin] = []


class Provenance(BaseModel):
    """The whole file. episodes: one entry an episode of the dataset, None where nothing is known."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = 1
    parts: list[Part]
    episodes: list[EpisodeOrigin | None]

    @property
    def left_out(self) -> list[EpisodeOrigin]:
        """The episodes that the expert did not solve, which are not in the data."""
        return [episode for part in self.parts for episode in part.left_out]

    @staticmethod
    def unknown(n_episodes: int) -> "Provenance":
        """Of data that say nothing about where they come from."""
        return Provenance(parts=[Part(n_episodes=n_episodes)], episodes=[None] * n_episodes)

    def named(self, source: str) -> "Provenance":
        """Return it with `source` for the parts that name no source yet."""
        parts = [part.model_copy(update={"source": part.source or source}) for part in self.parts]
        return self.model_copy(update={"parts": parts})


def read(root: Path, n_episodes: int | None = None) -> Provenance | None:
    """Read a dataset's provenance, None if it has none.

    n_episodes: how many the dataset has, where that is known.

    Raises:
        IlBenchError: naming the file and the field that is wrong.
    """
    path = root / FILE
    if not path.exists():
        return None
    way_out = "make the data again, or remove this file to do without it"
    try:
        found = Provenance.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise IlBenchError(f"{path}: {wrong_field(error)}; {way_out}") from None
    if n_episodes not in (None, len(found.episodes)):
        told = len(found.episodes)
        raise IlBenchError(f"{path}: tells of {told} episodes and the data hold {n_episodes}; {way_out}")
    return found


def write(root: Path, provenance: Provenance) -> None:
    """Write a dataset's provenance.

    Raises:
        OSError: it cannot be written.
    """
    write_whole(root / FILE, (provenance.model_dump_json(indent=1) + "\n").encode())


def pusht_sha256() -> str:
    """One hash of the expert's sources and of the simulator's: all of `il_bench.pusht`."""
    digest = hashlib.sha256()
    for path in sorted(Path(str(files("il_bench") / "pusht")).glob("*.py")):
        digest.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat
