"""The ``il-bench`` command: the subcommands of each room, and those that need a report.json alone."""

import os
from pathlib import Path
from typing import Annotated

import typer

from il_bench.demos.cli import app as demos
from il_bench.errors import IlBenchError, fail
from il_bench.latency.cli import compare
from il_bench.protocol import REPORT_FOLDER
from il_bench.suite.cli import evaluate, vocabulary
from il_bench.train.cli import train

os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # before anything imports pygame

app = typer.Typer(
    help="Train and evaluate imitation-learning policies on PushT.",
    no_args_is_help=True,
    add_completion=False,
)
report = typer.Typer(
    help="Show a benchmark's report again, and the vocabulary of an action tokenizer as a picture.",
    no_args_is_help=True,
)
app.add_typer(demos, name="demos")
app.add_typer(report, name="report")
app.command()(compare)
app.command()(evaluate)
app.command()(train)

ReportFile = Annotated[Path, typer.Argument(help="A report.json.")]


@app.callback()
def main() -> None:
    """Train and evaluate imitation-learning policies on PushT."""


@report.command()
def show(path: ReportFile = REPORT_FOLDER / "report.json") -> None:
    """Print the tables of a report and make its page and pictures again, beside it."""
    try:
        from il_bench.files import writing
        from il_bench.report import schema, views

        found = schema.load(path)
        typer.echo(views.on_stdout(found))
        with writing(path.parent, f"copy {path.name} elsewhere"):
            made = views.write(found, path.parent)
    except IlBenchError as error:
        fail(error)
    typer.echo(f"made: {', '.join(map(str, made[1:]))}")


@report.command()
def latency(path: ReportFile = REPORT_FOLDER / "report.json") -> None:
    """Print the latency tables of a report as Markdown."""
    try:
        from il_bench.report import latency, schema

        rows = schema.load(path).latency
        if not rows:
            raise IlBenchError(f"{path}: holds no latency; make it with pytest --benchmark -m latency")
    except IlBenchError as error:
        fail(error)
    typer.echo(latency.section(rows).markdown(), nl=False)


report.command()(vocabulary)
