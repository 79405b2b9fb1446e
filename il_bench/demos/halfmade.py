"""Demonstrations on the way: finished blocks in a folder beside the output, so that a run can go on.

`DIR.partial` holds `made.json`, what the data depend on, and what is finished. It is locked while
a run writes to it, and gone when the dataset is in its place.
"""

import io
import shutil
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock
import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from il_bench.demos.provenance import Conditions, Episode
from il_bench.demos.record import Recording
from il_bench.errors import IlBenchError
from il_bench.files import write_whole, writing

_MADE = "made.json"
_ELSEWHERE = "give another --output"
_EPISODES = TypeAdapter(list[Episode])


@dataclass(frozen=True)
class Block:
    """Some finished episodes, in seed order.

    episodes: all of them. frames: of those that succeeded, one after the other.
    """

    episodes: list[Episode]
    frames: Recording


def join(recordings: Sequence[Recording]) -> Recording:
    """One recording after the other; without any, one of no frames."""
    empty = Recording(np.zeros((0, 2)), np.zeros((0, 3)), np.zeros((0, 2), np.float32), np.zeros(0))
    parts = [empty, *recordings]
    return Recording(*(np.concatenate([getattr(part, name) for part in parts]) for name in vars(empty)))


class Halfmade:
    """An opened `DIR.partial`, see `opened`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def recall(self, first: int) -> Block | None:
        """The block whose first seed this is, None if it is not finished."""
        path = self._path(first)
        if not path.exists():
            return None
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                frames = Recording(*(arrays[name] for name in Recording.__dataclass_fields__))
                return Block(_EPISODES.validate_json(str(arrays["episodes"])), frames)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, ValidationError):
            return None  # somebody damaged it: it is made again

    def keep(self, first: int, block: Block) -> None:
        """Write a finished block; it is on the disk, whole, when this returns."""
        arrays: dict[str, NDArray[Any]] = dict(vars(block.frames))
        arrays["episodes"] = np.array(_EPISODES.dump_json(block.episodes).decode())
        content = io.BytesIO()
        np.savez(content, allow_pickle=False, **arrays)
        with writing(self.folder, _ELSEWHERE):
            write_whole(self._path(first), content.getvalue())

    def remove(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, first: int) -> Path:
        return self.folder / f"block-{first:06d}.npz"


@contextmanager
def opened(output: Path, made: Conditions) -> Iterator[Halfmade]:
    """Open what is half made for `output`, or start it, and keep it locked.

    Raises:
        IlBenchError: it is another command's (names the options that differ), in use by another process, or
            cannot be written.
    """
    folder = output.with_name(f"{output.name}.partial")
    with writing(folder, _ELSEWHERE):
        folder.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(folder / "lock", timeout=0)
    try:
        with writing(folder, _ELSEWHERE):
            lock.acquire()
    except filelock.Timeout:
        raise IlBenchError(
            f"{folder}: another process is making these; let it finish, or give another --output"
        ) from None
    try:
        _check(folder, made)
        yield Halfmade(folder)
    finally:
        lock.release()


def _check(folder: Path, made: Conditions) -> None:
    path = folder / _MADE
    if not path.exists():
        names = [child.name for child in folder.iterdir()]
        if foreign := [name for name in names if name != "lock" and not name.startswith(".")]:
            raise IlBenchError(
                f"{folder}: holds {foreign[0]}, which no `il-bench demos` command left there; move it away, "
                "or give another --output"
            )
        with writing(folder, _ELSEWHERE):
            write_whole(path, made.model_dump_json(indent=1).encode())
        return
    try:
        found = type(made).model_validate_json(path.read_bytes())
    except ValidationError:
        raise IlBenchError(
            f"{path}: damaged, or of another command; remove {folder} and start again"
        ) from None
    if differing := found.differences(made):
        raise IlBenchError(
            f"{folder}: half made by another command ({', '.join(differing)}); repeat that one to go on, "
            "remove the folder to start again, or give another --output"
        )
