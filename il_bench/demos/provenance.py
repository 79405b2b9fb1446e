"""Where demonstrations come from: `meta/il_bench.json` in a dataset's folder, which LeRobot leaves alone."""

import hashlib
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from il_bench.data.lerobot_folder import content_sha256
from il_bench.errors import IlBenchError
from il_bench.files import read_model, write_whole

FILE = Path("meta") / "il_bench.json"


class _Facts(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class EpisodeOrigin(_Facts):
    """Where one demonstration comes from."""

    seed: int  # of the start state
    steps: int  # of the expert
    max_coverage: float  # the expert's best; the last state's if it succeeded
    success: bool
    noise: float
    takeover: int | None = None  # how many steps a policy drove before; None without a policy


class Inputs(_Facts):
    """Everything that the data of a command depend on: equal inputs give equal data."""

    @classmethod
    def of(cls, dataset: Path) -> "Inputs | None":
        """What the dataset in a folder was made from, None if it does not say."""
        raise NotImplementedError


class MakeInputs(Inputs):
    """What the data of `il-bench demos make` depend on."""

    episodes: int
    seed: int
    noise: float
    expert: str  # sha256 of the sources of `il_bench.pusht`
    policy: dict[str, Any] | None  # its name, sha256, takeover_max and only_unsolved
    fingerprint: dict[str, Any]  # `machine.fingerprint()`

    @classmethod
    def of(cls, dataset: Path) -> "MakeInputs | None":
        """See `Inputs.of`; merged data do not say."""
        parts = read(dataset).parts
        return parts[0].made if len(parts) == 1 else None


class Part(_Facts):
    """A run of episodes that were made together; `command` and `made` are of `il-bench demos make`."""

    n_episodes: int
    source: str | None = None  # what it was merged from
    command: str | None = None
    made: MakeInputs | None = None
    left_out: list[EpisodeOrigin] = []  # those that the expert did not solve; they are not in the data


class Provenance(_Facts):
    """The whole file. episodes: one entry an episode of the dataset, None where nothing is known."""

    schema_version: Literal[1] = 1
    parts: list[Part]
    episodes: list[EpisodeOrigin | None]
    sha256: dict[str, str] | None = None  # `content_sha256` of the dataset, None of il_bench 0.1

    @property
    def left_out(self) -> list[EpisodeOrigin]:
        """The left-out episodes of all parts."""
        return [episode for part in self.parts for episode in part.left_out]

    @staticmethod
    def unknown(n_episodes: int) -> "Provenance":
        """The provenance of data that do not say where they come from."""
        return Provenance(parts=[Part(n_episodes=n_episodes)], episodes=[None] * n_episodes)

    def named(self, source: str) -> "Provenance":
        """Return a copy with `source` for the parts that name no source yet."""
        parts = [part.model_copy(update={"source": part.source or source}) for part in self.parts]
        return self.model_copy(update={"parts": parts})


def read(root: Path, n_episodes: int | None = None) -> Provenance:
    """Read a dataset's provenance, `Provenance.unknown` without the file.

    n_episodes: how many the dataset has, if known. Raises IlBenchError that names the file and wrong field.
    """
    path = root / FILE
    if not path.exists():
        return Provenance.unknown(n_episodes or 0)
    way_out = "make the data again, or remove this file to do without it"
    found = read_model(Provenance, path, way_out)
    if n_episodes not in (None, len(found.episodes)):
        listed = len(found.episodes)
        raise IlBenchError(f"{path}: lists {listed} episodes, but the data hold {n_episodes}; {way_out}")
    return found


def write(root: Path, facts: BaseModel, file: Path = FILE) -> None:
    """Write a dataset's provenance, with hashes of its data, or other facts into a file of its folder."""
    if isinstance(facts, Provenance):
        facts = facts.model_copy(update={"sha256": content_sha256(root)})
    write_whole(root / file, (facts.model_dump_json(indent=1) + "\n").encode())


def pusht_sha256() -> str:
    """One hash of the expert's sources and of the simulator's: all of `il_bench.pusht`."""
    digest = hashlib.sha256()
    for path in sorted(Path(str(files("il_bench") / "pusht")).glob("*.py")):
        digest.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
