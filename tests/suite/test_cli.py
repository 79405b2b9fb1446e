"""The commands that measure without pytest."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from il_bench import rollout
from il_bench.cli import app
from il_bench.zoo import WEIGHTS, ZOO
from tests.gate.made import episodes


def drawn(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["report", "vocabulary", *arguments])


@pytest.mark.parametrize(
    ("policy", "kind", "data"), [("bet", "KMeans", "expert"), ("vqbet", "ResidualVQ", "dagger")]
)
def test_the_vocabulary_of_a_policy_is_drawn(tmp_path: Path, policy: str, kind: str, data: str) -> None:
    result = drawn(policy, "--output", str(tmp_path))
    assert result.exit_code == 0, result.output
    assert f"{policy}: {kind}" in result.output
    assert f"{policy}'s own data: {data}, which includes these episodes" in result.output
    assert (tmp_path / f"vocabulary-{policy}.png").read_bytes().startswith(b"\x89PNG")


def test_a_policy_without_a_vocabulary_is_refused_in_one_line(tmp_path: Path) -> None:
    result = drawn("bc", "--output", str(tmp_path))
    assert result.exit_code == 2
    assert "has no action tokenizer" in result.output
    assert list(tmp_path.iterdir()) == []


LONG = "a" * 300


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([LONG], f"{LONG}: no such policy. Give one of bet, vqbet, a pretrained_model"),
        (["bet", "--data", LONG], f"{LONG}: no such file or folder; expected a Hub id"),
        (["expert"], "expert: the planner has no action tokenizer; give"),
        (["nothing"], "nothing: no such policy. Give one of bet, vqbet, a pretrained_model"),
        (["broken"], "broken/model.safetensors: not a file; a pretrained_model folder holds its weights"),
        (["diverged"], "diverged/model.safetensors: tokenizer.centers holds NaN or infinity"),
    ],
)
def test_what_cannot_be_read_is_said_not_that_the_output_cannot_be_written(
    arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = {
        name: shutil.copytree(ZOO / "bet", tmp_path / name) / WEIGHTS for name in ("broken", "diverged")
    }
    tensors = load_file(weights["diverged"])
    tensors["tokenizer.centers"][3] = float("inf")
    save_file(tensors, weights["diverged"])
    weights["broken"].unlink()
    weights["broken"].mkdir()
    monkeypatch.chdir(tmp_path)
    result = drawn(*arguments, "--output", "out")
    assert result.exit_code == 2
    assert result.output.startswith(f"il-bench: {said}") and result.output.count("\n") == 1
    assert "cannot be written" not in result.output and not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    result = drawn("bet", "--output", str(tmp_path / "out"))
    assert result.exit_code == 2
    assert f"{tmp_path / 'out'}: cannot be written (File exists); give another --output" in result.output


def test_a_checkpoint_here_is_called_as_its_folder_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a copy of a shipped one is another's: its `dagger` may be without the expert's episodes."""
    shutil.copytree(ZOO / "vqbet", tmp_path / "mine")
    monkeypatch.chdir(tmp_path / "mine")
    result = drawn(".", "--output", "../out")
    assert result.exit_code == 0, result.output
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["vocabulary-mine.png"]
    assert "mine: ResidualVQ" in result.output
    assert "mine's own data: dagger" in result.output and "among it" not in result.output


def evaluated(target: str, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Result:
    """Evaluate a policy that solves three of four states, without rolling it out."""
    outcomes = episodes(np.arange(60) % 4 != 0, first=100_000)
    monkeypatch.setattr(rollout, "rollout", lambda *_, **__: outcomes)
    return CliRunner().invoke(app, ["evaluate", "expert", "--workers", "1", "--target", target, *arguments])


@pytest.mark.parametrize(
    ("target", "status", "said"),
    [
        ("success_rate=0.5", 0, "PASS (> 0.45 shown, "),
        ("success_rate=0.97", 1, "FAIL (< 0.97 shown, "),
        (
            "success_rate=0.8",
            6,
            r"INCONCLUSIVE \(neither .*, 60 episodes; about \d+0 more episodes would decide ",
        ),
        (
            "reward=1",
            2,
            "--target: 'reward=1' is not METRIC=VALUE; METRIC is success_rate or mean_max_reward",
        ),
    ],
)
def test_an_evaluation_says_whether_a_target_is_met(
    target: str, status: int, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "found.json"
    result = evaluated(target, monkeypatch, "--output", str(output))
    assert result.exit_code == status, result.output
    assert re.search(said if status == 6 else re.escape(said), result.output)
    if status != 2:
        assert f"\ntarget {target}: " in result.output and "success_rate 0.750 [" in result.output
        assert json.loads(output.read_text())["target"]["decision"] == said.split()[0]


def test_an_evaluation_says_how_the_networks_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {name: tmp_path / f"{name}.json" for name in ("as saved", "cast")}
    evaluated("success_rate=0.5", monkeypatch, "--output", str(files["as saved"]))
    evaluated("success_rate=0.5", monkeypatch, "--output", str(files["cast"]), "--autocast", "bfloat16")
    said, changed = (json.loads(files[name].read_text())["environment"] for name in files)
    assert changed == said | {"autocast": "bfloat16"} != said
    monkeypatch.setenv("CXX", "c++-of-nobody")
    result = evaluated("success_rate=0.5", monkeypatch, "--compile")
    assert result.exit_code == 2 and "--compile: torch.compile needs a C++ compiler" in result.output


@pytest.mark.parametrize(
    "words",
    [["evaluate"], ["compare", "act"], ["stress"], ["plan", "--target", "0.8", "--policy"]],
    ids=" ".join,
)
@pytest.mark.parametrize(
    ("policy", "said"),
    [
        ("atc", "no such policy. Give one of act"),
        ("empty", "holds no config.json; give a LeRobot pretrained_model"),
    ],
    ids=["a typo", "an empty folder"],
)
def test_what_is_no_policy_costs_no_import_of_torch(
    tmp_path: Path, words: list[str], policy: str, said: str
) -> None:
    (tmp_path / "empty").mkdir()
    code = f"""
import sys
from il_bench.cli import app
try:
    app({[*words, policy]})
finally:
    print("torch" in sys.modules or "lerobot" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "False\n"), done.stderr
    assert f"il-bench: {policy}: {said}" in done.stderr


def test_an_evaluation_is_written_as_lerobot_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "eval_info.json"
    result = evaluated("success_rate=0.5", monkeypatch, "--format", "lerobot", "--output", str(path))
    assert result.exit_code == 0, result.output
    overall = json.loads(path.read_text())["overall"]
    assert (overall["n_episodes"], overall["n_success"], overall["pc_success"]) == (60, 45, 75.0)
    nowhere = evaluated("success_rate=0.5", monkeypatch, "--format", "lerobot")
    assert nowhere.exit_code == 2
    assert "--format: lerobot is the form of a file; name it with --output" in nowhere.output
