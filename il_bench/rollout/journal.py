"""Finished blocks of a rollout on disk, so that an interrupted run can be resumed.

There is one file of JSON lines for each policy and track. The first line says what the episodes depend on.
Every other line is a finished block; it is on the disk before the rollout continues:

    {"schema": 2, "policy": "act", "track": "keypoints", "sha256": "..", "first_seed": 200000, ..,
     "fingerprint": {"task": "PushT", .., "block_size": 50, .., "torch": "2.11.0", .., "device": "cpu"}}
    {"seconds": 1.9, "episodes": [{"seed": 200000, "success": true, "max_reward": 1.0, "n_steps": 93,
     "outside": 0, "final_coverage": 0.961, "best_coverage": 0.961, "last_reward": 1.0,
     "ending": "success"}, ..], "checksum": ".."}

The checksum is of the first line and its own, so that a line which was edited, or which belongs to another
journal, is refused. The process that runs the policy writes the file and holds a lock on it. An interruption
can tear the last line; a torn line is dropped, and its block runs again.
"""

import errno
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import FileIO
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from il_bench.errors import IlBenchError, wrong_field
from il_bench.files import check_regular, locked, parse_json, read_whole, writing
from il_bench.machine import differences
from il_bench.protocol import BLOCK_SIZE, Scalar
from il_bench.rollout.outcomes import Episode, Outcomes

SCHEMA = 2
FOLDER = "journal"
_LONGEST_NAME = 150
_AGAIN = "run without --il-resume to start over"
_ELSEWHERE = "use another folder with --il-report"


@dataclass(frozen=True)
class Conditions:
    """What the episodes of a journal depend on."""

    policy: str
    track: str
    sha256: str | None  # of the weights; None for a policy without
    first_seed: int  # where the run's seeds start; their number may change
    fingerprint: Mapping[str, Scalar]  # `machine.fingerprint()`, which includes the block size
    version: str | None = None  # of a project's code that makes the policy, as the project gives it

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values, the version of the file first."""
        return {"schema": SCHEMA, **vars(self), "fingerprint": dict(self.fingerprint)}


class _BlockLine(BaseModel):
    """A line of the file after the first."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    seconds: Annotated[float, Field(ge=0)]
    episodes: Annotated[list[Episode], Field(min_length=1)]
    checksum: str

    @field_validator("episodes")
    @classmethod
    def _of_one_block(cls, episodes: list[Episode]) -> list[Episode]:
        for one, following in pairwise(episodes):
            if following.seed <= one.seed or following.seed // BLOCK_SIZE != one.seed // BLOCK_SIZE:
                raise ValueError(f"seed {following.seed} cannot follow seed {one.seed} in a block")
        return episodes


def file_name(policy: str, track: str) -> str:
    """Return what files of a policy are called, whatever characters its name has; no two get one name."""
    whole = f"{policy}.{track}".encode(errors="surrogatepass")
    name = quote(whole, safe="")
    if len(name) > _LONGEST_NAME:
        name = f"{name[:_LONGEST_NAME]}-{hashlib.sha256(whole).hexdigest()[:12]}"
    return name


def path_of(report: Path, policy: str, track: str) -> Path:
    """Return where the journal of a policy lies in the report folder."""
    return report / FOLDER / f"{file_name(policy, track)}.jsonl"


class Finished:
    """Finished blocks, to read."""

    def __init__(self, known: list[Outcomes]) -> None:
        self._known: dict[int, tuple[dict[str, Any], float]] = {}  # by seed: its record, its block's seconds
        for block in known:
            self._remember(block)

    def recall(self, wanted: NDArray[np.int64]) -> Outcomes | None:
        """Return the episodes of these seeds, (n,) of one block, or None unless all are there."""
        if not self._known.keys() >= set(wanted.tolist()):
            return None
        records, seconds = zip(*(self._known[seed] for seed in wanted.tolist()), strict=True)
        return Outcomes.from_records(records, seconds[0])

    def _remember(self, block: Outcomes) -> None:
        for record in block.to_records():
            self._known[record["seed"]] = record, block.seconds


class Journal(Finished):
    """An open journal (see `opened`): finished blocks, to read and to add to."""

    def __init__(
        self,
        path: Path,
        file: FileIO,
        conditions: Conditions,
        known: list[Outcomes],
        way_out: str = _ELSEWHERE,
    ) -> None:
        super().__init__(known)
        self._path, self._file, self._conditions, self._way_out = path, file, conditions, way_out

    def append(self, block: Outcomes) -> None:
        """Add a finished block; it is on the disk when this returns. Raises IlBenchError if it cannot be."""
        line = {"seconds": block.seconds, "episodes": block.to_records()}
        self._write({**line, "checksum": _checksum(self._conditions, line)})
        self._remember(block)

    def _write(self, line: Mapping[str, Any]) -> None:
        content = json.dumps(line, allow_nan=False).encode() + b"\n"
        with writing(self._path, self._way_out):
            if self._file.write(content) < len(content):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(self._file.fileno())


