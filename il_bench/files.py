"""Files: written whole or not at all, locked, and read only as far as they can be trusted.

Whatever is wrong with a file, its reader raises one IlBenchError that names the file, the field where there
is one, and the way out.
"""

import errno
import json
import math
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import filelock

from il_bench.errors import IlBenchError, wrong_field

if TYPE_CHECKING:
    from pydantic import BaseModel

#: The largest file that is read whole, in bytes. A report of 100 policies, 1,000 episodes each, has 20 MB.
LARGEST = 64 * 2**20
_DEEPEST = 100  # objects and lists inside one another: whoever walks through them does so by recursion
_LONGEST = 300  # digits of a whole number: those of more are no float's, and slow to read
#: How the file begins that git leaves in the place of a large one.
_POINTER = b"version https://git-lfs.github.com/spec/"


def write_whole(path: Path, content: bytes) -> None:
    """Write a file by renaming a finished one into place; make its folder if it is missing.

    A failure or a crash leaves the old file. The new file keeps the old one's permissions. A link itself is
    replaced, not its target. A device, a pipe or a link to one (/dev/stdout) stays: a file in its place
    would break what others use. Raises OSError; `writing` turns that into an IlBenchError.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise OSError(errno.ENOTSUP, "a device or a pipe is there, not a file", str(path))
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


def given_path(given: str | Path) -> Path:
    """The path that somebody gives, `~` resolved; IlBenchError for a name that no file can have.

    Nor is there a user of that name, where it begins with `~`.
    """
    path = Path(os.path.expanduser(given))
    if str(path).startswith("~") and not os.path.lexists(path):
        raise IlBenchError(
            f"{path}: there is no user {path.parts[0][1:]!r}; give another path, or begin with ./"
        )
    try:
        with reading(path, "give another"):
            os.lstat(path)
    except IlBenchError as error:
        if not isinstance(error.__cause__, FileNotFoundError | NotADirectoryError | PermissionError):
            raise
    return path


@contextmanager
def reading(path: Path, way_out: str) -> Iterator[None]:
    """Turn errors of the file system into an IlBenchError that names `path` and the way out."""
    try:
        yield
    except (OSError, ValueError) as error:  # ValueError: no file can have this name
        reason = getattr(error, "strerror", None) or error
        raise IlBenchError(f"{path}: cannot be read ({reason}); {way_out}") from error


def check_regular(path: Path, way_out: str) -> None:
    """Raise IlBenchError unless `path` is a regular file: to open a pipe or a device may wait for ever.

    Nor is it what git leaves in the place of a large file.
    """
    with reading(path, way_out):
        mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        raise IlBenchError(f"{path}: a folder, not a file; {way_out}")
    if not stat.S_ISREG(mode):
        raise IlBenchError(f"{path}: a pipe, a socket or a device; only regular files are read; {way_out}")
    with reading(path, way_out), path.open("rb") as file:
        is_pointer = file.read(len(_POINTER)) == _POINTER
    if is_pointer:
        raise IlBenchError(
            f"{path}: a git-lfs pointer, not the file it stands for; run `git lfs pull` in its repository"
        )


def read_whole(path: Path, way_out: str, *, at_most: int = LARGEST) -> bytes:
    """The content of a regular file of `at_most` so many bytes; IlBenchError where it is no such file."""
    check_regular(path, way_out)
    with reading(path, way_out), path.open("rb") as file:
        content = file.read(at_most + 1) if path.stat().st_size <= at_most else None
    if content is None or len(content) > at_most:
        raise IlBenchError(f"{path}: larger than the {at_most:,} bytes such a file may have; {way_out}")
    return content


def read_json(path: Path, way_out: str, *, allow_nan: bool = False) -> dict[str, Any]:
    """The fields of a JSON file, as `parse_json` takes them."""
    return parse_json(read_whole(path, way_out), path, way_out, allow_nan=allow_nan)


def read_model[M: "BaseModel"](model: type[M], path: Path, way_out: str) -> M:
    """A JSON file as a pydantic model, which says what is right in each field."""
    from pydantic import ValidationError

    content = read_whole(path, way_out)
    parse_json(content, path, way_out)  # pydantic would take the last of two keys
    try:
        return model.model_validate_json(content)
    except ValidationError as error:
        raise IlBenchError(f"{path}: {wrong_field(error)}; {way_out}") from None


def parse_json(content: bytes, where: object, way_out: str, *, allow_nan: bool = False) -> dict[str, Any]:
    """The fields of a JSON object that any code may work with, however it was made.

    No key occurs twice; nothing is nested more than 100 deep; numbers are finite and have at most 300 digits;
    text can be encoded. allow_nan: take NaN and the infinities, as Python's own writer does. Raises
    IlBenchError that names `where` (a file, a line of it), the field or the place, and the way out.
    """
    text = ""
    try:
        text = content.decode()
        found = json.loads(text, object_pairs_hook=_object, parse_int=_integer)
    except UnicodeDecodeError as error:
        reason = f"not UTF-8 text (byte {error.start})"
    except json.JSONDecodeError as error:
        reason = f"broken JSON at line {error.lineno}, column {error.colno} ({error.msg})"
    except RecursionError:
        before, *_ = re.split(r"(?:[\[{]\s*){50}", text, maxsplit=1)
        names = re.findall(r'"([^"]*)"\s*:', before)
        reason = f"JSON nested more than {_DEEPEST} deep, after {(names or ['its beginning'])[-1]}"
    else:
        reason = _fault(found, allow_nan)
        if not reason:
            return dict(found)
    raise IlBenchError(f"{where}: {reason}; {way_out}")


class _Doubled(dict[str, Any]):
    """An object that has the key `name` twice."""

    name: str


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):  # merges of branches make such objects
        names = [name for name, _ in pairs]
        found = _Doubled(found)
        found.name = next(name for name in names if names.count(name) > 1)
    return found


def _integer(digits: str) -> int | float:
    """The whole number; NaN in place of one that is too long, as Python refuses to read the longest."""
    return int(digits) if len(digits) <= _LONGEST else _TOO_LONG


_TOO_LONG = float("nan")
_KINDS = {list: "a list", str: "a string", bool: "a boolean", int: "a number", float: "a number"}


def _fault(content: Any, allow_nan: bool) -> str:
    """What is wrong with a JSON value, and where in it; nothing is: ""."""
    if not isinstance(content, dict):
        kind = _KINDS.get(type(content), "null")
        return f"holds {kind}, not an object with fields"
    todo: list[tuple[tuple[str | int, ...], Any]] = [((), content)]
    while todo:
        place, value = todo.pop()
        fault = ""
        if len(place) > _DEEPEST:
            place, fault = place[:3], f"is nested more than {_DEEPEST} deep"
        elif isinstance(value, _Doubled):
            place, fault = (*place, value.name), "occurs twice in one object"
        elif value is _TOO_LONG:
            fault = f"has more than {_LONGEST} digits"
        elif isinstance(value, float) and not (allow_nan or math.isfinite(value)):
            fault = f"is {value}, not a finite number"
        elif isinstance(value, str) and not _is_text(value):
            fault = f"= {value!r:.60} holds half a character (a lone surrogate)"
        elif isinstance(value, dict):
            todo += (((*place, name), each) for name, each in reversed(value.items()))
            if not all(map(_is_text, value)):
                fault = "has a name with half a character in it (a lone surrogate)"
        elif isinstance(value, list):
            todo += (((*place, number), each) for number, each in reversed(list(enumerate(value))))
        if fault:
            return f"{'.'.join(map(str, place)) or 'the whole'} {fault}"
    return ""


def _is_text(value: str) -> bool:
    return value.isascii() or not any("\ud800" <= character <= "\udfff" for character in value)


@contextmanager
def reserved(folder: Path, way_out: str) -> Iterator[None]:
    """Hold a folder, which is made if it is missing, for one run; a second one would mix its files in.

    Raises IlBenchError: another process holds it, or it cannot be written.
    """
    with writing(folder, way_out):
        folder.mkdir(parents=True, exist_ok=True)
    busy = f"another run is writing to this folder; let it finish, or {way_out}"
    with locked(folder / ".lock", folder, busy, way_out):
        yield


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
