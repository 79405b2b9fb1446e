"""``il-bench train`` with LeRobot's own trainer: recipes for images, and ``lerobot-train`` commands."""

import errno
import logging
import math
import os
import re
import signal
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer
from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata
from lerobot.utils.constants import ACTION, OBS_ENV_STATE, OBS_STATE
from lerobot.utils.logging_utils import MetricsTracker

from il_bench.data import open_dataset, statistics
from il_bench.data.lerobot_folder import NOT_NUMBERS
from il_bench.errors import IlBenchError
from il_bench.files import writing
from il_bench.machine import check_device
from il_bench.train import TrainOptions, recipes
from il_bench.train.lerobot import command_line
from il_bench.train.lerobot.command_line import CONFIG, CommandLine, saved_step, to_resume
from il_bench.train.log import TrainingLog

EVALUATION = "Eval policy at step "  # LeRobot logs this
BUILD = "il-bench demos build --track pixels"
# Options of il-bench, and the flags of lerobot-train that they set: those of a recipe, and the others.
IN_RECIPE = {
    "steps": "steps",
    "batch_size": "batch_size",
    "save_every": "save_freq",
    "eval_every": "env_eval_freq",
}
OF_RUN = {
    "output": "output_dir",
    "seed": "seed",
    "device": "policy.device",
    "eval_episodes": "eval.n_episodes",
}


def train_recipe(words: list[str], options: TrainOptions) -> bool:
    """Train on images by the recipe that the first of ``words`` names; False if it was interrupted.

    The other words are flags of ``lerobot-train``, which override the recipe.
    """
    source, _ = options.data_and_output()
    recipe = recipes.load_pixels(words[0], options.given_as(IN_RECIPE))
    given = {"policy.device": "cpu", "seed": 1, **_dataset_flags(source), **options.given_as(OF_RUN)}
    flags = {name: str(value) for name, value in given.items()}
    return _train(command_line.from_recipe(recipe, flags, words[1:]), options)


def train_command(words: list[str], options: TrainOptions) -> bool:
    """Train with a ``lerobot-train`` command, perhaps an older LeRobot's; False if it was interrupted.

    The ``options`` of il-bench are added to the command.
    """
    given = options.given_as({"data": "dataset.root", **OF_RUN, **IN_RECIPE})
    line = command_line.from_words(words, {name: str(value) for name, value in given.items()})
    if not options.print_command and "config_path" not in line.flags:
        _check_dataset(line.flags)
    return _train(line, options)


def _train(line: CommandLine, options: TrainOptions) -> bool:
    given, start = line.flags.get("output_dir"), 0
    output = Path(given) if given else None
    known = {"residual_vq_steps": line.residual_vq_steps}
    if line.residual_vq_steps:
        known["steps"] = int(line.flags.get("steps", 0))
    if options.resume:
        if output is None or not (output / CONFIG).exists():
            raise IlBenchError(f"{output}: holds no checkpoint to resume; leave --resume out to start.")
        start, line = saved_step(output), to_resume(line, output)
    for note in line.notes:
        _say(note, err=options.print_command)
    if options.print_command:
        typer.echo(str(line))
        return True
    if output is not None and output.exists() and "config_path" not in line.flags:
        raise IlBenchError(f"{output}: already exists; add --resume, or give another --output.")
    check_device(line.flags.get("policy.device", "cpu"), "--policy.device")
    finished = _run_lerobot(line, TrainingLog(output, start, _say, **known), output)
    if not finished:
        last = f"The last checkpoint is from step {saved_step(output) if output else 0}"
        typer.echo(f"Stopped. {last}. To continue: the same command with --resume")
    elif output is not None:
        typer.echo(f"Done. Evaluate it: il-bench evaluate {output}")
    return finished


class LogReader(logging.Filter):
    """Reads losses and success rates from LeRobot's log records, and lets every record pass.

    It is a filter of the root logger, because LeRobot removes all handlers when it begins.
    """

    def __init__(self, log: TrainingLog, output: Path | None) -> None:
        super().__init__()
        self._log, self._output, self._evaluated_at = log, output, 0

    def filter(self, record: logging.LogRecord) -> bool:
        """Write a row for a record that holds losses or rates; IlBenchError for a loss that is not finite.

        LeRobot logs the loss before it saves a checkpoint of the same step.
        """
        if isinstance(record.msg, MetricsTracker):
            tracker = record.msg
            if not math.isfinite(tracker.loss.avg):
                raise IlBenchError(
                    f"step {tracker.steps}: the loss is {tracker.loss.avg}; lower --policy.optimizer_lr, or "
                    f"look for outliers in the data; {_last_good(self._output)}."
                )
            self._log.training(tracker.steps, loss=tracker.loss.avg, lr=tracker.lr.avg)
        elif str(record.msg).startswith(EVALUATION):
            self._evaluated_at = int(record.msg.removeprefix(EVALUATION))
        elif isinstance(record.args, tuple) and record.args[:1] == ("overall",):
            rates = record.args[1]
            if isinstance(rates, dict) and self._log.has_policy(self._evaluated_at):
                success_rate = float(rates["pc_success"]) / 100
                self._log.evaluation(self._evaluated_at, success_rate, float(rates["avg_max_reward"]))
        return True


