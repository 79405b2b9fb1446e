"""Finished blocks of a rollout on disk, so that an interrupted run goes on where it stopped.

One file a policy and track below the report folder, JSON lines. The first line says what the episodes depend
on, every other line is a finished block, on the disk before the rollout goes on:

    {"schema": 1, "policy": "act", "track": "keypoints", "sha256": "..", "first_seed": 200000,
     "fingerprint": {"task": "PushT", .., "block_size": 50, .., "torch": "2.11.0", .., "device": "cpu"}}
    {"seconds": 1.9, "episodes": [{"seed": 200000, "success": true, "max_reward": 1.0, "n_steps": 93,
     "outside": 0}, ..]}

The process that runs the policy writes it and holds a lock on it. An interruption can leave the last line
torn; that line is dropped, and its block run again.
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

import filelock
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from il_bench.errors import IlBenchError, wrong_field
from il_bench.files import writing
from il_bench.rollout.outcomes import Outcomes

SCHEMA = 1
FOLDER = "journal"
_LONGEST_NAME = 150
_AGAIN = "run without --il-resume to start over"
_ELSEWHERE = "use another folder with --il-report"


@dataclass(frozen=True)
class Conditions:
    """What the episodes of a journal depend on.

    policy, track: whose they are. sha256: of the weights. first_seed: where the run's seeds start; how many
    there are may change. fingerprint: `environment.fingerprint()`, the block size among it.
    """

    policy: str
    track: str
    sha256: str
    first_seed: int
    fingerprint: Mapping[str, str | int | float | bool | None]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values, the version of the file first."""
        return {"schema": SCHEMA, **vars(self), "fingerprint": dict(self.fingerprint)}


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class _Episode(_Model):
    seed: Annotated[int, Field(ge=0)]
    success: bool
    max_reward: Annotated[float, Field(ge=0, le=1)]
    n_steps: Annotated[int, Field(ge=1)]
    outside: Annotated[int, Field(ge=0)]


class _Block(_Model):
    seconds: Annotated[float, Field(ge=0)]
    episodes: Annotated[list[_Episode], Field(min_length=1)]


def path_of(report: Path, policy: str, track: str) -> Path:
    """Return the journal of a policy, whatever characters its name has, below the report folder."""
    name = quote(policy, safe="")
    if len(name) > _LONGEST_NAME:
        name = f"{name[:_LONGEST_NAME]}-{hashlib.sha256(policy.encode()).hexdigest()[:12]}"
    return report / FOLDER / f"{name}.{track}.jsonl"


class Journal:
    """An open journal: what it held, and a place to add to; see `opened`."""

    def __init__(self, path: Path, file: FileIO, known: list[Outcomes]) -> None:
        self._path = path
        self._file = file
        self._records: dict[int, dict[str, Any]] = {}  # by seed
        self._seconds: dict[int, float] = {}  # of the block a seed is in
        for block in known:
            self._remember(block)

    def recall(self, wanted: NDArray[np.int64]) -> Outcomes | None:
        """Return the episodes of these seeds, (n,) of one block, or None unless all are there."""
        seeds = [int(seed) for seed in wanted]
        if not self._records.keys() >= set(seeds):
            return None
        return Outcomes.from_records([self._records[seed] for seed in seeds], self._seconds[seeds[0]])

    def append(self, block: Outcomes) -> None:
        """Add a finished block; it is on the disk when this returns.

        Raises:
            IlBenchError: it cannot be written.
        """
        self._write({"seconds": block.seconds, "episodes": block.to_records()})
        self._remember(block)

    def _remember(self, block: Outcomes) -> None:
        for record in block.to_records():
            self._records[record["seed"]] = record
            self._seconds[record["seed"]] = block.seconds

    def _write(self, line: Mapping[str, Any]) -> None:
        content = json.dumps(line, allow_nan=False).encode() + b"\n"
        with writing(self._path, _ELSEWHERE):
            if self._file.write(content) < len(content):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(self._file.fileno())


@contextmanager
def opened(path: Path, conditions: Conditions, *, resume: bool) -> Iterator[Journal]:
    """Open a journal, made if missing, and keep it locked: one process at a time runs a policy.

    resume: go on from what is there, of the same conditions only; otherwise start over.

    Raises:
        IlBenchError: it is of other weights, seeds or versions (names the field and both values); damaged
            (names the line); in use by another process; or it cannot be written.
    """
    with writing(path, _ELSEWHERE):
        path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(path):
        with writing(path, _ELSEWHERE):
            file = FileIO(
                path, "ab"
            )  # unbuffered: a line that cannot be written is not tried again on closing
        with file:
            whole, blocks = _read(path, conditions) if resume else (0, [])
            with writing(path, _ELSEWHERE):
                file.truncate(whole)
            journal = Journal(path, file, blocks)
            if not whole:
                journal._write(conditions.to_dict())
            yield journal


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    lock = filelock.FileLock(path.with_name(f".{path.name}.lock"), timeout=0)
    try:
        with writing(path, _ELSEWHERE):
            lock.acquire()
    except filelock.Timeout:
        raise IlBenchError(
            f"{path}: another process is rolling this policy out and writes its journal; let it finish, or "
            "use another folder with --il-report"
        ) from None
    try:
        yield
    finally:
        lock.release()


def _read(path: Path, conditions: Conditions) -> tuple[int, list[Outcomes]]:
    """Return how many bytes of the file are whole lines, and the blocks in them."""
    lines = path.read_bytes().split(b"\n")[:-1]  # what follows the last newline is torn, or nothing
    if lines and not _is_json(lines[-1]):
        lines.pop()  # torn too: its room was there before its content
    if not lines:
        return 0, []
    _check(path, _header(path, lines[0]), conditions.to_dict())
    blocks = [_block(path, number, line) for number, line in enumerate(lines[1:], 2)]
    return sum(len(line) + 1 for line in lines), blocks


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def _header(path: Path, line: bytes) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError:
        found = None
    if not isinstance(found, dict) or "schema" not in found:
        raise IlBenchError(f"{path}: line 1 is damaged, it does not say what the journal is of; {_AGAIN}")
    return found


def _check(path: Path, found: Mapping[str, Any], expected: Mapping[str, Any], within: str = "") -> None:
    """Raise IlBenchError for the first field that differs."""
    for name in [*expected, *(name for name in found if name not in expected)]:
        was, now = found.get(name), expected.get(name)
        if isinstance(was, dict) and isinstance(now, dict):
            _check(path, was, now, f"{name}.")
        elif was != now:
            raise IlBenchError(
                f"{path}: this journal is of {within}{name} = {was!r}, this run is of {now!r}, so its "
                f"episodes are not this run's; {_AGAIN}, or {_ELSEWHERE}"
            )


def _block(path: Path, number: int, line: bytes) -> Outcomes:
    try:
        block = _Block.model_validate(json.loads(line))
    except ValidationError as error:
        what = wrong_field(error, "the line")
    except ValueError as error:
        what = f"broken JSON: {error}"
    else:
        return Outcomes.from_records([episode.model_dump() for episode in block.episodes], block.seconds)
    raise IlBenchError(
        f"{path}: line {number} is damaged ({what}); delete the line, and its block is run again, or {_AGAIN}"
    )
