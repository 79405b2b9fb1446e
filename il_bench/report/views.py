"""Every view of a report: the terminal's tables, the page, and the files with its pictures."""

import base64
import io
from collections.abc import Callable, Mapping
from functools import partial
from itertools import compress
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from il_bench.errors import IlBenchError, described, printable
from il_bench.files import write_whole, writing
from il_bench.report import latency, plot, schema, success, tables, vocabulary
from il_bench.report.schema import Report

_UNLIMITED = 500  # wider than any table: no cell wraps
_LEAST = 116  # in a narrower table words break: better let the terminal wrap its lines
_WIDE = 150  # from here on there is room for columns that are spare


def sections(report: Report) -> list[tables.Section]:
    """Return the report's sections in order, including those without rows."""
    return [
        success.section(report),
        tables.section("tokenizers", report.tokenizers),
        tables.throughput(report),
        tables.section("comparisons", report.comparisons),
        latency.section(report.latency),
    ]


def terminal(
    report: Report, *, width: int | None = None, color: bool = False, encoding: str | None = None
) -> str:
    """Return the tables of a report that have rows, as text.

    width: columns of the terminal; None in a log, whose lines never wrap. encoding: what it lacks is marked.
    """
    written = io.StringIO()
    console = Console(
        file=written,
        width=max(width, _LEAST) if width else _UNLIMITED,
        force_terminal=color,
        color_system="standard" if color else None,
        highlight=False,
    )
    for section in sections(report):
        if section.tables and section.title != "success":
            console.print(Text(f"\n{section.title}", style="bold"))
        for table in section.tables:
            console.print(_rich(table, encoding, has_room=console.width >= _WIDE))
        for note in section.notes:
            console.print(Text(printable(note, encoding), style="dim"))
    return "\n".join(text.rstrip() for text in written.getvalue().splitlines()) + "\n"


def _rich(table: tables.Table, encoding: str | None, *, has_room: bool) -> RichTable:
    drawn = RichTable(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    kept = [has_room or not column.is_spare for column in table.columns]
    for column in compress(table.columns, kept):
        side = "right" if column.is_number else "left"
        drawn.add_column(column.name, justify=side, overflow="fold", no_wrap=column.is_whole)  # type: ignore[arg-type]
    for rows, style in ((table.rows, None), (table.context, "dim")):
        if rows is table.context and rows:
            drawn.add_section()
            drawn.add_row(Text("for context", style="dim italic"))
        for row in rows:
            cells = [Text(_cell(cell, encoding), getattr(cell, "tone", "")) for cell in compress(row, kept)]
            drawn.add_row(*cells, style=style)
    return drawn


def _cell(text: str, encoding: str | None) -> str:
    return printable(tables.shortened(text), encoding)


def page(
    report: Report, pictures: Mapping[str, bytes], vocabularies: Mapping[str, bytes] | None = None
) -> str:
    """Return the report as one HTML file that needs no other file.

    pictures: a PNG for each section, by its title. vocabularies: a PNG for each tokenizer, by its title.
    """
    files = FileSystemLoader(Path(__file__).parent)
    jinja = Environment(
        loader=files, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    jinja.filters["embedded"] = lambda png: f"data:image/png;base64,{base64.b64encode(png).decode()}"
    return jinja.get_template("page.html.j2").render(
        report=report, sections=sections(report), pictures=pictures, vocabularies=vocabularies or {}
    )


def write(report: Report, folder: Path) -> tuple[list[Path], list[str]]:
    """Write report.json and the views made from it; see `draw`. Raises IlBenchError without a report.json."""
    path = folder / "report.json"
    schema.save(path, report)
    views, problems = draw(report, folder)
    return [path, *views], problems


def draw(report: Report, folder: Path) -> tuple[list[Path], list[str]]:
    """Write the views of a report, each file whole or not at all; return their paths, and what is missing.

    The views are report.png, tokenizers.png and latency.png if the report has such rows, and report.html,
    which holds these pictures and one of each tokenizer's vocabulary. One that cannot be drawn or written
    costs that one alone, and a sentence.
    """
    drawings = {"success": partial(plot.render, report)}
    if report.tokenizers:
        drawings["tokenizers"] = partial(plot.render_tokenizers, report.tokenizers)
    if report.latency:
        drawings["latency"] = partial(plot.render_latency, report.latency)
    pictures, problems = _drawn(drawings)
    with_vocabulary = [row for row in report.tokenizers if row.vocabulary is not None]
    vocabularies, more = _drawn(
        {vocabulary.title(row): partial(vocabulary.render, row) for row in with_vocabulary}
    )
    files = {f"{title}.png".replace("success", "report"): png for title, png in pictures.items()}
    files["report.html"] = page(report, pictures, vocabularies).encode()
    written = []
    for name, content in files.items():
        try:
            with writing(folder / name, "use another folder"):
                write_whole(folder / name, content)
            written.append(folder / name)
        except IlBenchError as error:
            more.append(f"NOT WRITTEN: {error}")
    return written, problems + more


def _drawn(drawings: Mapping[str, Callable[[], bytes]]) -> tuple[dict[str, bytes], list[str]]:
    """Draw pictures, by title; return them, and a sentence for each that failed or was interrupted."""
    found, problems = {}, []
    for title, drawing in drawings.items():
        try:
            found[title] = drawing()
        except KeyboardInterrupt:
            problems.append(f"no picture of {title}: interrupted; `il-bench report show` draws it again")
        except Exception as error:  # whatever it is, the others and the page are worth having
            problems.append(f"no picture of {title}: {described(error)}")
    return found, problems
