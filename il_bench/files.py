"""Files that are written whole or not at all, locks on them, and errors of the file system that name them."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock

from il_bench.errors import IlBenchError


def write_whole(path: Path, content: bytes) -> None:
    """Write a file by renaming a finished one into place; make its folder if it is missing.

    A failure or a crash leaves the old file. The new file keeps the old one's permissions. A link itself is
    replaced, not its target. Raises OSError; `writing` turns that into an IlBenchError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, path.stat().st_mode & 0o777 if path.exists() else 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


@contextmanager
def writing(path: Path, way_out: str) -> Iterator[None]:
    """Turn errors of the file system into an IlBenchError that names `path` and the way out."""
    try:
        yield
    except filelock.Timeout:  # an OSError too, with a sentence of its own
        raise
    except OSError as error:
        raise IlBenchError(f"{path}: cannot be written ({error.strerror or error}); {way_out}") from error


@contextmanager
def locked(lock: Path, path: Path, busy: str, way_out: str, *, seconds: float = 0) -> Iterator[None]:
    """Hold the lock file `lock`, which reserves `path` for one process; wait for it up to `seconds`.

    Raises IlBenchError: another process holds it (says `busy`), or it cannot be written (says `way_out`).
    """
    held = filelock.FileLock(lock, timeout=seconds)
    try:
        with writing(path, way_out):
            held.acquire()
    except filelock.Timeout:
        raise IlBenchError(f"{path}: {busy}") from None
    try:
        yield
    finally:
        held.release()
