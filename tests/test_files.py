"""Files written whole or not at all."""

import errno
import os
import shutil
import stat
from pathlib import Path

import filelock
import pytest

from il_bench.errors import IlBenchError
from il_bench.files import write_whole, writing


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
