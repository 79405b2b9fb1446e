"""What a page of the documentation presupposes, made in the folder where its blocks are run."""

import csv
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from il_bench import zoo
from tests.docs.blocks import ROOT
from tests.finished.made import eval_info

_NOT_OF_A_CLONE = {".git", ".github", "runs", "il-bench-report", "site", ".cache"}


def _clone(folder: Path) -> None:
    """The checkout, by links; what a page writes, such as runs/, is the folder's own."""
    for each in ROOT.iterdir():
        if each.name not in _NOT_OF_A_CLONE:
            (folder / each.name).symlink_to(each)


def _run(name: str, policy: str) -> Callable[[Path], None]:
    """A training run that gave the weights of a shipped policy."""

    def make(folder: Path) -> None:
        shutil.copytree(zoo.ZOO / policy, folder / name / "checkpoints" / "last" / "pretrained_model")
        shutil.copy(zoo.ZOO / policy / "train_log.csv", folder / name)

    return make


def _report(folder: Path) -> None:
    """The report of a run of `act` and `bet`, and as OLD and NEW those of two."""
    _pytest(folder, "-m success --il-policy act --il-policy bet --il-episodes 50")
    for other in ("OLD", "NEW"):
        shutil.copytree(folder / "il-bench-report", folder / other, dirs_exist_ok=True)


def _eval_info(folder: Path) -> None:
    """Files of `lerobot-eval`: 45 of 50 episodes solved, of an older run 44."""
    for name, failed in (("outputs/eval", 5), ("NEW", 5), ("OLD", 6)):
        path = folder / name / "eval_info.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(eval_info({("pusht", 0): [True] * (50 - failed) + [False] * failed})))


def _shards(folder: Path) -> None:
    """The reports of all shards but the third of eight."""
    for shard in (1, 2, 4, 5, 6, 7, 8):
        _pytest(folder, f"--il-policy bet --il-episodes 400 --il-shard {shard}/8 --il-report shard-{shard}")


def _pytest(folder: Path, options: str) -> None:
    command = ["pytest", "--benchmark", "--pyargs", "il_bench.suite", "--il-workers", "1", *options.split()]
    run = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True)
    assert run.returncode in (0, 6), run.stdout + run.stderr


def _table(folder: Path) -> None:
    """Outcomes in a table."""
    with (folder / "outcomes.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("seed", "success"), *((seed, int(seed % 10 > 0)) for seed in range(50))])


#: By the words of a page's comment.
MADE: dict[str, Callable[[Path], None]] = {
    "a clone": _clone,
    "runs/mine": _run("runs/mine", "bet"),
    "runs/old": _run("runs/old", "vqbet"),
    "runs/new": _run("runs/new", "bet"),
    "runs/vqbet": _run("runs/vqbet", "vqbet"),
    "a report": _report,
    "files of lerobot-eval": _eval_info,
    "outcomes.csv": _table,
    "seven of eight shards": _shards,
}


def environment() -> dict[str, str]:
    """The environment of somebody who has activated il_bench's; no network, no screen.

    What `make docs-commands` was told is not meant for the commands of a page that call make.
    """
    ours = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "HF_HUB_OFFLINE": "1"}
    theirs = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("PYTEST", "COV_", "IL_BENCH_NO", "MAKE", "MFLAGS", "ARGS"))
    }
    return theirs | ours | {"SDL_VIDEODRIVER": "dummy", "COLUMNS": "110"}
