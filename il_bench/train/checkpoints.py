"""The checkpoints of a run: each whole or not there, whenever its writing ends, and checked when it is read.

``checkpoints/<step>`` is written beside its place and renamed; then ``last`` is pointed at it; then all but
it and the one before it go. So a kill leaves ``last`` at a whole checkpoint, this one or the one before.
"""

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from safetensors import SafetensorError

from il_bench.errors import IlBenchError
from il_bench.files import read_model, writing

PRETRAINED, STATE = "pretrained_model", "training_state"
PROGRESS_FILE, RAW_WEIGHTS = "progress.json", "raw.safetensors"


class Extension(BaseModel):
    """An earlier plan of a run that was extended: its length and cosine, and the step at which it ended."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    at: int = Field(ge=0)
    steps: int = Field(gt=0)
    cosine_steps: int | None = Field(default=None, gt=0)


class SavedProgress(BaseModel):
    """``training_state/progress.json``: what made a checkpoint, how far it got, and its other files."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    recipe: dict[str, Any]
    data: dict[str, Any]
    seed: int
    step: int = Field(ge=0)
    seconds: float = Field(ge=0)
    core_seconds: float = Field(ge=0)
    data_seconds: float = Field(ge=0)
    ema_updates: int = Field(ge=0)
    extended: list[Extension] = []
    #: sha256 of each file that a resumed run reads; None in checkpoints of il_bench 0.1.
    files: dict[str, str] | None = None


def write(output: Path, progress: SavedProgress, fill: Callable[[Path], None]) -> Path:
    """Write the checkpoint of a step: ``fill`` its new folder, add ``progress`` and the files' hashes.

    Raises IlBenchError if it cannot be written; what there was stays, and its sentence says which.
    """
    checkpoints = output / "checkpoints"
    final = checkpoints / f"{progress.step:06d}"
    partial, before = checkpoints / f".{final.name}.partial", newest(output)
    kept = f"checkpoint {before.name} is whole" if before else "there is no earlier checkpoint"
    try:
        with writing(final, f"{kept}; make room and give the same command with --resume"):
            shutil.rmtree(partial, ignore_errors=True)
            try:
                fill(partial)
            except SafetensorError as error:  # how it words an error of the file system
                raise OSError(str(error)) from None
            text = progress.model_copy(update={"files": _hashes(partial)}).model_dump_json(indent=2)
            (partial / STATE / PROGRESS_FILE).write_text(text + "\n", encoding="utf-8")
            _to_disk(partial)
            if final.exists():
                _discard(final)
            partial.rename(final)
            _point_last_to(final)
            kept_names = {final.name, before.name if before else final.name}
            for old in checkpoints.iterdir():
                if old.is_dir() and not old.is_symlink() and old.name not in kept_names:
                    _discard(old)
    except IlBenchError:
        shutil.rmtree(partial, ignore_errors=True)  # the room may be needed
        raise
    return final


def newest(output: Path) -> Path | None:
    """The checkpoint that a run goes on from: ``last``; else, if that points nowhere, the highest step."""
    checkpoints = output / "checkpoints"
    if (last := checkpoints / "last").exists():
        return last.resolve()
    return max(_whole(checkpoints), key=_step, default=None)


def read(output: Path, checkpoint: Path) -> SavedProgress:
    """What is noted of a checkpoint; IlBenchError if it or a file beside it is damaged, with the way out."""
    file, way_out = checkpoint / STATE / PROGRESS_FILE, instead_of(output, checkpoint)
    progress = read_model(SavedProgress, file, way_out)
    if checkpoint.name not in (f"{progress.step:06d}", "last"):  # `last` is a folder in some copies of a run
        raise IlBenchError(f"{file}: step = {progress.step}, in a checkpoint of that name; {way_out}")
    found = _hashes(checkpoint)
    for name, sha256 in (progress.files or {}).items():
        if found.get(name) != sha256:
            which = "missing" if name not in found else "damaged"
            raise IlBenchError(f"{checkpoint}: {name}: {which}, by files in {PROGRESS_FILE}; {way_out}")
    return progress


def instead_of(output: Path, damaged: Path) -> str:
    """What to do about a damaged checkpoint: the way out, for a sentence about it."""
    others = [each for each in _whole(output / "checkpoints") if each != damaged]
    if not others:
        return f"no other is left: remove {output} and train again"
    good = max(others, key=_step).name
    return f"the last good checkpoint is {good}: remove {damaged} and --resume continues from there"


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name)


def _whole(checkpoints: Path) -> list[Path]:
    folders = checkpoints.glob("[0-9]*")
    return [each for each in folders if each.name.isdigit() and (each / STATE / PROGRESS_FILE).exists()]


def _hashes(folder: Path) -> dict[str, str]:
    """Of each file that a resumed run reads: the state, and the averaged weights."""
    paths = [*(folder / STATE).iterdir(), folder / PRETRAINED / "model.safetensors"]
    return {path.relative_to(folder).as_posix(): _hash(path) for path in sorted(paths) if path.is_file()}


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _to_disk(folder: Path) -> None:
    """Wait until the files in a folder are on the disk, lest a loss of power leaves them empty."""
    for path in (each for each in folder.rglob("*") if each.is_file()):
        with path.open("rb") as file:
            os.fsync(file.fileno())


def _point_last_to(final: Path) -> None:
    link, last = final.with_name(".last"), final.with_name("last")
    link.unlink(missing_ok=True)
    link.symlink_to(final.name)
    if last.is_dir() and not last.is_symlink():  # as in a copy of a run that followed the link
        _discard(last)
    link.replace(last)


def _discard(folder: Path) -> None:
    """Remove a checkpoint: first from its name, so that half of one never bears it."""
    aside = folder.with_name(f".{folder.name.strip('.')}.old")
    shutil.rmtree(aside, ignore_errors=True)
    folder.rename(aside)
    shutil.rmtree(aside)
