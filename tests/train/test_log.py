"""What a run says: rows of train_log.csv, and what VQ-BeT's first phase means for its rates."""

import csv
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

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
    assert [note.partition(",")[0] for note in notes[1:]] == [f"step {n}: no policy yet" for n in (60, 120)]
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