def _last_good(output: Path | None) -> str:
    step = saved_step(output) if output else 0
    return f"the last good checkpoint is from step {step}" if step else "there is no checkpoint yet"


def _run_lerobot(line: CommandLine, log: TrainingLog, output: Path | None) -> bool:
    """Train to the end; False if Ctrl-C or SIGTERM ended it, an IlBenchError if LeRobot raised."""
    from lerobot.scripts import lerobot_eval, lerobot_train

    if not sys.stderr.isatty():  # no progress bars in a file
        for module in (lerobot_eval, lerobot_train):
            module.inside_slurm = lambda: True
    # LeRobot warns at length about a video decoder that no recipe uses.
    logging.getLogger("lerobot.utils.import_utils").setLevel(logging.ERROR)
    reader = LogReader(log, output)
    logging.getLogger().addFilter(reader)
    argv, on_sigterm = sys.argv, signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.argv = ["lerobot-train", *line.words()]  # what --print-command prints is what happens
    try:
        lerobot_train.main()
    except KeyboardInterrupt:
        return False
    except IlBenchError:
        raise
    except (Exception, SystemExit) as error:
        if os.strerror(errno.ENOSPC) in str(error):
            with writing(output or Path(), f"{_last_good(output)}; make room and add --resume"):
                raise OSError(errno.ENOSPC, str(error)) from None
        raise IlBenchError(
            f"lerobot-train stopped: {_last_exception(error)}. Run the command that --print-command "
            "prints to see its whole output."
        ) from None
    finally:
        sys.argv = argv
        signal.signal(signal.SIGTERM, on_sigterm)
        logging.getLogger().removeFilter(reader)
    return True


def _last_exception(error: BaseException) -> str:
    """The exception in one line; if its message holds tracebacks of other exceptions, the last of these."""
    lines = "".join(traceback.format_exception_only(error)).splitlines()
    return ([line for line in lines if re.match(r"[\w.]*(Error|Exception)\b", line)] or lines)[-1].strip()


def _say(text: str, err: bool = False) -> None:
    typer.secho(f"il-bench: {text}", fg="yellow", err=err)


def _dataset_flags(source: str) -> dict[str, str]:
    """The flags that name the dataset of images ``source``, a folder or a Hub id, to ``lerobot-train``."""
    dataset = open_dataset(source)
    _check_images(source, dataset.meta.features)
    for key in (OBS_STATE, ACTION):
        _check_statistics(source, statistics.problem(dataset, key))
    root = Path(source).expanduser()
    if not (root / "meta" / "info.json").exists():
        return {"dataset.repo_id": source}
    return {"dataset.repo_id": f"local/{root.resolve().name}", "dataset.root": str(root)}


def _check_dataset(flags: Mapping[str, str]) -> None:
    """Raise IlBenchError unless the dataset of a command line can be read."""
    repo_id, root = flags["dataset.repo_id"], flags.get("dataset.root")
    if root is not None and not (Path(root) / "meta" / "info.json").exists():
        raise IlBenchError(f"--dataset.root={root}: not a LeRobotDataset (meta/info.json is missing).")
    try:
        meta = LeRobotDatasetMetadata(repo_id, root=root)
    except Exception as error:  # offline, no such repository, old format: many types
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise IlBenchError(
            f"--dataset.repo_id={repo_id}: not on this machine, and it could not be fetched from the "
            "Hugging Face Hub "
            f"({first}). Without a network, build it with `{BUILD}` and give --data DIR before the command."
        ) from None
    for key, feature in meta.features.items():
        is_read = key == ACTION or key.startswith("observation.")
        if is_read and feature["dtype"] not in NOT_NUMBERS:
            stats = (meta.stats or {}).get(key, {})
            _check_statistics(root or repo_id, statistics.broken_rule(key, feature, stats))
    if flags.get("policy.type") == "vqbet":
        _check_images(root or repo_id, meta.features)


def _check_statistics(where: str, fault: str) -> None:
    """Raise IlBenchError for statistics by which LeRobot would not normalise, or wrongly, without a word."""
    if fault:
        raise IlBenchError(
            f"{where}: {statistics.FILE}: {fault}; have LeRobot compute them: lerobot-edit-dataset --repo_id "
            f"local/data --root {where} --new_root {where} --operation.type recompute_stats "
            "--operation.overwrite true"
        )


def _check_images(where: str, features: Mapping[str, Any]) -> None:
    """Raise IlBenchError unless ``features`` are the agent's position, one image and an action."""
    images = [key for key, feature in features.items() if feature["dtype"] in ("image", "video")]
    if not images:
        raise IlBenchError(
            f"{where}: holds no images (its features: {', '.join(sorted(features))}); add them with "
            f"{BUILD} --from {where} --output DIR."
        )
    observed = {key for key in features if key.startswith("observation.")} - set(images)
    if len(images) > 1 or observed != {OBS_STATE}:
        extra = sorted([*images[1:], *(observed - {OBS_STATE})]) or [f"no {OBS_STATE}"]
        raise IlBenchError(
            f"{where}: a policy on PushT's images takes one image and {OBS_STATE!r}; the data have "
            f"{', '.join(extra)} besides"
            + (f" ({OBS_ENV_STATE} is for --track keypoints)." if OBS_ENV_STATE in extra else ".")
        )
    if ACTION not in features:
        raise IlBenchError(f"{where}: no feature {ACTION!r} to learn.")
