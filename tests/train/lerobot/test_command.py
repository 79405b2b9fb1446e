"""``il-bench train`` with LeRobot's trainer behind it; here a stand-in that says what the real one would."""

import json
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from il_bench.cli import app
from il_bench.train.lerobot import run

COURSE = (
    "--policy.type=vqbet --dataset.repo_id=lerobot/pusht --env.type=pusht --env.task=PushT-v0 "
    "--batch_size=16 --steps=100000 --eval_freq=10000"
)
# It writes down its arguments, then says what is in its file `says`, and ends with the status there.
STAND_IN = """
import json, pathlib, sys
here = pathlib.Path(__file__).parent
(here / "arguments.json").write_text(json.dumps(sys.argv[1:]))
said = json.loads((here / "says.json").read_text())
for line in said["lines"]:
    print(line)
sys.exit(said["status"])
"""
LOSS = "INFO ot_train.py:580 step:200 smpl:13K ep:103 epch:0.5 loss:0.50 grdn:1.2 lr:1.0e-04 updt_s:0.1"
EVALUATED = [
    "Training:   0%|          | 200/250000 [00:01<10:00, 11.3step/s]" + LOSS,
    "INFO ot_train.py:630 Eval policy at step 10000",
    "INFO ot_train.py:660 Suite overall aggregated: {'avg_max_reward': 0.2, 'pc_success': 8.0}",
    "Finished discretizing action data!",
    "INFO ot_train.py:630 Eval policy at step 30000",
    "INFO ot_train.py:660 Suite overall aggregated: {'avg_max_reward': 0.9, 'pc_success': 60.0}",
]


