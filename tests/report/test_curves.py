"""Training is watched: what a run's log says, beside the shipped policies, in words and on a page."""

import re
from dataclasses import asdict
from pathlib import Path

import pytest
from typer.testing import CliRunner

from il_bench import zoo
from il_bench.cli import app
from il_bench.errors import IlBenchError
from il_bench.report import curves
from il_bench.train.log import Progress, TrainingLog
from tests.report.test_page import data_of


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run that still goes on: its first phase is over, its last line half written."""
    log = TrainingLog(tmp_path, 0, lambda _: None, residual_vq_steps=120)
    for step in (50, 100, 150, 200, 250):
        phase = "residual VQ" if step <= 100 else "policy"
        log.training(**asdict(Progress(step, phase, step / 100, 1e-3, 9.0, 1.0, 0.1)))
        if step in (150, 200):
            log.evaluation(step, 1.2 - step / 200, 0.9)
    with (tmp_path / "train_log.csv").open("a") as file:
        file.write("300,policy,0.0")
    return tmp_path


def test_a_curve_is_the_policys_own_and_ends_where_the_log_does(run: Path) -> None:
    found = curves.read(str(run))
    assert found.loss == ((200, 2.0), (250, 2.5)), "the row at 150 is a mean over both phases"
    assert found.success == ((150, 0.45), (200, 0.2))
    said = f"{run}: step 250, loss 2.5; success_rate 0.200 at step 200, best 0.450 at step 150"
    assert str(found) == said
    assert curves.read(str(run / "train_log.csv")).success == found.success
    (run / "train_log.csv").write_text("step,loss\n")
    assert str(curves.read(str(run))).endswith("has no losses of the policy yet")


def test_the_command_draws_runs_beside_the_shipped_policies(run: Path, tmp_path: Path) -> None:
    output = tmp_path / "curves.html"
    done = CliRunner().invoke(app, ["report", "curves", str(run), "--output", str(output)])
    assert done.exit_code == 0, done.output
    assert done.output.splitlines() == [str(curves.read(str(run))), f"made: {output}"]
    text = output.read_text()
    drawn = data_of(text)["curves"]
    assert [each["name"] for each in drawn] == [str(run), *zoo.shipped("keypoints")]
    assert [each["is_shipped"] for each in drawn] == [False, *[True] * len(zoo.shipped("keypoints"))]
    assert drawn[0]["loss"] == [[200, 2.0], [250, 2.5]] and drawn[0]["first"] == 2.0
    assert "<title>il_bench: How runs learned</title>" in text
    assert not re.search(r'id="(numbers|environment|episodes)"', text), "no part of a run that is not there"


@pytest.mark.parametrize(("log", "said"), [(None, "there is no train_log.csv"), ("stop\n1\n", "line 1")])
def test_what_is_no_run_is_named(log: str | None, said: str, tmp_path: Path) -> None:
    if log is not None:
        (tmp_path / "train_log.csv").write_text(log)
    with pytest.raises(IlBenchError, match=said):
        curves.read(str(tmp_path))
