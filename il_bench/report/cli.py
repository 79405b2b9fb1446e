"""The `il-bench report` commands that need a report.json and nothing else."""

from pathlib import Path
from typing import Annotated

import typer

from il_bench.errors import IlBenchError, fail
from il_bench.protocol import REPORT_FOLDER

app = typer.Typer(
    help="Show a benchmark's report again, and the vocabulary of an action tokenizer as a picture.",
    no_args_is_help=True,
)


@app.command()
def show(
    path: Annotated[Path, typer.Argument(help="A report.json.")] = REPORT_FOLDER / "report.json",
) -> None:
    """Print the tables of a report and make its page and pictures again, beside it."""
    try:
        from il_bench.report import schema, views

        report = schema.load(path)
        typer.echo(views.on_stdout(report))
        made = views.write(report, path.parent)
    except IlBenchError as error:
        fail(error)
    except OSError as error:
        fail(IlBenchError(f"{path.parent}: cannot be written ({error.strerror}); copy {path.name} elsewhere"))
    typer.echo(f"made: {', '.join(map(str, made[1:]))}")


@app.command()
def latency(
    path: Annotated[Path, typer.Argument(help="A report.json.")] = REPORT_FOLDER / "report.json",
) -> None:
    """Print the latency tables of a report as Markdown."""
    try:
        from il_bench.report import latency, schema

        rows = schema.load(path).latency
    except IlBenchError as error:
        fail(error)
    if not rows:
        fail(IlBenchError(f"{path}: holds no latency; make it with pytest --benchmark -m latency"))
    typer.echo(latency.section(rows).markdown(), nl=False)
