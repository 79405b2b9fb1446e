"""What a run says: rows of train_log.csv, and what VQ-BeT's first phase means for its rates."""

import csv
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from il_bench.errors import IlBenchError
from il_bench.train.log import Display, Progress, TrainingLog


def at(step: int) -> Progress:
    return Progress(step, "policy", loss=1.0, lr=1e-3, seconds=1.0, data_share=0.1, steps_per_second=1.0)


@pytest.mark.parametrize(
    ("start", "residual_vq_steps", "is_told"),
    [
        (0, 120, True),
        (60, 120, True),
        (0, 0, False),
        (120, 120, False),  # resumed past it
    ],
)
def test_the_beginning_and_the_end_of_the_first_phase_are_told_once(
    start: int, residual_vq_steps: int, is_told: bool, tmp_path: Path
) -> None:
    notes: list[str] = []
    log = TrainingLog(tmp_path, start, notes.append, residual_vq_steps=residual_vq_steps, steps=1000)
    for step in range(start + 50, 250, 50):
        log.training(**asdict(at(step)))
    assert not any("too few to train" in note for note in notes)
    said = (
        ["steps 1 to 120 train the residual VQ alone", "step 120: the residual VQ is trained"]
        if is_told
        else []
    )
    assert len(notes) == len(said) and all(map(str.startswith, notes, said))


def test_a_rate_measured_in_the_first_phase_is_void(tmp_path: Path) -> None:
    notes: list[str] = []
    log = TrainingLog(tmp_path, 0, notes.append, residual_vq_steps=120, steps=120)
    assert "120 steps are too few to train the policy at all" in notes[0]
    # At the end of the phase the policy is still as it was drawn.
    assert [log.has_policy(step) for step in (60, 120, 121)] == [False, False, True]
    assert [note.partition(",")[0] for note in notes[1:]] == ["step 60: no policy yet"]  # said once
    assert TrainingLog(tmp_path, 0, notes.append).has_policy(0)


def test_the_file_forgets_what_came_after_the_checkpoint(tmp_path: Path) -> None:
    first = TrainingLog(tmp_path, 0, print)
    for step in (50, 100, 150):
        first.training(**asdict(at(step)))
    second = TrainingLog(tmp_path, 100, print)
    second.training(**asdict(at(150)))
    second.evaluation(150, 0.5, 0.75)
    rows = list(csv.DictReader((tmp_path / "train_log.csv").read_text().splitlines()))
    assert [row["step"] for row in rows] == ["50", "100", "150", "150"]
    assert (rows[-1]["success_rate"], rows[-1]["loss"]) == ("0.5000", "")


@pytest.mark.parametrize("cut", [1, 4, 20])
def test_a_last_line_that_a_kill_cut_short_is_dropped(cut: int, tmp_path: Path) -> None:
    first, path = TrainingLog(tmp_path, 0, print), tmp_path / "train_log.csv"
    for step in (50, 100):
        first.training(**asdict(at(step)))
    first.evaluation(100, 0.5, 0.9375)
    path.write_bytes(path.read_bytes()[:-cut])  # what is left may look like a row with another number
    TrainingLog(tmp_path, 100, print).training(**asdict(at(150)))
    rows = list(csv.DictReader(path.read_text().splitlines()))
    assert [(row["step"], row["success_rate"]) for row in rows] == [("50", ""), ("100", ""), ("150", "")]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda text: text.replace("\n100,", "\n1oo,"), r"train_log\.csv, line 3: '1oo,policy"),
        (lambda text: text.replace(",1,", ",one,"), r"train_log\.csv, line 2: '50,policy,one"),
        (lambda text: text.replace("policy,1,", "policy,"), r"train_log\.csv, line 2: "),
        (lambda text: text.replace("step", "stop", 1), r"train_log\.csv, line 1: 'stop,phase"),
        (lambda text: "\0" * len(text) + "\n", r"train_log\.csv, line 1: "),
        (lambda text: "\ud800", r"train_log\.csv: not UTF-8 text \(byte 0"),
    ],
)
def test_a_damaged_log_is_named_before_the_first_step_and_stays(
    damage: Callable[[str], str], said: str, tmp_path: Path
) -> None:
    first, path = TrainingLog(tmp_path, 0, print), tmp_path / "train_log.csv"
    for step in (50, 100):
        first.training(**asdict(at(step)))
    path.write_text(damage(path.read_text()), errors="surrogatepass")
    before = path.read_bytes()
    with pytest.raises(IlBenchError, match=f"{said}.*; move it away to continue without its rows"):
        TrainingLog(tmp_path, 100, print)
    assert path.read_bytes() == before


def test_a_log_that_cannot_be_written_says_how_to_go_on(tmp_path: Path) -> None:
    log = TrainingLog(tmp_path, 0, print)
    log.training(**asdict(at(50)))
    (tmp_path / "train_log.csv").unlink()
    (tmp_path / "train_log.csv").mkdir()
    with pytest.raises(IlBenchError, match=r"train_log\.csv: cannot be written .*command with --resume"):
        log.training(**asdict(at(100)))


def test_the_time_left_goes_by_the_phase_that_trains(capsys: pytest.CaptureFixture[str]) -> None:
    """VQ-BeT's first 1,000 steps take 10 s here, and the rest ten times as long for each."""
    with Display(4000) as display:
        for step, seconds in ((500, 5.0), (1000, 10.0), (1050, 15.0), (1500, 60.0), (2000, 110.0)):
            phase = "residual VQ" if step <= 1000 else "policy"
            display.show(Progress(step, phase, 1.0, 1e-3, step / seconds, seconds, 0.1))
    lines = capsys.readouterr().out.splitlines()
    assert [line.rpartition(", ")[2] for line in lines] == ["100 steps/s"] * 2 + ["4 min left", "3 min left"]
    assert "residual VQ: loss 1, 100 steps/s" in lines[1] and "policy: loss 1, 10 steps/s" in lines[2]


@pytest.mark.parametrize("is_terminal", [False, True])
def test_a_bar_in_a_terminal_and_lines_elsewhere(
    is_terminal: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: is_terminal)
    with Display(1000) as display:
        for step in (450, 500, 550):
            display.show(at(step))
        display.say("a note")
    said: Any = capsys.readouterr()
    assert ("step 500/1000  policy: loss 1" in said.out) is not is_terminal
    assert ("550/1000" in said.err) is is_terminal
    assert said.out.count("\n") == (0 if is_terminal else 2) and "a note" in said.out + said.err
