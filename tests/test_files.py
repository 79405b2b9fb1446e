"""Files written whole or not at all, and read only as far as they can be trusted."""

import errno
import json
import os
import re
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import filelock
import pytest
from pydantic import BaseModel, ConfigDict

from il_bench.errors import IlBenchError
from il_bench.files import (
    LARGEST,
    given_path,
    parse_json,
    read_json,
    read_model,
    read_whole,
    write_whole,
    writing,
)
from tests.fuzzing import FUZZ, fuzz


@pytest.mark.parametrize("broken", ["fsync", "replace"])
def test_a_failed_write_leaves_the_old_file_and_no_litter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    path = tmp_path / "report.json"
    path.write_text("old")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, broken, full)
    with pytest.raises(OSError, match="No space"):
        write_whole(path, b"new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_new_file_can_be_read_by_all_and_an_old_one_keeps_its_permissions(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "report.json"
    for mode, content in ((0o644, b"new"), (0o600, b"newer")):
        if path.exists():
            path.chmod(mode)
        write_whole(path, content)
        assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (content, mode)


@pytest.mark.parametrize("is_link", [False, True])
def test_a_device_or_a_pipe_is_never_replaced(tmp_path: Path, is_link: bool) -> None:
    """Not by `--output /dev/stdout` either."""
    pipe = path = tmp_path / "pipe"
    os.mkfifo(pipe)
    if is_link:
        path = tmp_path / "link"
        path.symlink_to(pipe)
    with pytest.raises(IlBenchError, match="a device or a pipe is there"), writing(path, "give another"):
        write_whole(path, b"new")
    assert pipe.is_fifo() and path.is_symlink() is is_link


def test_a_path_that_is_given_is_one_that_can_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for given in ("new", tmp_path / "new" / "newer", "~/new"):
        assert given_path(given) == Path(str(given).replace("~", str(tmp_path)))
    (tmp_path / "file").touch()
    assert given_path(tmp_path / "file" / "below") == tmp_path / "file" / "below"
    for given, said in (("x" * 300, "too long"), ("~nosuchuser/x", "no user 'nosuchuser'"), ("a\0b", "null")):
        with pytest.raises(IlBenchError, match=said):
            given_path(given)


def test_errors_of_the_file_system_name_the_file_and_the_way_out(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    (tmp_path / "folder").touch()
    with pytest.raises(IlBenchError) as caught, writing(path, "give another --output"):
        write_whole(tmp_path / "folder" / "report.json", b"new")
    assert str(caught.value) == f"{path}: cannot be written (File exists); give another --output"
    with pytest.raises(filelock.Timeout), writing(path, "give another --output"):
        raise filelock.Timeout(str(path))


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device, "),
        (OSError(errno.ENOSPC, "No space left on device", "{folder}/new/x"), "No space left on device, "),
        (OSError("writing failed: No space left on device"), "No space left on device, "),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "No space left on device, "),
        (
            OSError(errno.ENOSPC, "No space left on device", "/cache/x"),
            "No space left on device for /cache/x, ",
        ),
    ],
)
def test_a_full_disk_is_told_with_what_is_free(error: OSError, said: str, tmp_path: Path) -> None:
    if error.filename is not None:
        error.filename = error.filename.format(folder=tmp_path)
    path, free = tmp_path / "new" / "report.json", shutil.disk_usage(tmp_path).free / 1e6
    with pytest.raises(IlBenchError) as caught, writing(path, "make room"):
        raise error
    start, _, rest = str(caught.value).rpartition(", ")
    assert f"{start}, " == f"{path}: cannot be written ({said}"
    told, unit = rest.removesuffix("); make room").split(" ", 1)
    assert unit == "MB free" and float(told) == pytest.approx(free, rel=0.2)


class Arm(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)

    name: str
    joints: int
    reach: dict[str, float]
    limits: list[list[float]]


ARM: dict[str, Any] = {
    "name": "arm",
    "joints": 2,
    "reach": {"low": 0.0, "high": 1.5},
    "limits": [[-1.0, 1.0], [0.0, 2.0]],
}


@pytest.fixture
def arm(tmp_path: Path) -> Path:
    path = tmp_path / "arm.json"
    path.write_text(json.dumps(ARM))
    return path


def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(LARGEST + 1)


