"""Files that are written whole or not at all, locks on them, and errors of the file system that name them."""

import errno
import os
import shutil
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
    """Turn errors of the file system into an IlBenchError that names `path` and the way out.

    Of a full disk it says how much is free, and which file did not fit if that lies elsewhere.
    """
    try:
        yield
    except filelock.Timeout:  # an OSError too, with a sentence of its own
        raise
    except OSError as error:
        raise IlBenchError(f"{path}: cannot be written ({_reason(error, path)}); {way_out}") from error


def _reason(error: OSError, path: Path) -> str:
    # Libraries that write by themselves raise an OSError without a number.
    is_full = error.errno in (errno.ENOSPC, errno.EDQUOT) or os.strerror(errno.ENOSPC) in str(error)
    if not is_full:
        return error.strerror or str(error)
    written = Path(os.fsdecode(error.filename)) if isinstance(error.filename, str | bytes) else path
    folder = next(each for each in (written, *written.absolute().parents) if each.is_dir())
    which = "" if written.absolute().is_relative_to(path.absolute().parent) else f" for {written}"
    free = shutil.disk_usage(folder).free / 1e6
    return f"{os.strerror(errno.ENOSPC)}{which}, {free:.1f} MB free"


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
