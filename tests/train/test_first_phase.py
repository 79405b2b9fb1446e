"""VQ-BeT's first phase in il_bench's own training loop: its end is told, and its rates are not kept."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from il_bench import cli
from il_bench.train.log import TrainingLog
from il_bench.train.loop import Progress


def at(step: int) -> Progress:
    return Progress(
        step, 1000, "policy", loss=1.0, lr=1e-3, seconds=1.0, data_share=0.1, steps_per_second=1.0
    )


def test_its_beginning_and_its_end_are_told_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with TrainingLog(tmp_path, 0, first_phase_steps=120, steps=1000) as log:
        for step in (50, 100, 150, 200):
            log.progress(at(step))
    said = capsys.readouterr().out
    assert said.count("steps 1 to 120 train the residual VQ alone") == 1
    assert said.count("step 120: first phase over") == 1


def test_a_run_that_ends_in_it_is_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with TrainingLog(tmp_path, 0, first_phase_steps=120, steps=120):
        pass
    assert "train no policy at all" in capsys.readouterr().out


def test_a_policy_without_one_and_a_run_past_it_say_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for start, first_phase_steps in ((0, 0), (150, 120)):
        with TrainingLog(tmp_path, start, first_phase_steps=first_phase_steps, steps=1000) as log:
            log.progress(at(200))
    assert "phase" not in capsys.readouterr().out.replace("policy:", "")


@pytest.mark.parametrize("step", [60, 120])  # at its very end the policy is still as it was drawn
def test_a_rate_measured_in_it_is_void(step: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    average: Any = SimpleNamespace(policy=None)
    trainer = SimpleNamespace(step=step, first_phase_steps=120, average=average)
    rates = cli._validate(cast(Any, trainer), 1)
    assert all(math.isnan(rate) for rate in rates)
    with TrainingLog(tmp_path, 0, first_phase_steps=120, steps=1000) as log:
        log.evaluation(step, *rates)
    assert f"step {step}: no policy yet" in capsys.readouterr().out
    assert len((tmp_path / "train_log.csv").read_text().splitlines()) == 1
