"""The script behind the training speed trains the same thing on both sides and judges it rightly."""

import os
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from lerobot.optim.factory import make_optimizer_and_scheduler

from benchmarks.train_speed import Job, Turn, lerobot_config, measured, row
from il_bench.errors import IlBenchError
from il_bench.train.loop import Trainer

JOB = Job("act", 8, "float32", "expert", core=min(os.sched_getaffinity(0)))
OWN = ("use_amp",)  # how LeRobot is told of bfloat16


@pytest.mark.parametrize("autocast", ["float32", "bfloat16"])
def test_both_sides_train_the_same(tmp_path: Path, autocast: str) -> None:
    job = replace(JOB, autocast=autocast)
    ours = Trainer(job.recipe, job.data, seed=1, output=tmp_path)
    theirs = lerobot_config(job, tmp_path / "run")
    assert theirs.policy is not None
    assert theirs.policy.use_amp == (autocast == "bfloat16")
    theirs.policy.input_features = ours.policy.config.input_features  # LeRobot's make_policy fills them in
    theirs.policy.output_features = ours.policy.config.output_features
    left, right = asdict(theirs.policy), asdict(ours.policy.config)
    assert {key: left[key] for key in left if key not in OWN} == {k: right[k] for k in right if k not in OWN}
    assert (theirs.batch_size, theirs.steps) == (8, ours.settings.steps)
    optimizer, schedule = make_optimizer_and_scheduler(theirs, ours.policy)
    for name in ("betas", "weight_decay", "eps"):
        assert optimizer.defaults[name] == ours.optimizer.defaults[name]
    assert theirs.optimizer.grad_clip_norm == ours.settings.grad_clip_norm
    warm = ours.settings.warmup_steps
    for _ in range(warm):
        optimizer.step()
        schedule.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(ours.settings.lr)
    assert (theirs.save_checkpoint, theirs.log_freq, theirs.env_eval_freq) == (False, 0, 0)
    frames = torch.tensor([0])
    assert ours.windows.batch(frames)["action"].shape[1] == len(theirs.policy.action_delta_indices)


def test_what_lerobots_loop_cannot_train_is_one_clear_error() -> None:
    with pytest.raises(IlBenchError, match="no way to train vqbet"):
        _ = replace(JOB, policy="vqbet").recipe


@pytest.mark.parametrize(
    ("theirs", "data", "core", "right"),
    [(0.2, 0.001, 0, True), (0.12, 0.001, 0, False), (0.2, 0.003, 0, False), (0.12, 0.001, None, True)],
)
def test_one_core_decides(theirs: float, data: float, core: int | None, right: bool) -> None:
    """Ours takes 0.1 s a step, 1 GFLOP at 20 GFLOP/s being the floor."""
    turns = {
        "ours": [Turn(0.1, 0.09, data, 20e9)] * 3,
        "LeRobot": [Turn(theirs, 0.18, 0.05)] * 3,
    }
    cells, verdict = row(replace(JOB, core=core), 10**9, turns)
    assert verdict is right
    assert cells[1:4] == [
        f"{1 / theirs:.2f}",
        "10.00",
        f"{10 * theirs:.2f} [{10 * theirs:.2f}, {10 * theirs:.2f}]",
    ]
    assert cells[6] == "2.00 [2.00, 2.00]"
    assert cells[-2:] == ["3.6", "1.8"]


@pytest.mark.slow
def test_both_sides_take_turns() -> None:
    flops, turns = measured(JOB, rounds=2, steps=2)
    layers = [(36, 512), *[(512, 512)] * 6, (512, 32)]
    forward = sum(2 * JOB.batch * a * b for a, b in layers)
    assert flops == 3 * forward - 2 * JOB.batch * 36 * 512, "no gradient of the observations"
    assert {name: len(found) for name, found in turns.items()} == {"ours": 2, "LeRobot": 2}
    every = [*turns["ours"], *turns["LeRobot"]]
    assert all(0 < turn.data < turn.wall and turn.cpu > 0 for turn in every)
    assert all(turn.products > 1e8 for turn in turns["ours"])
