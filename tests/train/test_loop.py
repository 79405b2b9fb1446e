"""Training: a run interrupted and resumed equals one that was not; averages, schedules, refusals."""

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from il_bench.data import open_dataset
from il_bench.errors import IlBenchError
from il_bench.train.log import Progress
from il_bench.train.loop import AveragedPolicy, Trainer
from il_bench.train.recipes import Training
from tests.train.small_runs import SMALL, STEPS, make, run_to, saved, small_recipe, weights


@pytest.mark.parametrize("name", sorted(SMALL))
def test_resumed_equals_uninterrupted(name: str, demos: Path, tmp_path: Path) -> None:
    """Stopped in VQ-BeT's first phase (step 2 of 4) and after it, across an epoch's end."""
    whole = make(name, demos, tmp_path / "whole")
    run_to(whole, STEPS)
    for stop in (2, 7):
        output = tmp_path / f"stopped-{stop}"
        first, _ = saved(name, demos, output, stop)
        torch.manual_seed(12345)  # another process starts with another generator
        second = make(name, demos, output)
        second.restore()
        assert (second.step, second.core_seconds) == (stop, first.core_seconds)
        assert first.core_seconds > 0.0
        run_to(second, STEPS)
        expected, found = weights(whole), weights(second)
        different = [key for key in expected if not torch.equal(expected[key], found[key])]
        assert not different, f"stopped at {stop}: {different}"


def test_another_seed_gives_another_policy(demos: Path, tmp_path: Path) -> None:
    one, two = make("bc", demos, tmp_path / "1"), make("bc", demos, tmp_path / "2", seed=2)
    assert not torch.equal(one.policy.net[0].weight, two.policy.net[0].weight)
    assert not torch.equal(one._epoch_order(0), two._epoch_order(0))


