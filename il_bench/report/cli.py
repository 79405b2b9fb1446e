"""The `il-bench report` commands, which make every view of a report.json again.

`il-bench --help` loads this module, so what draws tables and pictures is imported inside the functions.
"""

import shutil
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from il_bench.errors import IlBenchError, fail
from il_bench.protocol import REPORT_FOLDER

if TYPE_CHECKING:
    from il_bench.report.schema import Report


class _ShowByDefault(TyperGroup):
    """`il-bench report A B` is `il-bench report show A B`."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Take a word that is no command for the first report to show."""
        is_command = args[0] in self.commands or args[0].startswith("-")
        return super().resolve_command(ctx, args if is_command else ["show", *args])


app = typer.Typer(
    help="Show a benchmark's report again, compare two, or export the numbers.",
    no_args_is_help=True,
    cls=_ShowByDefault,
)
ReportFile = Annotated[Path, typer.Argument(help="A report.json, or its folder.")]


class Kind(StrEnum):
    """The form of what is exported: tables, or an eval_info.json of each policy."""

    CSV = "csv"
    PARQUET = "parquet"
    LEROBOT = "lerobot"


def merge(
    folders: Annotated[list[Path], typer.Argument(help="The report folders of all shards.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the report.")] = REPORT_FOLDER,
    baselines: Annotated[
        Path | None, typer.Option(help="The shards' --il-baselines. Default: the baselines.json of il_bench.")
    ] = None,
) -> None:
    """Combine the shards of `pytest --benchmark --il-shard I/N` into one run, and decide its gates.

    The exit status is that of the run: 1 if a policy is worse, 6 if a required gate is undecided, else 0.
    """
    try:
        from il_bench.gate import baselines as declared
        from il_bench.gate import exit_status
        from il_bench.report import answer, shards, views

        known = declared.load(baselines or declared.default_path())
        report, said = shards.merge(folders, output, known)
        paths, problems = views.write(report, output)
    except IlBenchError as error:
        fail(error)
    typer.echo(answer.terminal(report), nl=False)
    for line in (*said, f"report: {paths[0]}", *problems):
        typer.echo(line)
    status = exit_status(row.model_dump(include={"target", "baseline"}) for row in report.success)
    if status:
        raise typer.Exit(status)


@app.command(epilog="Example: il-bench report show OLD/report.json NEW/report.json")
def show(
    path: ReportFile = REPORT_FOLDER / "report.json",
    newer: Annotated[Path | None, typer.Argument(help="A later report, to compare the first with.")] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Where to write the page. Default: beside the report."),
    ] = None,
) -> None:
    """Print the tables of a report and write its page again. Of two reports, say what changed."""
    try:
        from il_bench.report import history, schema, views
        from il_bench.report.page import words

        before = None if newer is None else _file(path)
        found = _file(path if newer is None else newer)
        report = schema.load(found)
        print_tables(report)
        if before is not None:
            for change in words.changes(report, schema.load(before)):
                mark = words.change_mark(change)
                typer.echo(f"{change.policy}: {mark.word} ({mark.told})")
        place = output or found.with_name("report.html" if before is None else "comparison.html")
        past, missing = history.of_run(report)
        made, problems = views.draw(report, found.parent, place, before=before, past=past)
        problems += missing
    except IlBenchError as error:
        fail(error)
    typer.echo(f"made: {', '.join(map(str, made)) or 'nothing'}")
    if problems:
        for problem in problems:
            typer.secho(f"il-bench: {problem}", fg="red", err=True)
        raise typer.Exit(1)


@app.command(epilog="Example: il-bench report history history.jsonl --output history.html")
def history(
    path: Annotated[Path, typer.Argument(help="The file that --il-history wrote.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Also draw the runs on this page.")
    ] = None,
) -> None:
    """List the runs in a file of --il-history: rates over commits, and where a gate's decision changed."""
    try:
        from il_bench.files import write_whole, writing
        from il_bench.report import history, page, schema

        lines = history.load(path)
        if not lines:
            raise IlBenchError(f"{path}: holds no runs; pytest --benchmark --il-history {path} adds one")
        for text in history.told(lines):
            typer.echo(text)
        if output is not None:
            empty = schema.Report(created=lines[-1].created, environment={})
            with writing(output, "give another --output"):
                write_whole(output, page.render(empty, past=lines, title="Runs over time").encode())
            typer.echo(f"made: {output}")
    except IlBenchError as error:
        fail(error)


