"""The `il-bench report` commands, which make every view of a report.json again.

`il-bench --help` loads this module, so what draws tables and pictures is imported inside the functions.
"""

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from il_bench.errors import IlBenchError, fail
from il_bench.protocol import REPORT_FOLDER

if TYPE_CHECKING:
    from il_bench.report.schema import Report

app = typer.Typer(
    help="Show a benchmark's report again, or draw the vocabulary of an action tokenizer.",
    no_args_is_help=True,
)
ReportFile = Annotated[Path, typer.Argument(help="A report.json.")]


@app.command()
def show(path: ReportFile = REPORT_FOLDER / "report.json") -> None:
    """Print the tables of a report, and make its page and pictures again beside it."""
    try:
        from il_bench.report import schema, views

        report = schema.load(path)
        print_tables(report)
        made, problems = views.draw(report, path.parent)
    except IlBenchError as error:
        fail(error)
    typer.echo(f"made: {', '.join(map(str, made)) or 'nothing'}")
    if problems:
        for problem in problems:
            typer.secho(f"il-bench: {problem}", fg="red", err=True)
        raise typer.Exit(1)


@app.command()
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


def print_tables(report: "Report") -> None:
    """Print the tables of a report on standard output, in colour and to its width if it is a terminal."""
    from il_bench.report import views

    is_terminal = sys.stdout.isatty()
    width = shutil.get_terminal_size().columns if is_terminal else None
    typer.echo(views.terminal(report, width=width, color=is_terminal, encoding=sys.stdout.encoding))