@pytest.mark.parametrize(
    ("name", "make", "said"),
    [
        ("none.json", None, "No such file"),
        ("folder", Path.mkdir, "a folder, not a file"),
        ("pipe", os.mkfifo, "only regular files are read"),
        ("/dev/zero", None, "only regular files are read"),
        ("/dev/tty", None, "only regular files are read"),
        ("loop", lambda path: path.symlink_to(path), "symbolic links"),
        ("x" * 300, None, "File name too long"),
        ("x/" * 3000, None, "File name too long"),
        ("~nosuchuser", None, "No such file"),
        ("a\0b", None, "null"),
        ("\ud800", None, "surrogates"),
        ("large.json", _sparse, "larger than the 67,108,864 bytes"),
    ],
)
def test_what_is_no_file_to_read_is_told_and_never_opened(
    tmp_path: Path, name: str, make: Callable[[Path], object] | None, said: str
) -> None:
    path = tmp_path / name
    if make:
        make(path)
    with pytest.raises(IlBenchError, match=said) as caught:
        read_whole(path, "copy it again")
    assert str(caught.value).endswith("; copy it again")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "broken JSON at line 1, column 1"),
        (b'{"a": 1', "broken JSON at line 1, column 8"),
        (b'{"a": "\xff"}', r"not UTF-8 text \(byte 7\)"),
        (b"[1]", "holds a list, not an object with fields"),
        (b"null", "holds null, not an object with fields"),
        (b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "JSON nested more than 100 deep, after a"),
        (b'{"b": {"a": ' + b"[" * 150 + b"]" * 150 + b"}}", r"b\.a\.0 is nested more than 100 deep"),
        (b'{"a": [1, ' + b"9" * 5000 + b"]}", r"a\.1 has more than 300 digits"),
        (b'{"a": {"b": 1, "c": 2, "b": 1}}', r"a\.b occurs twice"),
        (b'{"a": NaN}', "a is nan, not a finite number"),
        (b'{"a": [1e999]}', r"a\.0 is inf"),
        (b'{"a": "\\ud800"}', "a = .* holds half a character"),
        (b'{"a": {"\\udc80": 1}}', "a has a name with half a character"),
    ],
)
def test_json_that_nobody_could_work_with_is_refused_by_its_place(content: bytes, said: str) -> None:
    with pytest.raises(IlBenchError, match=f"^arm.json, line 3: {said}.*; copy it again$"):
        parse_json(content, "arm.json, line 3", "copy it again")


def test_json_as_others_write_it_is_read_as_it_is() -> None:
    content = {"seed": 2**64 - 1, "uuid": 10**40, "é 😀": ["é 😀"], "a": [[[]]], "": -0.0, "e": 1e300}
    for ascii_only in (True, False):
        assert parse_json(json.dumps(content, ensure_ascii=ascii_only).encode(), "x", "y") == content
    statistics = parse_json(b'{"mean": [NaN, -Infinity]}', "stats.json", "y", allow_nan=True)
    assert str(statistics) == "{'mean': [nan, -inf]}"


def test_errors_show_escape_sequences_and_do_not_quote_whole_files() -> None:
    error = IlBenchError("a\x1b[31m\ud800:\n no\tsuch " + "x" * 5000 + "; give another")
    assert str(error).startswith(r"a\x1b[31m\ud800: no\tsuch xxx")
    assert str(error).endswith("xxx; give another")
    assert len(str(error)) <= 2000


def as_model(path: Path) -> Arm:
    return read_model(Arm, path, "copy it again")


@pytest.mark.parametrize("examples", FUZZ)
def test_no_third_outcome_of_json_and_models(arm: Path, examples: int) -> None:
    def write_model(path: Path, value: Arm) -> None:
        path.write_text(value.model_dump_json())

    def write_json(path: Path, value: Any) -> None:
        path.write_text(json.dumps(value))

    assert min(fuzz(arm, as_model, write_model, examples=examples).values()) > examples / 50
    fuzz(arm, lambda path: read_json(path, "copy it again"), write_json, examples=examples)
    assert json.loads(arm.read_text()) == ARM


def _forgets(path: Path) -> Any:
    return {**as_model(path).model_dump(), "joints": object()}


def _blames_the_file(path: Path) -> Any:
    try:
        return as_model(path)
    except IlBenchError:
        raise IlBenchError(f"{path}: damaged; copy it again") from None


@pytest.mark.parametrize(
    ("read", "said"),
    [
        (lambda path: json.loads(path.read_bytes()), "JSONDecodeError|RecursionError|ValueError"),
        (lambda path: Arm(**read_json(path, "copy it again")), "ValidationError|TypeError"),
        (_forgets, "another value after a round trip"),
        (_blames_the_file, "none of"),
    ],
)
def test_the_fuzz_finds_a_third_outcome(arm: Path, read: Callable[[Path], Any], said: str) -> None:
    with pytest.raises(BaseException) as caught:  # hypothesis may raise a group of them
        fuzz(arm, read, lambda path, value: path.write_text(json.dumps(ARM)), examples=100)
    errors = getattr(caught.value, "exceptions", [caught.value])
    assert any(re.search(said, f"{type(error).__name__} {error}") for error in errors)
    assert json.loads(arm.read_text()) == ARM