def test_each_epoch_visits_every_batch_once(demos: Path, tmp_path: Path) -> None:
    trainer, rows = make("bc", demos, tmp_path), []
    for step in range(len(trainer.frames) // 16):
        trainer.step = step
        rows += trainer._batch_rows().tolist()
    assert len(rows) == len(set(rows)) == 112  # 120 frames, batches of 16


def test_drop_n_last_frames_leaves_out_the_last_frames_of_each_episode(demos: Path, tmp_path: Path) -> None:
    recipe = small_recipe("diffusion", drop_n_last_frames=7)
    frames = set(Trainer(recipe, str(demos), seed=1, output=tmp_path).frames.tolist())
    assert frames == set(range(120)) - set(range(33, 40)) - set(range(63, 70)) - set(range(113, 120))


def test_average_starts_again_when_the_first_phase_ends(
    demos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = make("vqbet", demos, tmp_path)
    run_to(trainer, 4)
    assert capsys.readouterr().out == ""  # LeRobot prints that it has finished
    raw, averaged = trainer.policy.state_dict(), trainer.average.policy.state_dict()
    assert all(torch.equal(raw[key], averaged[key]) for key in raw)
    run_to(trainer, 6)
    raw, averaged = trainer.policy.state_dict(), trainer.average.policy.state_dict()
    assert any(not torch.equal(raw[key], averaged[key]) for key in raw)
    books = [key for key in raw if "vq_layer" in key]
    assert books and all(torch.equal(raw[key], averaged[key]) for key in books)


def test_the_average_is_worked_out_by_hand() -> None:
    policy: Any = torch.nn.Module()
    policy.weight = torch.nn.Parameter(torch.tensor([0.0]))
    policy.register_buffer("codes", torch.tensor([0.0]))
    average = AveragedPolicy(policy, decay=0.15)
    for value in (1.0, 3.0):
        policy.weight.data.fill_(value)
        policy.codes.fill_(value)
        average.update(policy)
    # decay min(0.15, 1/10) and then min(0.15, 2/11): 0.9 * 1, and 0.15 * 0.9 + 0.85 * 3
    assert average.policy.weight.item() == pytest.approx(0.15 * 0.9 + 0.85 * 3.0)
    assert average.policy.codes.item() == 3.0


def test_the_learning_rate_rises_and_falls_after_the_first_phase() -> None:
    settings = Training(steps=24, batch_size=16, lr=0.1, warmup_steps=2)
    factors = [settings.lr_factor(step, residual_vq_steps=4) for step in range(24)]
    assert factors[:4] == [1.0] * 4  # residual VQ, at its own constant rate
    assert factors[4] == 0.5 and factors[5] > 0.9  # two steps of warm-up
    assert factors[14] == pytest.approx(0.5)  # half-way down the cosine
    assert factors[23] < 0.02


def test_a_cooldown_ends_a_longer_cosine() -> None:
    settings = Training(steps=20, batch_size=16, lr=0.1, warmup_steps=0, cosine_steps=40, cooldown_steps=10)
    cosine = [0.5 * (1 + np.cos(np.pi * step / 40)) for step in (10, 15)]
    factors = [settings.lr_factor(step) for step in (0, 10, 15, 20)]
    assert factors == pytest.approx([1.0, cosine[0], cosine[1] / 2, 0.0])


def test_the_folder_holds_the_average_the_raw_weights_and_what_made_them(demos: Path, tmp_path: Path) -> None:
    trainer, folder = saved("bc", demos, tmp_path, 3)
    averaged = load_file(folder / "pretrained_model" / "model.safetensors")
    raw = load_file(folder / "training_state" / "raw.safetensors")
    assert torch.equal(averaged["net.0.weight"], trainer.average.policy.net[0].weight)
    assert torch.equal(raw["net.0.weight"], trainer.policy.net[0].weight)
    assert not torch.equal(averaged["net.0.weight"], raw["net.0.weight"])
    facts = json.loads((folder / "pretrained_model" / "training.json").read_text())
    assert facts["seed"] == 1 and facts["step"] == 3
    assert facts["recipe"] == trainer.recipe.model_dump(mode="json")
    assert facts["data"]["name"] == "demos" and facts["data"]["frames"] == 120
    assert len(facts["data"]["sha256"]) == 64


def test_a_run_with_other_settings_is_not_resumed(demos: Path, tmp_path: Path) -> None:
    saved("bc", demos, tmp_path)
    with pytest.raises(IlBenchError, match=r"other settings \(seed was 1, is 2\)"):
        make("bc", demos, tmp_path, seed=2).restore()
    with pytest.raises(IlBenchError, match=r"10 steps, and a run cannot be shortened to 5; give --steps 10"):
        make("bc", demos, tmp_path, steps=5).restore()
    with pytest.raises(IlBenchError, match=r"other settings \(seed was 1, is 2\)"):
        Trainer(small_recipe("bc", 20), str(demos), seed=2, output=tmp_path).restore()


def extended(demos: Path, output: Path, steps: int, to: int) -> list[float]:
    """Resume a run as one of so many steps, train on to a step and save; its learning rates."""
    trainer, rates = make("bc", demos, output, steps=steps), []
    trainer.restore()
    while trainer.step < to:
        trainer.train_step()
        rates.append(trainer.optimizer.param_groups[0]["lr"] / trainer.settings.lr)
    trainer.save()
    return rates


def test_a_run_is_extended_on_the_schedule_of_its_new_length(demos: Path, tmp_path: Path) -> None:
    saved("bc", demos, tmp_path / "a", STEPS)
    rates = extended(demos, tmp_path / "a", 20, 20)
    longer = Training(steps=20, batch_size=16, lr=1e-3, warmup_steps=2)
    # In two steps from where the first plan ended, at 0, to the cosine of 20 steps.
    assert rates == pytest.approx([longer.lr_factor(10) / 2, *map(longer.lr_factor, range(11, 20))])
    facts = json.loads((tmp_path / "a/checkpoints/last/pretrained_model/training.json").read_text())
    assert facts["extended"] == [{"at": 10, "steps": 10, "cosine_steps": None}]
    assert (facts["recipe"]["training"]["steps"], facts["step"]) == (20, 20)

    saved("bc", demos, tmp_path / "b", STEPS)
    for to in (14, 20):  # interrupted, and twice extended
        extended(demos, tmp_path / "b", 20, to)
    for output in ("a", "b"):
        assert extended(demos, tmp_path / output, 30, 30)[-1] < 0.02
    one, two = (weights(_restored(demos, tmp_path / name)) for name in ("a", "b"))
    assert all(torch.equal(one[key], two[key]) for key in one)


def _restored(demos: Path, output: Path) -> Trainer:
    trainer = make("bc", demos, output, steps=30)
    trainer.restore()
    assert [(each.at, each.steps) for each in trainer.extended] == [(10, 10), (20, 20)]
    return trainer


def test_a_field_and_images_that_do_not_fit_are_named(demos: Path, pixels: Path, tmp_path: Path) -> None:
    with pytest.raises(IlBenchError, match="hiden_dim"):
        Trainer(small_recipe("bc", hiden_dim=5), str(demos), seed=1, output=tmp_path)
    with pytest.raises(IlBenchError, match=r"no keypoints .*, but .*observation\.image.*add --track pixels"):
        Trainer(small_recipe("act"), str(pixels), seed=1, output=tmp_path)


def test_the_last_checkpoint_and_the_one_before_are_kept(demos: Path, tmp_path: Path) -> None:
    make("bc", demos, tmp_path).run(save_every=4, on_progress=lambda _: None)
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["000008", "000010", "last"]
    assert (tmp_path / "checkpoints" / "last").resolve().name == "000010"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_finishes_the_step_saves_and_returns(
    number: signal.Signals, demos: Path, tmp_path: Path
) -> None:
    trainer, before = make("bc", demos, tmp_path, steps=2000), signal.getsignal(number)
    ticks: list[Progress] = []

    def interrupt(progress: Progress) -> None:
        ticks.append(progress)
        os.kill(os.getpid(), number)

    assert trainer.run(save_every=1000, on_progress=interrupt) is False
    assert signal.getsignal(number) is before
    assert ticks[0].step == trainer.step == 50
    again = make("bc", demos, tmp_path, steps=2000)
    again.restore()
    assert again.step == 50


@pytest.mark.parametrize("what", ["the loss is nan", "the gradient's norm is inf", "net.0.weight holds"])
def test_what_is_not_finite_stops_the_run_and_leaves_the_last_checkpoint(
    what: str, demos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer, last = saved("bc", demos, tmp_path, 2)
    before = weights(trainer)
    if what.startswith("the gradient"):
        monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda *_: torch.tensor(torch.inf))
    elif what.startswith("the loss"):
        trainer.windows._columns["action"][:] = torch.nan
    else:
        run_to(trainer, 3)
        trainer.policy.net[0].weight.data[0, 0] = torch.nan
        before = weights(trainer)
    with pytest.raises(IlBenchError, match=rf"^step [23]: {what}.*; the last good checkpoint is {last}\.$"):
        trainer.save() if what.startswith("net") else trainer.train_step()
    assert all(torch.equal(before[k], v) or what.startswith("net") for k, v in weights(trainer).items())
    assert (tmp_path / "checkpoints" / "last").resolve() == last
    with pytest.raises(IlBenchError, match="there is no checkpoint yet"):
        trainer.output = tmp_path / "new"
        raise trainer._diverged("x")


def test_statistics_of_other_data_and_a_column_that_never_varies_are_named_before_the_first_step(
    demos: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(open_dataset(demos).root, tmp_path / "copy")
    path = copy / "meta" / "stats.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"action": {"max": [1, 1], "min": [0, 0]}}))
    trainer = make("bc", copy, tmp_path / "run")
    assert trainer.computed_statistics == ["action"]  # LeRobot needs all of them
    stats = json.loads(path.read_text())
    stats["action"] = {name: [0.5, 0.5] for name in ("min", "max", "mean", "std")} | {"count": [120]}
    path.write_text(json.dumps(stats))
    with pytest.raises(IlBenchError, match=r"copy: meta/stats\.json: action: max is \[0\.5 0\.5\], and \["):
        make("bc", copy, tmp_path / "run")
    with np.load(demos) as arrays:
        columns = {**arrays, "state": arrays["state"].copy()}
    columns["state"][:, 1] = 256.0
    np.savez(tmp_path / "flat.npz", **columns)
    with pytest.raises(IlBenchError, match=r"flat\.npz: observation\.state: column 1 is 256 in every frame"):
        make("bc", tmp_path / "flat.npz", tmp_path / "run")


def test_training_lowers_the_loss(demos: Path, tmp_path: Path) -> None:
    trainer = make("bc", demos, tmp_path, steps=60)
    losses = [float(trainer.train_step()) for _ in range(60)]
    assert np.mean(losses[-10:]) < 0.9 * np.mean(losses[:10])
