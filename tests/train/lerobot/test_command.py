"""``il-bench train`` with LeRobot's trainer behind it; here a stand-in that says what the real one would."""

import json
import logging
import os
import shlex
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import draccus
import pytest
from lerobot.scripts import lerobot_eval, lerobot_train
from lerobot.utils.logging_utils import AverageMeter, MetricsTracker
from lerobot.utils.utils import init_logging
from safetensors import SafetensorError
from typer.testing import CliRunner, Result

from il_bench.cli import app
from il_bench.train.lerobot import flags as lerobot_flags
from il_bench.train.lerobot.command_line import CONFIG, STEP

Train = Callable[..., Result]

COURSE = (
    "--policy.type=vqbet --dataset.repo_id=lerobot/pusht --env.type=pusht --env.task=PushT-v0 "
    "--batch_size=16 --steps=100000 --eval_freq=10000"
)

NO_FFMPEG = """Could not load libtorchcodec. Likely causes:
          1. FFmpeg is not properly installed
Traceback (most recent call last):
OSError: libavutil.so.60: cannot open shared object file
[end of libtorchcodec loading traceback]."""


class StandIn:
    """In the place of lerobot-train: keeps its flags, then does what a test says."""

    def __init__(self) -> None:
        self.flags: dict[str, str] = {}
        self.does: Callable[[], object] = lambda: None

    def main(self) -> None:
        init_logging()  # as LeRobot does: it removes all handlers
        self.flags = dict(word.removeprefix("--").split("=", 1) for word in sys.argv[1:])
        logging.info("begin")
        self.does()


@pytest.fixture
def lerobot(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    stand_in = StandIn()
    monkeypatch.setattr(lerobot_train, "main", stand_in.main)
    for module in (lerobot_eval, lerobot_train):
        monkeypatch.setattr(module, "inside_slurm", module.inside_slurm)
    for name, value in (("handlers", []), ("level", logging.INFO)):
        monkeypatch.setattr(logging.getLogger(), name, value)
    yield stand_in
    logging.getLogger("lerobot.utils.import_utils").setLevel(logging.NOTSET)


def trained(step: int, loss: float = 0.125) -> None:
    meters = {"loss": AverageMeter("loss"), "lr": AverageMeter("lr")}
    tracker = MetricsTracker(64, 1000, 10, meters, initial_step=step)
    tracker.loss, tracker.lr = loss, 1e-4
    logging.info(tracker)


def evaluated(step: int) -> None:
    logging.info(f"Eval policy at step {step}")
    logging.info("Suite %s aggregated: %s", "pusht", {"avg_max_reward": 0.0, "pc_success": 0.0})
    logging.info("Suite %s aggregated: %s", "overall", {"avg_max_reward": 0.91, "pc_success": 62.0})


def il_bench(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)


def last_error(result: Result) -> str:
    assert result.exit_code == 2, result.output
    return result.stderr.strip().splitlines()[-1]


def rows(output: Path) -> list[list[str]]:
    lines = (output / "train_log.csv").read_text().splitlines()[1:]
    return [[cell for cell in line.split(",") if cell] for line in lines]


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "run"


@pytest.fixture
def train(lerobot: StandIn, pixels: Path, output: Path) -> Train:
    """Train a policy on images into `output`, with the stand-in."""
    words = ("--track", "pixels", "--data", pixels, "--output", output)
    return lambda policy, *more: il_bench("train", policy, *words, *more)


def test_a_recipe_is_run_with_every_flag_and_its_rates_are_kept(
    lerobot: StandIn, train: Train, pixels: Path, output: Path
) -> None:
    def does() -> None:
        trained(1_400)  # LeRobot's text rounds it to 1K
        evaluated(10_000)
        trained(20_000)
        evaluated(20_000)  # the policy itself is still as it was drawn
        evaluated(30_000)

    lerobot.does = does
    result = train("vqbet", "--seed", 3)
    assert result.exit_code == 0, result.output
    flags = lerobot.flags
    assert flags["dataset.root"] == str(pixels) and flags["output_dir"] == str(output)
    assert (flags["seed"], flags["steps"], flags["batch_size"]) == ("3", "250000", "64")
    assert flags["policy.pretrained_backbone_weights"] == "null" and flags["policy.push_to_hub"] == "false"
    assert "steps 1 to 20000 train the residual VQ alone" in result.output
    assert "step 20000: the residual VQ is trained and frozen" in result.output
    assert result.output.count("success rates mean nothing") == 1
    assert "step 30000: success_rate 0.620, mean_max_reward 0.910" in result.output
    losses = [[step, "0.125", "0.0001"] for step in ("1400", "20000")]
    assert rows(output) == [*losses, ["30000", "0.6200", "0.9100"]]


def test_without_a_first_phase_rates_count_from_the_start(
    lerobot: StandIn, train: Train, output: Path
) -> None:
    lerobot.does = lambda: evaluated(200)
    assert train("act").exit_code == 0
    assert rows(output) == [["200", "0.6200", "0.9100"]]


def test_print_command_prints_a_line_for_a_shell_and_runs_nothing(lerobot: StandIn, train: Train) -> None:
    printed = shlex.split(train("diffusion", "--print-command").stdout.replace("\\\n", " "))
    assert printed[0] == "lerobot-train" and "--policy.crop_shape=[84, 84]" in printed
    assert not lerobot.flags
    assert train("diffusion").exit_code == 0
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
    for said in ("lerobot/pusht", "no network", "il-bench demos build --track pixels"):
        assert said in error
    assert not lerobot.flags


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("vqbet --track pixels --output RUN", "--data is missing"),
        ("vqbet --track pixels --data DATA", "--output is missing"),
        ("vqbet --track pixels --data expert --output RUN", "holds no images"),
        ("vqbet --track pixels --data DATA --output RUN --resume", "no checkpoint to resume"),
        ("vqbet --track pixels --data DATA --output DATA", "already exists"),
        ("vqbet --track pixels --data DATA --output RUN --device cuda:7", "finds no cuda:7 here"),
        ("vqbet --track pixels --data DATA --output RUN --device gpu", "unknown device 'gpu'"),
        ("pi0 --track pixels --data DATA --output RUN", "no recipe for policy 'pi0'"),
        ("vqbet --data expert --output RUN --print-command", "give --track pixels"),
        ("vqbet --data expert --output RUN -- --steps=3", "need --track pixels"),
        (
            "vqbet --track pixels --data DATA --output RUN -- --policy.gpt_layers=3",
            "the nearest is --policy.gpt_n_layer",
        ),
    ],
)
def test_what_does_not_fit_is_said_before_anything_is_trained(
    words: str, message: str, lerobot: StandIn, pixels: Path, output: Path
) -> None:
    places = {"RUN": str(output), "DATA": str(pixels)}
    assert message in last_error(il_bench("train", *(places.get(word, word) for word in words.split())))
    assert not lerobot.flags


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("too small\nand more"), "lerobot-train stopped: ValueError: too small"),
        (SystemExit(2), "lerobot-train stopped: SystemExit: 2"),
        # A video decoder that somebody asked for: its message holds a traceback.
        (RuntimeError(NO_FFMPEG), "OSError: libavutil.so.60: cannot open shared object"),
    ],
)
def test_what_ends_lerobot_is_one_line(
    error: BaseException, said: str, lerobot: StandIn, train: Train
) -> None:
    def does() -> None:
        raise error

    lerobot.does = does
    result = train("act")
    assert said in last_error(result)
    assert "Traceback" not in result.output and "begin" in result.output


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_ends_lerobot(
    loss: float, lerobot: StandIn, train: Train, output: Path
) -> None:
    def does() -> None:
        trained(200)
        trained(400, loss)
        raise AssertionError("LeRobot would save now")

    lerobot.does = does
    error = last_error(train("act"))
    assert f"step 400: the loss is {loss}; lower --policy.optimizer_lr" in error
    assert error.endswith("there is no checkpoint yet.") and [row[0] for row in rows(output)] == ["200"]