class StandIn:
    """In the place of lerobot-train."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "train.py").write_text(STAND_IN)
        self.says([])

    def says(self, lines: list[str], status: int = 0) -> None:
        (self.folder / "says.json").write_text(json.dumps({"lines": lines, "status": status}))

    @property
    def flags(self) -> dict[str, str]:
        words = json.loads((self.folder / "arguments.json").read_text())
        return dict(word.removeprefix("--").split("=", 1) for word in words)


@pytest.fixture
def lerobot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    stand_in = StandIn(tmp_path)
    monkeypatch.setattr(run, "_program", lambda: [sys.executable, str(tmp_path / "train.py")])
    return stand_in


def il_bench(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)


def last_error(result: Result) -> str:
    assert result.exit_code == 2, result.output
    return result.stderr.strip().splitlines()[-1]


def test_a_recipe_is_run_with_every_flag_and_its_rates_are_kept(
    lerobot: StandIn, pixels: Path, tmp_path: Path
) -> None:
    lerobot.says(EVALUATED)
    output = tmp_path / "run"
    result = il_bench(
        "train", "vqbet", "--track", "pixels", "--data", pixels, "--output", output, "--seed", 3
    )
    assert result.exit_code == 0, result.output
    flags = lerobot.flags
    assert flags["dataset.root"] == str(pixels) and flags["output_dir"] == str(output)
    assert (flags["seed"], flags["steps"], flags["batch_size"]) == ("3", "250000", "64")
    assert flags["policy.pretrained_backbone_weights"] == "null" and flags["policy.push_to_hub"] == "false"
    assert "steps 1 to 20000 train the residual VQ alone" in result.output
    assert "step 20000: first phase over" in result.output
    rows = (output / "train_log.csv").read_text().splitlines()[1:]
    assert [row.split(",")[0] for row in rows] == ["200", "30000"]  # none of step 10000
    assert "0.50" in rows[0] and "0.6000" in rows[1]


def test_print_command_prints_a_line_for_a_shell_and_runs_nothing(
    lerobot: StandIn, pixels: Path, tmp_path: Path
) -> None:
    words = ["train", "diffusion", "--track", "pixels", "--data", pixels, "--output", tmp_path / "run"]
    result = il_bench(*words, "--print-command")
    printed = shlex.split(result.stdout.replace("\\\n", " "))
    assert printed[0] == "lerobot-train" and "--policy.crop_shape=[84, 84]" in printed
    assert not (tmp_path / "arguments.json").exists()
    assert il_bench(*words).exit_code == 0
    assert lerobot.flags == dict(word.removeprefix("--").split("=", 1) for word in printed[1:])


def test_the_courses_line_word_for_word(lerobot: StandIn, pixels: Path, tmp_path: Path) -> None:
    line = shlex.split(f"{COURSE} --output_dir={tmp_path}/runs/vqbet_pusht --seed=1 --policy.device=cpu")
    result = il_bench("train", "--data", pixels, "--", *line)
    assert result.exit_code == 0, result.output
    assert "--eval_freq is called --env_eval_freq" in result.output
    assert lerobot.flags["env_eval_freq"] == "10000" and "eval_freq" not in lerobot.flags
    assert lerobot.flags["dataset.root"] == str(pixels)


def test_data_that_are_not_to_be_had_are_one_line(
    lerobot: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lerobot.datasets import dataset_metadata

    def offline(*_: Any, **__: Any) -> None:
        raise ConnectionError("no network\nand more")

    monkeypatch.setattr(dataset_metadata.LeRobotDatasetMetadata, "__init__", offline)
    error = last_error(il_bench("train", "--", *shlex.split(COURSE)))
    assert (
        "lerobot/pusht" in error and "no network" in error and "il-bench demos build --track pixels" in error
    )
    assert not (tmp_path / "arguments.json").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("vqbet", "--track", "pixels", "--output", "RUN"), "--data is missing"),
        (("vqbet", "--track", "pixels", "--data", "DATA"), "--output is missing"),
        (("vqbet", "--track", "pixels", "--data", "expert", "--output", "RUN"), "holds no images"),
        (
            ("vqbet", "--track", "pixels", "--data", "DATA", "--output", "RUN", "--resume"),
            "no checkpoint to resume",
        ),
        (("vqbet", "--track", "pixels", "--data", "DATA", "--output", "DATA"), "is there already"),
        (
            ("vqbet", "--track", "pixels", "--data", "DATA", "--output", "RUN", "--device", "cuda:7"),
            "no such device",
        ),
        (
            ("vqbet", "--track", "pixels", "--data", "DATA", "--output", "RUN", "--device", "gpu"),
            "Unknown device gpu",
        ),
        (("pi0", "--track", "pixels", "--data", "DATA", "--output", "RUN"), "no recipe for policy 'pi0'"),
        (("vqbet", "--data", "expert", "--output", "RUN", "--print-command"), "give --track pixels"),
        (("vqbet", "--data", "expert", "--output", "RUN", "--", "--steps=3"), "go with --track pixels"),
        (
            (
                "vqbet",
                "--track",
                "pixels",
                "--data",
                "DATA",
                "--output",
                "RUN",
                "--",
                "--policy.gpt_layers=3",
            ),
            "the nearest is --policy.gpt_n_layer",
        ),
    ],
)
def test_what_does_not_fit_is_said_before_anything_is_trained(
    words: tuple[str, ...], message: str, lerobot: StandIn, pixels: Path, tmp_path: Path
) -> None:
    places = {"RUN": str(tmp_path / "run"), "DATA": str(pixels)}
    assert message in last_error(il_bench("train", *(places.get(word, word) for word in words)))
    assert not (tmp_path / "arguments.json").exists()


def test_lerobots_traceback_becomes_one_line(lerobot: StandIn, pixels: Path, tmp_path: Path) -> None:
    lerobot.says(["INFO begin", "Traceback (most recent call last):", "  File x", "ValueError: too small"], 1)
    result = il_bench("train", "act", "--track", "pixels", "--data", pixels, "--output", tmp_path / "run")
    assert "ended with status 1: ValueError: too small" in last_error(result)
    assert "Traceback" not in result.output and "INFO begin" in result.output


def test_a_traceback_in_a_warning_does_not_silence_what_follows(
    lerobot: StandIn, pixels: Path, tmp_path: Path
) -> None:
    warning = ["WARNING no decoder:", "Traceback (most recent call last):", "OSError: x", "INFO going on"]
    lerobot.says([*warning, "Traceback (most recent call last):", "ValueError: y"], 1)
    result = il_bench("train", "act", "--track", "pixels", "--data", pixels, "--output", tmp_path / "run")
    assert "ValueError: y" in last_error(result)
    assert result.output.index("OSError: x") < result.output.index("INFO going on")


WITHOUT_FFMPEG = (
    "Could not load libtorchcodec. Likely causes:",
    "          1. FFmpeg is not properly installed",
    "Traceback (most recent call last):",
    "OSError: libavutil.so.60: cannot open shared object file",
    "[end of libtorchcodec loading traceback].",
)


def test_what_is_said_of_a_decoder_that_nobody_asked_for_is_left_out(
    lerobot: StandIn, pixels: Path, tmp_path: Path
) -> None:
    """LeRobot does not find FFmpeg: a hundred lines before the first that matters."""
    lerobot.says(
        [
            f"WARNING:lerobot.utils.import_utils:{WITHOUT_FFMPEG[0]}",
            *WITHOUT_FFMPEG[1:],
            "'torchcodec' is installed but cannot be loaded (see the error above). Falling back to 'pyav' as "
            "a default decoder.",
            "INFO going on",
        ]
    )
    result = il_bench("train", "act", "--track", "pixels", "--data", pixels, "--output", tmp_path / "run")
    assert not any(word in result.output for word in ("libavutil", "FFmpeg", "see the error above"))
    assert "INFO going on" in result.output


@pytest.mark.parametrize("warned", [False, True])
def test_a_decoder_that_somebody_asked_for_is_what_ended_the_run(
    warned: bool, lerobot: StandIn, pixels: Path, tmp_path: Path
) -> None:
    """Also after a warning whose end never comes."""
    before = [*WITHOUT_FFMPEG, "INFO going on"] if warned else []
    lerobot.says(
        [
            *before,
            "Traceback (most recent call last):",
            f"RuntimeError: {WITHOUT_FFMPEG[0]}",
            *WITHOUT_FFMPEG[1:],
        ],
        1,
    )
    result = il_bench("train", "act", "--track", "pixels", "--data", pixels, "--output", tmp_path / "run")
    assert "ended with status 1: OSError: libavutil.so.60: cannot open shared object" in last_error(result)
    assert ("INFO going on" in result.output) == warned


def checkpoint(output: Path, step: int, flags: dict[str, str]) -> None:
    """What lerobot-train leaves of a run with ``flags`` at ``step``, as far as it is read."""
    import draccus

    from il_bench.train.lerobot import installed

    config = installed.read(flags)
    config.scheduler = config.policy.get_scheduler_preset()
    folder = output / "checkpoints" / "last"
    (folder / "pretrained_model").mkdir(parents=True)
    (folder / "training_state").mkdir()
    (folder / "training_state" / "training_step.json").write_text(json.dumps({"step": step}))
    text = json.dumps(draccus.encode(config), default=str)
    (folder / "pretrained_model" / "train_config.json").write_text(text)


def test_resume_goes_on_in_the_first_phase_where_lerobot_would_begin_it_again(
    lerobot: StandIn, pixels: Path, tmp_path: Path
) -> None:
    output = tmp_path / "run"
    words = ["train", "vqbet", "--track", "pixels", "--data", pixels, "--output", output]
    il_bench(*words)
    shutil.rmtree(output, ignore_errors=True)
    checkpoint(output, 5_000, lerobot.flags)
    assert il_bench(*words, "--resume").exit_code == 0
    flags = lerobot.flags
    assert flags["resume"] == "true" and flags["config_path"].endswith("train_config.json")
    assert flags["policy.n_vqvae_training_steps"] == "15000"
    assert "was trained with seed 1, not 2" in last_error(il_bench(*words, "--resume", "--seed", 2))
    assert "batch_size 64, not 8" in last_error(il_bench(*words, "--resume", "--batch-size", 8))
