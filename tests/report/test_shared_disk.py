"""A disk that runs share, that is full, or whose machines' clocks differ: one sentence, nothing mixed."""

import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from threading import Barrier, Thread

import numpy as np
import pytest

from il_bench.errors import IlBenchError
from il_bench.files import locked, reserved
from il_bench.report import history, schema, shards
from il_bench.rollout import run_block
from il_bench.rollout.recordings import Recordings
from tests.conftest import largest_file
from tests.report.made import report
from tests.report.test_shards import KNOWN, made
from tests.rollout.policies import Wander

LINE = history.line_of(report(success=[]))


def test_a_folder_is_held_by_one_run_at_a_time(tmp_path: Path) -> None:
    said = "out: another run is writing to this folder; let it finish, or"
    with reserved(tmp_path / "out", ""):
        with pytest.raises(IlBenchError, match=f"{said} leave$"), reserved(tmp_path / "out", "leave"):
            pass
        with pytest.raises(IlBenchError, match=f"{said} name another --output$"):
            shards.merge([made(tmp_path / "1", 1, 1)], tmp_path / "out", KNOWN)
    with reserved(tmp_path / "out", "use another"):
        pass


def test_runs_that_end_together_each_add_a_line(tmp_path: Path) -> None:
    """Lines too long to be written at once."""
    long = LINE.model_copy(update={"versions": {f"package{number}": "1.0" for number in range(3000)}})
    path, together = tmp_path / "runs.jsonl", Barrier(8)

    def add() -> None:
        together.wait()
        history.append(path, long)

    threads = [Thread(target=add) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert history.load(path) == [long] * 8


def test_who_waits_too_long_for_a_file_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "runs.jsonl"
    monkeypatch.setattr(history, "_LOCK_SECONDS", 0.1)
    said = r"runs.jsonl: another process has held its lock for 0.1 s; name"
    with locked(path.with_name(".runs.jsonl.lock"), path, "", ""), pytest.raises(IlBenchError, match=said):
        history.append(path, LINE)


def test_runs_stay_in_the_order_in_which_they_ended_though_the_clock_jumped_back(tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    for hours, commit in ((0, "first"), (-5, "second"), (1, "third")):
        when = LINE.created + timedelta(hours=hours)
        history.append(path, LINE.model_copy(update={"created": when, "commit": commit}))
    assert [line.commit for line in history.load(path)] == ["first", "second", "third"]


def shard(folder: Path) -> None:
    shards.save(folder, shards.load(folder))


def recording(folder: Path) -> None:
    Recordings(folder, "mine", "keypoints").save(run_block(Wander(), np.arange(200_000, 200_050)))


#: How each file of a report folder is written, and the file.
WRITERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "report": (lambda folder: schema.save(folder / "report.json", report(success=[])), "report.json"),
    "shard": (shard, "shard.json"),
    "history": (lambda folder: history.append(folder / "runs.jsonl", LINE), "runs.jsonl"),
    "recording": (recording, "recordings/mine.keypoints/200000.npz"),
    "merge": (lambda out: shards.merge([out], out / "all", KNOWN), "all/journal/act.keypoints.jsonl"),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_what_does_not_fit_is_told_and_what_was_there_stays(tmp_path: Path, kind: str) -> None:
    write, name = WRITERS[kind]
    folder = made(tmp_path / "out", 1, 1)
    write(folder)
    path = folder / name
    before = path.read_bytes()
    size = len(before) // 2 if kind != "history" else len(before)
    with largest_file(size), pytest.raises(IlBenchError, match=re.escape(path.name.split(".")[0])) as told:
        write(folder)
    assert re.search(r"cannot be written \((File too large|No space left on device.*)\); ", str(told.value))
    assert ("--output" in str(told.value)) == (kind == "merge")
    if kind != "merge":  # which starts over
        assert path.read_bytes() == before
    write(folder)
    assert path.read_bytes().startswith(before)
    assert [left.name for left in folder.rglob(f".{path.name}.*") if not left.name.endswith(".lock")] == []
