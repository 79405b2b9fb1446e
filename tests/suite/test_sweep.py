"""`il-bench sweep`: every checkpoint of a run, measured once."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from typer.testing import CliRunner

from il_bench import rollout
from il_bench.cli import app
from il_bench.report import schema
from tests.gate.made import spread
from tests.report.test_page import data_of

RATES = {"000500": 0.3, "001000": 0.62, "10000": 0.6}


@pytest.fixture
def run(tmp_path: Path, checkpoint: Path) -> Path:
    """A run with three checkpoints, and what else such a folder may hold."""
    for number, name in enumerate(RATES):
        copy = shutil.copytree(checkpoint, tmp_path / "run" / "checkpoints" / name / "pretrained_model")
        (copy / "training.json").write_text(json.dumps({"data": {"name": f"data {number}"}}))
        config = json.loads((copy / "config.json").read_text())
        (copy / "config.json").write_text(json.dumps(config | {"optimizer_lr": 1e-5 * (number + 1)}))
    checkpoints = tmp_path / "run" / "checkpoints"
    (checkpoints / "last").symlink_to("10000")
    (checkpoints / "notes").mkdir()
    (checkpoints / "020000").mkdir()  # is being written
    return tmp_path / "run"


@pytest.fixture
def rolled_out(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of checkpoints that were rolled out; each has its rate of RATES."""
    found: list[str] = []

    def instead(source: Any, seeds: range, **_: Any) -> Any:
        found.append(source.name)
        return spread(RATES[source.name], len(seeds), seeds[0])

    monkeypatch.setattr(rollout, "rollout", instead)
    return found


def swept(run: Path, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["sweep", str(run), "--workers", "1", *arguments])


def changed(run: Path, step: str) -> None:
    """Let the checkpoint of a step be another."""
    path = run / "checkpoints" / step / "pretrained_model" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"optimizer_lr": 1e-3}))


def test_every_checkpoint_is_measured_in_the_order_of_its_steps(run: Path, rolled_out: list[str]) -> None:
    result = swept(run / "checkpoints")
    assert result.exit_code == 0, result.output
    assert rolled_out == list(RATES)
    lines = result.output.splitlines()
    assert lines[1].startswith("step     1,000  0.620 [0.55, 0.69]  |")
    assert lines[1].rindex("o") - lines[1].index("|") == 1 + round(40 * 0.62)
    assert lines[3] == "best: step 1,000, success_rate 0.620; not shown to be worse: 10,000"
    assert lines[4].endswith(f"il-bench evaluate {run}/checkpoints/001000 --seeds test --episodes 1000")
    made = schema.load(run / "sweep" / "report.json")
    assert [row.policy for row in made.success] == list(RATES)
    assert made.success[0].episodes[0].seed == 100_000
    (curve,) = data_of((run / "sweep" / "curve.html").read_text())["curves"]
    assert curve["name"] == "run" and curve["success"] == [[500, 0.3], [1000, 0.62], [10000, 0.6]]
    assert curve["intervals"][1][1:] == pytest.approx([0.549, 0.6875], abs=1e-3)
    assert (run / "sweep" / "curve.svg").read_text().count("<svg") == 1


def test_what_is_known_is_not_rolled_out_again(run: Path, rolled_out: list[str]) -> None:
    given = ("--output", str(run / "x"), "--episodes", "20")
    swept(run, *given)
    changed(run, "001000")
    assert swept(run, *given, "--resume").exit_code == 0
    assert rolled_out[3:] == ["001000"], "only its files have changed"
    path = run / "x" / "report.json"
    report = json.loads(path.read_text())
    report["environment"]["fingerprint"]["torch"] = "1.0"
    path.write_text(json.dumps(report))
    other = swept(run, *given, "--resume")
    assert other.exit_code == 2 and "its episodes are of other conditions (torch" in other.output


def test_an_interruption_keeps_the_rows_that_were_still_to_come(
    run: Path, rolled_out: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    swept(run)
    for name in ("000500", "001000"):
        changed(run, name)
    once = rollout.rollout

    def interrupted(source: Any, seeds: range, **options: Any) -> Any:
        if source.name == "001000":
            raise KeyboardInterrupt
        return once(source, seeds, **options)

    monkeypatch.setattr(rollout, "rollout", interrupted)
    assert swept(run, "--resume").exit_code != 0
    assert rolled_out[3:] == ["000500"]
    monkeypatch.setattr(rollout, "rollout", once)
    assert swept(run, "--resume").exit_code == 0
    assert rolled_out[4:] == ["001000"]
    made = schema.load(run / "sweep" / "report.json")
    assert [row.policy for row in made.success] == list(RATES)


def test_a_broken_checkpoint_costs_itself(run: Path, rolled_out: list[str]) -> None:
    (run / "checkpoints" / "000500" / "pretrained_model" / "model.safetensors").write_bytes(b"half")
    result = swept(run)
    assert result.exit_code == 1 and rolled_out == ["001000", "10000"]
    assert "il-bench: step 500: " in result.output and "model.safetensors" in result.output
    assert (run / "sweep" / "curve.html").exists()


@pytest.mark.parametrize("name", ["nowhere", "run/checkpoints/notes"])
def test_what_is_no_run_is_named(run: Path, name: str) -> None:
    result = swept(run.parent / name)
    assert result.exit_code == 2 and "holds no checkpoints, as lerobot-train" in result.output


def test_a_real_sweep_gives_what_an_evaluation_gives(
    run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("il_bench.rollout.blocks.MAX_STEPS", 3)
    assert swept(run, "--episodes", "2").exit_code == 0
    made = schema.load(run / "sweep" / "report.json")
    path = run / "checkpoints" / "001000"
    arguments = ["evaluate", str(path), "--episodes", "2", "--output", str(tmp_path / "one.json")]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    one = json.loads((tmp_path / "one.json").read_text())
    assert one["mean_max_reward"] == made.success[1].mean_max_reward.model_dump()
    assert one["sha256"] == made.success[1].sha256
    assert np.isfinite(made.success[1].mean_max_reward.estimate)
