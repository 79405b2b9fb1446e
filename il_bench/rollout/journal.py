"""Finished blocks of a rollout on disk, so that an interrupted run can be resumed.

There is one file of JSON lines for each policy and track. The first line says what the episodes depend on.
Every other line is a finished block; it is on the disk before the rollout continues:

    {"schema": 1, "policy": "act", "track": "keypoints", "sha256": "..", "first_seed": 200000,
     "fingerprint": {"task": "PushT", .., "block_size": 50, .., "torch": "2.11.0", .., "device": "cpu"}}
    {"seconds": 1.9, "episodes": [{"seed": 200000, "success": true, "max_reward": 1.0, "n_steps": 93,
     "outside": 0}, ..]}

The process that runs the policy writes the file and holds a lock on it. An interruption can tear the last
line; a torn line is dropped, and its block runs again.
"""

import errno
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from il_bench.errors import IlBenchError, wrong_field
from il_bench.files import locked, writing
from il_bench.machine import differences
from il_bench.protocol import Scalar
from il_bench.rollout.outcomes import Episode, Outcomes

SCHEMA = 1
FOLDER = "journal"
_LONGEST_NAME = 150
_AGAIN = "run without --il-resume to start over"
_ELSEWHERE = "use another folder with --il-report"


@dataclass(frozen=True)
class Conditions:
    """What the episodes of a journal depend on."""

    policy: str
    track: str
    sha256: str  # of the weights
    first_seed: int  # where the run's seeds start; their number may change
    fingerprint: Mapping[str, Scalar]  # `machine.fingerprint()`, which includes the block size

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values, the version of the file first."""
        return {"schema": SCHEMA, **vars(self), "fingerprint": dict(self.fingerprint)}


class _BlockLine(BaseModel):
    """A line of the file after the first."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    seconds: Annotated[float, Field(ge=0)]
    episodes: Annotated[list[Episode], Field(min_length=1)]


def path_of(report: Path, policy: str, track: str) -> Path:
    """Return where the journal of a policy lies in the report folder, whatever characters its name has."""
    name = quote(policy, safe="")
    if len(name) > _LONGEST_NAME:
        name = f"{name[:_LONGEST_NAME]}-{hashlib.sha256(policy.encode()).hexdigest()[:12]}"
    return report / FOLDER / f"{name}.{track}.jsonl"


class Journal:
    """An open journal (see `opened`): finished blocks, to read and to add to."""

    def __init__(self, path: Path, file: FileIO, known: list[Outcomes]) -> None:
        self._path, self._file = path, file
        self._known: dict[int, tuple[dict[str, Any], float]] = {}  # by seed: its record, its block's seconds
        for block in known:
            self._remember(block)

    def recall(self, wanted: NDArray[np.int64]) -> Outcomes | None:
        """Return the episodes of these seeds, (n,) of one block, or None unless all are there."""
        if not self._known.keys() >= set(wanted.tolist()):
            return None
        records, seconds = zip(*(self._known[seed] for seed in wanted.tolist()), strict=True)
        return Outcomes.from_records(records, seconds[0])

    def append(self, block: Outcomes) -> None:
        """Add a finished block; it is on the disk when this returns. Raises IlBenchError if it cannot be."""
        self._write({"seconds": block.seconds, "episodes": block.to_records()})
        self._remember(block)

    def _remember(self, block: Outcomes) -> None:
        for record in block.to_records():
            self._known[record["seed"]] = record, block.seconds

    def _write(self, line: Mapping[str, Any]) -> None:
        content = json.dumps(line, allow_nan=False).encode() + b"\n"
        with writing(self._path, _ELSEWHERE):
            if self._file.write(content) < len(content):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(self._file.fileno())


@contextmanager
def opened(path: Path, conditions: Conditions, *, resume: bool) -> Iterator[Journal]:
    """Open a journal, or make it, and keep it locked: one process at a time runs a policy.

    resume: keep the blocks in the file, which must have the same conditions; otherwise start over. Raises
    IlBenchError if the file is of other weights, seeds or versions (names the field and both values), if it
    is damaged (names the line), if another process has it, or if it cannot be written.
    """
    with writing(path, _ELSEWHERE):
        path.parent.mkdir(parents=True, exist_ok=True)
    busy = f"another process is rolling this policy out and holds its journal; let it finish, or {_ELSEWHERE}"
    with locked(path.with_name(f".{path.name}.lock"), path, busy, _ELSEWHERE):
        with writing(path, _ELSEWHERE):
            # Unbuffered: closing the file must not try again to write a line that could not be written.
            file = FileIO(path, "ab")
        with file:
            whole, blocks = _read(path, conditions) if resume else (0, [])
            with writing(path, _ELSEWHERE):
                file.truncate(whole)
            journal = Journal(path, file, blocks)
            if not whole:
                journal._write(conditions.to_dict())
            yield journal


def _read(path: Path, conditions: Conditions) -> tuple[int, list[Outcomes]]:
    """Return how many bytes of the file are whole lines, and the blocks in them."""
    lines = path.read_bytes().split(b"\n")[:-1]  # what follows the last newline is torn, or nothing
    if lines and _json(lines[-1]) is None:
        lines.pop()  # torn too: the disk had room for the line before it had the line's content
    if not lines:
        return 0, []
    found = _json(lines[0])
    if not isinstance(found, dict) or "schema" not in found:
        raise IlBenchError(f"{path}: line 1 is damaged and does not say which run this is; {_AGAIN}")
    if differing := differences(found, conditions.to_dict()):
        raise IlBenchError(
            f"{path}: this journal is of another run ({differing[0]}), so its episodes cannot be used; "
            f"{_AGAIN}, or {_ELSEWHERE}"
        )
    blocks = [_block(path, number, line) for number, line in enumerate(lines[1:], 2)]
    return sum(len(line) + 1 for line in lines), blocks


def _json(line: bytes) -> Any:
    """The value, None if the line is damaged (no line is `null`)."""
    try:
        return json.loads(line)
    except ValueError:
        return None


def _block(path: Path, number: int, line: bytes) -> Outcomes:
    try:
        block = _BlockLine.model_validate_json(line)
    except ValidationError as error:
        raise IlBenchError(
            f"{path}: line {number} is damaged ({wrong_field(error, 'the line')}); delete it to run its "
            f"block again, or {_AGAIN}"
        ) from None
    return Outcomes.from_records([episode.model_dump() for episode in block.episodes], block.seconds)