@contextmanager
def opened(
    path: Path, conditions: Conditions, *, resume: bool, way_out: str = _ELSEWHERE
) -> Iterator[Journal]:
    """Open a journal, or make it, and keep it locked: one process at a time runs a policy.

    resume: keep the blocks in the file, which must have the same conditions; otherwise start over. way_out:
    what an error about the folder advises. Raises
    IlBenchError if the file is of other weights, seeds or versions (names the field and both values), if it
    is damaged or was edited (names the line), if another process has it, or if it cannot be written.
    """
    with writing(path, way_out):
        path.parent.mkdir(parents=True, exist_ok=True)
        is_there = path.exists()
    if is_there:
        check_regular(path, way_out)
    busy = f"another process is rolling this policy out and holds its journal; let it finish, or {way_out}"
    with locked(path.with_name(f".{path.name}.lock"), path, busy, way_out):
        with writing(path, way_out):
            # Unbuffered: closing the file must not try again to write a line that could not be written.
            file = FileIO(path, "ab")
        with file:
            whole, blocks = _read(path, conditions) if resume else (0, [])
            with writing(path, way_out):
                file.truncate(whole)
            journal = Journal(path, file, conditions, blocks, way_out)
            if not whole:
                journal._write(conditions.to_dict())
            yield journal


def read(path: Path, conditions: Conditions) -> Finished:
    """Read a journal that is not written any more; empty if it is not there. Raises as `opened`."""
    if not path.exists():
        return Finished([])
    check_regular(path, _ELSEWHERE)
    return Finished(_read(path, conditions)[1])


def _checksum(conditions: Conditions, line: Mapping[str, Any]) -> str:
    """What stands at the end of a block's line: it tells an edited line, or one of another journal."""
    content = json.dumps([conditions.to_dict(), line], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def _read(path: Path, conditions: Conditions) -> tuple[int, list[Outcomes]]:
    """Return how many bytes of the file are whole lines, and the blocks in them."""
    lines = read_whole(path, _AGAIN).split(b"\n")[:-1]  # what follows the last newline is torn, or nothing
    if lines and _is_torn(lines[-1]):
        lines.pop()  # the disk had room for the line before it had the line's content
    if not lines:
        return 0, []
    found = parse_json(lines[0], f"{path}: line 1 is damaged and does not say which run this is", _AGAIN)
    if found.get("schema") == 1:
        raise IlBenchError(
            f"{path}: an older il_bench wrote this journal (schema 1), without checksums, so its episodes "
            f"cannot be used; {_AGAIN}, or {_ELSEWHERE}"
        )
    if differing := differences(found, conditions.to_dict()):
        raise IlBenchError(
            f"{path}: this journal is of another run ({differing[0]}), so its episodes cannot be used; "
            f"{_AGAIN}, or {_ELSEWHERE}"
        )
    return sum(len(line) + 1 for line in lines), _blocks(path, conditions, lines[1:])


def _blocks(path: Path, conditions: Conditions, lines: list[bytes]) -> list[Outcomes]:
    """The blocks in the lines after the first, which must not contradict each other."""
    blocks: list[Outcomes] = []
    at: dict[int, tuple[int, Episode]] = {}  # by seed: the line that holds it, and what that says
    for number, line in enumerate(lines, 2):
        where, way_out = f"{path}: line {number}", f"delete it to run its block again, or {_AGAIN}"
        block = _block(line, conditions, where, way_out)
        before = [at[episode.seed] for episode in block.episodes if episode.seed in at]
        if len(before) == len(block.episodes):  # a block is written again only for more of its seeds
            raise IlBenchError(f"{where} holds the episodes of line {before[0][0]} again; {way_out}")
        for other, episode in before:
            if episode not in block.episodes:
                said = f"contradicts line {other} about the episode with seed {episode.seed}"
                raise IlBenchError(f"{where} {said}; {way_out}")
        at |= {episode.seed: (number, episode) for episode in block.episodes}
        records = [episode.model_dump() for episode in block.episodes]
        blocks.append(Outcomes.from_records(records, block.seconds))
    return blocks


def _is_torn(line: bytes) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return True
    return False


def _block(line: bytes, conditions: Conditions, where: str, way_out: str) -> _BlockLine:
    """A line after the first. Raises IlBenchError if it is damaged, contradicts itself, or was edited."""
    content = parse_json(line, f"{where} is damaged", way_out)
    try:
        block = _BlockLine.model_validate(content)
    except ValidationError as error:
        raise IlBenchError(f"{where} is damaged ({wrong_field(error, 'the line')}); {way_out}") from None
    most = conditions.fingerprint.get("max_steps")
    for episode in block.episodes:
        if episode.seed < conditions.first_seed:
            said = f"the run starts at seed {conditions.first_seed}"
        elif isinstance(most, int) and episode.n_steps > most:
            said = f"n_steps is {episode.n_steps}, of at most {most}"
        else:
            continue
        raise IlBenchError(f"{where} is damaged (episodes: seed {episode.seed}: {said}); {way_out}")
    if content.pop("checksum") != _checksum(conditions, content):
        raise IlBenchError(
            f"{where} was edited: its checksum does not match its seconds and episodes; {way_out}"
        )
    return block