@app.command(epilog="Example: il-bench report curves runs/vqbet")
def curves(
    runs: Annotated[
        list[str] | None, typer.Argument(help="Folders of training runs, finished or not.", metavar="RUN...")
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="The page.")] = REPORT_FOLDER / "curves.html",
) -> None:
    """Draw loss and success of training runs beside those of the shipped policies."""
    try:
        from il_bench.files import write_whole, writing
        from il_bench.report import curves

        found = curves.read_beside_shipped(runs or [])
        for curve in found:
            if not curve.is_shipped or runs is None or curve.name in runs:
                typer.echo(str(curve))
        with writing(output, "give another --output"):
            write_whole(output, curves.render(found).encode())
    except IlBenchError as error:
        fail(error)
    typer.echo(f"made: {output}")


@app.command(epilog="Example: il-bench report export il-bench-report --as csv")
def export(
    path: ReportFile = REPORT_FOLDER / "report.json",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for the files. Default: beside the report.")
    ] = None,
    kind: Annotated[
        list[Kind] | None,
        typer.Option(
            "--as", help="csv, parquet, or lerobot: an eval_info.json of each policy. Default: both tables."
        ),
    ] = None,
) -> None:
    """Write the report's rows and all episodes as tables, CSV and Parquet."""
    try:
        from il_bench.report import export, schema

        found = _file(path)
        written = export.write(
            schema.load(found),
            output or found.parent / "tables",
            [str(each) for each in kind or (Kind.CSV, Kind.PARQUET)],
        )
    except IlBenchError as error:
        fail(error)
    for each in written:
        typer.echo(each)


@app.command(epilog="Example: il-bench report markdown il-bench-report --against OLD/report.json")
def markdown(
    path: ReportFile = REPORT_FOLDER / "report.json",
    against: Annotated[Path | None, typer.Option(help="The report of an older run, to compare with.")] = None,
    page: Annotated[str | None, typer.Option(help="The address of report.html, to link to.")] = None,
    missing_ok: Annotated[
        bool, typer.Option("--missing-ok", help="If there is no report to read, say so instead of failing.")
    ] = False,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Also write this file.")] = None,
) -> None:
    """Print a run as Markdown for CI: the verdict, and the policies that changed or did not pass."""
    try:
        from il_bench.files import write_whole, writing
        from il_bench.report import markdown, schema

        before = None if against is None else schema.load(_file(against))
        try:
            text = markdown.render(schema.load(_file(path)), before, page)
        except IlBenchError as error:
            if not missing_ok:
                raise
            typer.echo(f"il-bench: {error}", err=True)
            text = markdown.without_report(page)
        if output is not None:
            with writing(output, "give another --output"):
                write_whole(output, text.encode())
    except IlBenchError as error:
        fail(error)
    typer.echo(text, nl=False)


def metrics(path: ReportFile = REPORT_FOLDER / "report.json") -> None:
    """Print every metric that people publish for PushT, with its name and who publishes it.

    The values of the policies in a report, all from the same episodes, stand beside published values of the
    same metric.
    """
    try:
        from il_bench.report import by_metric, schema

        for line in by_metric.told(schema.load(_file(path))):
            typer.echo(line)
    except IlBenchError as error:
        fail(error)


def _file(path: Path) -> Path:
    """The report.json that is meant by itself or by its folder."""
    return path / "report.json" if path.is_dir() else path


@app.command(epilog="Example: il-bench report latency il-bench-report")
def latency(path: ReportFile = REPORT_FOLDER / "report.json") -> None:
    """Print the latency tables of a report as Markdown."""
    try:
        from il_bench.report import latency, schema

        path = _file(path)
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
