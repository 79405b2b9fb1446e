"""The `il-bench report` commands."""

import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from il_bench.errors import IlBenchError, fail
from il_bench.files import write_whole, writing
from il_bench.protocol import DATA_HELP, data_name

if TYPE_CHECKING:
    from il_bench.report.schema import Tokenizer

FOLDER = Path("il-bench-report")
app = typer.Typer(
    help="Show a benchmark's report again, and the vocabulary of an action tokenizer as a picture.",
    no_args_is_help=True,
)


@app.command()
def show(
    path: Annotated[Path, typer.Argument(help="A report.json.")] = FOLDER / "report.json",
) -> None:
    """Print the tables of a report and make its page and pictures again, beside it."""
    try:
        from il_bench.report import schema, table, views

        report = schema.load(path)
        typer.echo(table.render(report, width=_width(), color=sys.stdout.isatty()))
        made = views.write(report, path.parent)
    except IlBenchError as error:
        fail(error)
    except OSError as error:
        fail(IlBenchError(f"{path.parent}: cannot be written ({error.strerror}); copy {path.name} elsewhere"))
    typer.echo(f"made: {', '.join(str(file) for file in made[1:])}")


@app.command()
def latency(
    path: Annotated[Path, typer.Argument(help="A report.json.")] = FOLDER / "report.json",
) -> None:
    """Print the latency tables of a report as Markdown."""
    try:
        from il_bench.report import latency, schema

        rows = schema.load(path).latency
    except IlBenchError as error:
        fail(error)
    if not rows:
        fail(IlBenchError(f"{path}: holds no latency; make it with pytest --benchmark -m latency"))
    typer.echo(latency.markdown(rows), nl=False)


@app.command()
def vocabulary(
    policy: Annotated[
        str,
        typer.Argument(help="bet, vqbet, or a VQ-BeT or BeT checkpoint: a folder or a Hub id."),
    ],
    data: Annotated[str, typer.Option(help=DATA_HELP)] = "expert",
    output: Annotated[Path, typer.Option(help="Folder of the picture.")] = FOLDER,
) -> None:
    """Draw the moves that POLICY's action tokenizer knows, and how often each is used.

    A move is what one token (of a residual VQ: one token of each stage) decodes to: a path of actions from
    the agent on. Use is counted on the demonstrations in DATA that are held out, every fifth episode; one of
    them is drawn as it was, and beside it what its tokens make of it. `pytest --benchmark` draws the same for
    all tokenizers that it measures, in report.html.
    """
    try:
        row = _measured(policy, data)
        from il_bench.report import moves, schema, table
        from il_bench.report.tokenizers import called

        picture = moves.render(row)
        file = output / f"vocabulary-{re.sub(r'[^\w.-]+', '-', called(policy))}.png"
        with writing(output, "give another --output"):
            write_whole(file, picture)
    except IlBenchError as error:
        fail(error)
    found = schema.Report(created=datetime.now(UTC), environment={}, tokenizers=(row,))
    typer.echo(table.render(found, width=_width(), color=sys.stdout.isatty()))
    typer.echo(f"picture: {file}")


def _measured(policy: str, data: str) -> "Tokenizer":
    from il_bench.data.sources import resolve_data

    source, name = resolve_data(data)
    from il_bench.data import chunks, open_dataset
    from il_bench.policies.tokenizers import load_tokenizer
    from il_bench.report.tokenizers import measure, of_checkpoint

    tokenizer = load_tokenizer(policy)
    chunk_size, n_dimensions = tokenizer.chunk_shape
    if n_dimensions != 2:
        raise IlBenchError(f"{policy}: its actions have {n_dimensions} dimensions, those of PushT have 2.")
    with _reading(policy, "the folder of a checkpoint"):
        subject = of_checkpoint(policy, tokenizer)
    with _reading(source, "other --data"):
        seen = chunks.cut(open_dataset(source), chunk_size, held_out=True)
    return measure(subject, seen, name or data_name(source))[0]


@contextmanager
def _reading(what: str, way_out: str) -> Iterator[None]:
    """Errors of the file system inside, as one sentence about what is read."""
    try:
        yield
    except OSError as error:
        raise IlBenchError(f"{what}: cannot be read ({error.strerror or error}); give {way_out}.") from None


def _width() -> int | None:
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None
