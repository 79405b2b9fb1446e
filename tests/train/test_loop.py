"""Training: a run interrupted and resumed equals one that was not; averages, schedules, logs, refusals."""

import csv
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
from typer.testing import CliRunner

from il_bench.cli import app
from il_bench.data import open_dataset
from il_bench.errors import IlBenchError
from il_bench.train import recipes
from il_bench.train.batches import policy_config
from il_bench.train.log import Progress
from il_bench.train.loop import AveragedPolicy, Trainer
from il_bench.train.recipes import Recipe, Training
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


def test_average_starts_again_when_the_first_phase_ends(demos: Path, tmp_path: Path) -> None:
    trainer = make("vqbet", demos, tmp_path)
    run_to(trainer, 4)
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
    with pytest.raises(IlBenchError, match=r"recipe\.training\.steps was 10, is 20"):
        make("bc", demos, tmp_path, steps=20).restore()


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


def test_missing_statistics_are_computed_told_and_make_the_same_policy(
    demos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = small_recipe("bc", 2)
    monkeypatch.setattr(recipes, "load", lambda *_: recipe)
    copy = shutil.copytree(open_dataset(demos).root, tmp_path / "copy")
    (copy / "meta" / "stats.json").unlink()
    said = []
    for data, output in ((demos, "with"), (copy, "without")):
        train = ("train", "bc", "--data", data, "--output", tmp_path / output, "--eval-every", 0)
        result = il_bench(*train)
        assert result.exit_code == 0, result.output
        said.append(result.stderr)
    assert "copy: meta/stats.json holds no statistics of observation.state, obs" in said[1] and not said[0]
    folders = [tmp_path / name / "checkpoints/last/pretrained_model" for name in ("with", "without")]
    for name in ("model.safetensors", "policy_preprocessor_step_3_normalizer_processor.safetensors"):
        first, second = (load_file(folder / name) for folder in folders)
        assert second.keys() <= first.keys() and all(torch.equal(first[key], second[key]) for key in second)


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


def il_bench(*words: object) -> Any:
    return CliRunner().invoke(app, [str(word) for word in words])


def test_the_commands_help_names_every_policy_with_a_recipe() -> None:
    said = " ".join(il_bench("train", "--help").output.replace("│", " ").split())
    assert ", ".join(recipes.names("keypoints")) in said


def test_the_command_trains_logs_and_resumes(
    demos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = small_recipe("bc", 60)
    monkeypatch.setattr(recipes, "load", lambda *_: recipe)
    train = ["train", "bc", "--data", demos, "--output", tmp_path / "run"]
    train += ["--eval-every", 50, "--eval-episodes", 1]
    result = il_bench(*train)
    assert result.exit_code == 0, result.output
    rows = list(csv.DictReader((tmp_path / "run" / "train_log.csv").open()))
    assert [int(row["step"]) for row in rows] == [50, 50, 60]
    assert [row["success_rate"] for row in rows] == ["", "0.0000", ""]
    again = il_bench(*train)
    assert again.exit_code == 2 and "already holds a run; add --resume" in again.output
    resumed = il_bench(*train, "--resume")
    assert resumed.exit_code == 0, resumed.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("nothing --data x", "There is no recipe for policy 'nothing'"),
        ("bc --data x --track sound", "on track 'sound'"),
        ("bc --data no/such/folder", "no such file or folder"),
        ("bc --data x --resume", "holds no checkpoint to resume"),
        ("bc --data human", "IL_BENCH_HUMAN_DATA is not set"),
    ],
)
def test_bad_arguments_get_one_clear_line(
    arguments: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("IL_BENCH_HUMAN_DATA", raising=False)
    result = il_bench("train", *arguments.split(), "--output", tmp_path / "run")
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("changes", "overrides", "message"),
    [
        ({"training": 3}, {"steps": 2}, "training = 3: Input should be"),
        ({}, {"steps": 0}, "training.steps = 0: "),
        ({}, {"stesp": 5}, "training.stesp"),
        ({}, {"cosine_steps": 6}, "cosine_steps 6 is less than steps"),
    ],
)
def test_recipes_name_the_field_that_is_wrong(
    changes: dict[str, Any], overrides: dict[str, int], message: str
) -> None:
    good = {"policy": {"type": "il_bc"}, "training": {"steps": 7, "batch_size": 1, "lr": 0.1}}
    recipes.parse(Recipe, good, "mine.toml")
    with pytest.raises(IlBenchError, match=f"^mine.toml: .*{message}"):
        recipes.parse(Recipe, {**good, **changes}, "mine.toml", overrides)


def test_a_recipe_of_ones_own_is_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('[policy]\ntype = "il_bc"\n[training]\nsteps = 7\nbatch_size = 2\nlr = 0.1\n')
    assert recipes.load(str(path), "keypoints").training.steps == 7
    assert recipes.load(str(path), "keypoints", {"steps": 9}).training.steps == 9
    with pytest.raises(IlBenchError, match=r"none.toml: cannot be read \(No such file"):
        recipes.load(str(tmp_path / "none.toml"), "keypoints")
    for text, said in (("[policy\n", "is not valid TOML"), ("[policy]\n", "training.steps: Field required")):
        path.write_text(text)
        with pytest.raises(IlBenchError, match=f"mine.toml: {said}"):
            recipes.load(str(path), "keypoints")


@pytest.mark.parametrize("name", recipes.names("keypoints"))
def test_every_recipe_normalises_the_keypoints(name: str) -> None:
    """LeRobot's own defaults leave ENV features in pixels."""
    recipe = recipes.load(name, "keypoints")
    config = policy_config(recipe, "cpu")
    normalised = ["IDENTITY"] if recipe.processing.pusht_features else ["MIN_MAX", "MEAN_STD"]
    assert config.normalization_mapping["ENV"].value in normalised


def test_evaluate_prints_and_writes_the_rates(demos: Path, tmp_path: Path) -> None:
    saved("bc", demos, tmp_path / "run")
    output, evaluate = tmp_path / "measured.json", ["evaluate", tmp_path / "run", "--episodes", 3, "--output"]
    result = il_bench(*evaluate, output)
    assert result.exit_code == 0, result.output
    assert result.output.startswith("success_rate 0.000 [0.000, 0.708]")  # Clopper-Pearson, 0 of 3
    refused = il_bench(*evaluate, output / "x.json")
    assert refused.exit_code == 2
    assert "x.json: cannot be written (File exists); give another --output" in refused.output
    facts = json.loads(output.read_text())
    assert facts["seeds"] == [100_000, 100_002] and facts["n_episodes"] == 3
    assert facts["data"] == "demos" and len(facts["sha256"]) == 64
