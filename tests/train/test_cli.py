"""`il-bench train` and `il-bench evaluate` on keypoints: what they say, log and refuse."""

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from il_bench.cli import app
from il_bench.data import open_dataset
from il_bench.train import recipes
from tests.train.small_runs import saved, small_recipe

ERRORS = {"feature": {"near": [1.0, 2.0, 3.0]}}


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
        ("nothing --data .", "There is no recipe for policy 'nothing'"),
        ("bc --data . --track sound", "on track 'sound'"),
        ("bc --data no/such/folder", "no such file or folder"),
        ("bc --data . --resume", "holds no checkpoint to resume"),
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
    ("arguments", "message"),
    [
        ("eye --data expert", "--data: does not apply to the eye"),
        ("eye --resume", "holds no eye to resume"),
        ("bet --eye . --data expert", "no recipe for policy 'bet' on track 'heads'"),
        ("--eye . -- --policy.type=act", "--eye: lerobot-train has no flag for it"),
    ],
)
def test_what_does_not_fit_an_eye_gets_one_clear_line(arguments: str, message: str, tmp_path: Path) -> None:
    result = il_bench("train", "--output", tmp_path / "run", *arguments.split())
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())
    assert "Traceback" not in result.output


def test_an_eye_is_trained_and_a_policy_on_it_by_two_commands(
    demos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    eye = ["train", "eye", "--output", tmp_path / "eye", "--steps", 1, "--batch-size", 2]
    monkeypatch.setattr("il_bench.train.pixels.eye_training.Validation", lambda: lambda _: ERRORS)
    assert il_bench(*eye).exit_code == 0
    lines = (tmp_path / "eye" / "log.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["images"] == 2
    assert "already holds an eye" in il_bench(*eye).output
    assert il_bench(*eye, "--resume").exit_code == 0

    head = ["train", "bc", "--track", "pixels", "--eye", tmp_path / "eye", "--data", demos]
    result = il_bench(*head, "--output", tmp_path / "bc", "--steps", 1, "--batch-size", 4)
    assert result.exit_code == 0, result.output
    facts = json.loads((tmp_path / "bc/checkpoints/last/pretrained_model/training.json").read_text())
    assert facts["data"]["eye"] == json.loads((tmp_path / "eye/training.json").read_text())["sha256"]


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
    for name in ("model.safetensors", "policy_preprocessor_step_4_normalizer_processor.safetensors"):
        first, second = (load_file(folder / name) for folder in folders)
        assert second.keys() <= first.keys() and all(torch.equal(first[key], second[key]) for key in second)


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


TYPOS = {
    "vqbett --data expert": "no recipe for policy 'vqbett' on track 'keypoints'; the nearest is vqbet",
    "vqbett --data expert --track pixels": "policy 'vqbett' on track 'pixels'; the nearest is vqbet",
    "bc --data exprt": "exprt: no such file or folder, the nearest is expert",
    "bc --data ./demos/tast": "demos/tast: no such file or folder, the nearest is ./demos/test",
    "act --data expart --track pixels": "expart: no such file or folder, the nearest is expert",
}


def test_a_typo_is_told_with_the_nearest_name_before_anything_heavy_is_imported(tmp_path: Path) -> None:
    (tmp_path / "demos" / "test").mkdir(parents=True)
    script = """
import sys
from typer.testing import CliRunner
from il_bench.cli import app
for words in sys.argv[1:]:
    print(CliRunner().invoke(app, ["train", *words.split(), "--output", "run"]).stderr.strip())
print({"torch", "lerobot", "numpy"} & {*sys.modules})
"""
    words = [sys.executable, "-c", script, *TYPOS]
    *said, imported = subprocess.run(
        words, cwd=tmp_path, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert imported == "set()"
    for line, expected in zip(said, TYPOS.values(), strict=True):
        assert expected in line
