"""The ``il-bench`` command: it wires the subcommands that the rooms bring."""

import io
import json
import os
import sys
from typing import Annotated

import typer

from il_bench import __version__, lerobot_imports, zoo
from il_bench.demos.cli import app as demos
from il_bench.latency.cli import compare
from il_bench.replay.cli import replay
from il_bench.report.cli import app as report
from il_bench.suite.cli import evaluate, vocabulary
from il_bench.train.cli import train

os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # before anything imports pygame

app = typer.Typer(
    help="Train and evaluate imitation-learning policies on PushT.",
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


@app.command("list")
def list_policies() -> None:
    """List the policies that ship with il-bench: what they see, and their success rate on the test seeds."""
    for name in zoo.shipped():
        measured = json.loads((zoo.ZOO / name / "measured.json").read_text(encoding="utf-8"))
        rate, n = measured["success_rate"]["estimate"], measured["n_episodes"]
        typer.echo(f"{name:12} {measured['track']:10} success rate {rate:.3f} ({n} episodes)")


report.command()(vocabulary)  # a report command, but it measures, which the report room must not
app.add_typer(demos, name="demos")
app.add_typer(report, name="report")
app.command()(compare)
app.command()(evaluate)
app.command()(replay)
app.command()(train)


def main() -> None:
    """The command as a shell starts it, in a process of its own."""
    lerobot_imports.defer()
    for stream in (sys.stdout, sys.stderr):  # names may hold what their encoding lacks
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    app()