def test_a_full_disk_in_lerobot_is_told_with_what_is_free(lerobot: StandIn, train: Train) -> None:
    def does() -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    lerobot.does = does
    error = last_error(train("act"))
    assert "run: cannot be written (No space left on device, " in error and " MB free); there is no" in error


@pytest.mark.parametrize("change", ["missing", "of other data"])
def test_statistics_that_lerobot_would_not_miss_are_named(
    change: str, lerobot: StandIn, pixels: Path, output: Path, tmp_path: Path
) -> None:
    """LeRobot trains without them, unnormalised, and says nothing."""
    copy = shutil.copytree(pixels, tmp_path / "copy")
    path = copy / "meta" / "stats.json"
    stats = json.loads(path.read_text())
    if change == "missing":
        del stats["action"]
    else:
        stats["action"] = {**stats["action"], "max": [1.0, 1.0]}
    path.write_text(json.dumps(stats))
    error = last_error(il_bench("train", "act", "--track", "pixels", "--data", copy, "--output", output))
    said = "no statistics of action" if change == "missing" else "action: max is [1. 1.]"
    assert f"copy: meta/stats.json: {said}" in error and "recompute_stats" in error
    if change == "missing":
        line = ["--policy.type=act", "--dataset.repo_id=local/copy", f"--output_dir={output}"]
        assert said in last_error(il_bench("train", "--data", copy, "--", *line))
    assert not lerobot.flags


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_lerobot_and_says_how_to_go_on(
    number: signal.Signals, lerobot: StandIn, train: Train
) -> None:
    before, lerobot.does = signal.getsignal(number), lambda: os.kill(os.getpid(), number)
    result = train("act")
    assert result.exit_code == 130 and "The last checkpoint is from step 0. To continue" in result.output
    assert signal.getsignal(number) is before


def test_what_is_said_of_a_decoder_that_nobody_asked_for_is_left_out(lerobot: StandIn, train: Train) -> None:
    """LeRobot does not find FFmpeg: a hundred lines before the first that matters."""

    def does() -> None:
        logging.getLogger("lerobot.utils.import_utils").warning(NO_FFMPEG)
        logging.info("going on")

    lerobot.does = does
    result = train("act")
    assert "FFmpeg" not in result.output and "going on" in result.output


def test_resume_goes_on_in_the_first_phase_where_lerobot_would_begin_it_again(
    lerobot: StandIn, train: Train, output: Path
) -> None:
    train("vqbet")
    shutil.rmtree(output, ignore_errors=True)
    # What lerobot-train leaves of a run, as far as it is read.
    config = lerobot_flags.read(lerobot.flags)
    config.scheduler = config.policy.get_scheduler_preset()
    for file, content in ((CONFIG, draccus.encode(config)), (STEP, {"step": 5_000})):
        (output / file).parent.mkdir(parents=True)
        (output / file).write_text(json.dumps(content, default=str))
    assert train("vqbet", "--resume").exit_code == 0
    flags = lerobot.flags
    assert flags["resume"] == "true" and flags["config_path"].endswith("train_config.json")
    assert flags["policy.n_vqvae_training_steps"] == "15000"
    assert "(seed was 1, is 2)" in last_error(train("vqbet", "--resume", "--seed", 2))
    assert "(batch_size was 64, is 8)" in last_error(train("vqbet", "--resume", "--batch-size", 8))
