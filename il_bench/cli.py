"""The ``il-bench`` command: it wires the subcommands that the rooms bring."""

import os

import typer

from il_bench.demos.cli import app as demos
from il_bench.latency.cli import compare
from il_bench.report.cli import app as report
from il_bench.suite.cli import evaluate, vocabulary
from il_bench.train.cli import train

os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # before anything imports pygame

app = typer.Typer(
    help="Train and evaluate imitation-learning policies on PushT.",
    no_args_is_help=True,
    add_completion=False,
)
report.command()(vocabulary)  # a report command, but it measures, which the report room must not
app.add_typer(demos, name="demos")
app.add_typer(report, name="report")
app.command()(compare)
app.command()(evaluate)
app.command()(train)
