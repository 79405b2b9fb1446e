"""The ``il-bench`` command: it wires the subcommands that the rooms bring."""

import inspect
import io
import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from il_bench import __version__, lerobot_imports, machine, zoo
from il_bench.demos.cli import app as demos
from il_bench.finished.cli import gate
from il_bench.latency.cli import compare
from il_bench.protocol import HUMAN_DATA, KEYPOINTS, PIXELS, TRACKS
from il_bench.replay.cli import replay
from il_bench.report.cli import app as report
from il_bench.report.cli import merge, metrics
from il_bench.stress.cli import stress
from il_bench.suite.card import card
from il_bench.suite.cli import evaluate, vocabulary
from il_bench.suite.plan import plan
from il_bench.suite.sweep import sweep
from il_bench.train.cli import train
from il_bench.zoo.cli import app as zoo_commands

os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # before anything imports pygame

#: Programs that something here uses, and what.
_WANTED = {"c++": "torch.compile", "chromium": "tests of the page", "git": "the commit in reports"}

_HELP = """How good is an imitation-learning policy on PushT, how fast, and did it get worse?

Is it good enough?      il-bench evaluate runs/mine --target success_rate=0.8

Is it slower than that? il-bench compare runs/old runs/mine

What did it do?         il-bench replay act:200024 --output episode.mp4

pytest --benchmark answers all of this for every policy, and gates on the answers.
"""

app = typer.Typer(
    help=_HELP,
    no_args_is_help=True,
    add_completion=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"il-bench {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command("list", epilog="Example: il-bench list")
def list_policies() -> None:
    """List the policies that ship with il-bench: what they see, and their success rate on the test seeds."""
    on_images = zoo.pixels_folder()
    for track, folder in ((KEYPOINTS, zoo.ZOO), (PIXELS, on_images or zoo.ZOO)):
        for name in zoo.shipped(track):
            said, path = "not measured yet", folder / name / "measured.json"
            if path.exists():
                measured = json.loads(path.read_text(encoding="utf-8"))
                rate, n = measured["success_rate"]["estimate"], measured["n_episodes"]
                said = f"success rate {rate:.3f} ({n} episodes)"
            typer.echo(f"{name:12} {track:10} {said}")
    if on_images is None:
        typer.echo(zoo.GET_PIXELS, err=True)


@app.command(epilog="Example: il-bench doctor")
def doctor() -> None:
    """Print versions, devices, data and what is missing, in a form for a bug report."""
    for line in _diagnosis():
        typer.echo(line)


def _diagnosis() -> Iterator[str]:
    """Lines of Markdown; nothing in them names a person, a host or a folder."""
    found = machine.describe()
    packages = found.pop("packages")
    yield f"- il-bench {packages.pop('il-bench')}, Python {found['python']}, {found['system']}"
    yield "- " + ", ".join(f"{name} {version}" for name, version in packages.items())
    gpu = found["gpu"] or "none"
    yield f"- {found['cpu']}, {machine.usable_cores()} of {found['cores']} cores, GPU: {gpu}"
    yield f"- {found['instruction_set']}, BLAS {found['blas']}"
    for track in TRACKS:
        yield f"- shipped policies, {track}: {', '.join(zoo.shipped(track)) or 'none'}"
    human = os.environ.get(HUMAN_DATA)
    there = (
        "is not set"
        if human is None
        else "names a folder"
        if Path(human).is_dir()
        else "is set, but there is no such folder"
    )
    yield f"- human demonstrations: {HUMAN_DATA} {there}"
    yield f"- HF_HUB_OFFLINE: {os.environ.get('HF_HUB_OFFLINE', 'is not set')}"
    missing = [f"{name} ({what})" for name, what in _WANTED.items() if shutil.which(name) is None]
    yield f"- missing: {', '.join(missing) or 'nothing'}"
    for requirement in machine.unmet_requirements():
        yield f"- NOT SUPPORTED: {requirement}"


# A report command, but it measures, which the report room must not.
report.command(epilog="Example: il-bench report vocabulary vqbet --output runs/vocabulary")(vocabulary)
app.add_typer(demos, name="demos")
app.add_typer(report, name="report")
app.add_typer(zoo_commands, name="zoo")
for _command, _example in (
    (evaluate, "evaluate act --seeds test --episodes 500"),
    (compare, "compare diffusion --sampler DDIM-8 --sampler-b DDIM-10"),
    (gate, "gate outputs/eval/eval_info.json --target success_rate=0.8"),
    (metrics, "metrics il-bench-report"),
    (plan, "plan --target 0.85 --true-rate 0.9"),
    (replay, "replay act:200024 --output episode.gif"),
    (stress, "stress bet expert --arm delay --arm noise --output stress.json"),
    (card, "card runs/mine --report il-bench-report"),
    (sweep, "sweep runs/vqbet --episodes 200"),
    (merge, "merge shard-1 shard-2 shard-3 --output il-bench-report"),
    (train, "train vqbet --data expert --seed 1 --output runs/vqbet"),
):
    app.command(epilog=f"Example: il-bench {_example}")(_command)

# typer keeps the line breaks of a docstring's later paragraphs, which suit no other width of the terminal.
for _commands in (app, demos, report, zoo_commands):
    for _each in _commands.registered_commands:
        _paragraphs = (inspect.getdoc(_each.callback) or "").split("\n\n")
        _each.help = "\n\n".join(" ".join(text.split()) for text in _paragraphs)


def main() -> None:
    """The command as a shell starts it, in a process of its own."""
    lerobot_imports.defer()
    for stream in (sys.stdout, sys.stderr):  # names may hold what their encoding lacks
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    app()
