"""Every view of a report: the terminal's tables, the page, and the files with its pictures."""

import base64
import io
from collections.abc import Mapping
from itertools import compress
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from il_bench.files import write_whole
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


def terminal(report: Report, *, width: int | None = None, color: bool = False) -> str:
    """Return the tables of a report that have rows, as text.

    width: columns of the terminal; None in a log, whose lines never wrap.
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
            console.print(_rich(table, has_room=console.width >= _WIDE))
        for note in section.notes:
            console.print(Text(note, style="dim"))
    return "\n".join(text.rstrip() for text in written.getvalue().splitlines()) + "\n"


def _rich(table: tables.Table, *, has_room: bool) -> RichTable:
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
            drawn.add_row(
                *(Text(cell, getattr(cell, "tone", "")) for cell in compress(row, kept)), style=style
            )
    return drawn


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


def write(report: Report, folder: Path) -> list[Path]:
    """Write report.json and the views made from it, each file whole or not at all; return their paths.

    The views are report.png, tokenizers.png and latency.png if the report has such rows, and report.html,
    which holds these pictures and one of each tokenizer's vocabulary.
    """
    schema.save(folder / "report.json", report)
    pictures = {"success": plot.render(report)}
    if report.tokenizers:
        pictures["tokenizers"] = plot.render_tokenizers(report.tokenizers)
    if report.latency:
        pictures["latency"] = plot.render_latency(report.latency)
    files = {f"{title}.png".replace("success", "report"): png for title, png in pictures.items()}
    with_vocabulary = [row for row in report.tokenizers if row.vocabulary is not None]
    vocabularies = {vocabulary.title(row): vocabulary.render(row) for row in with_vocabulary}
    files["report.html"] = page(report, pictures, vocabularies).encode()
    for name, content in files.items():
        write_whole(folder / name, content)
    return [folder / name for name in ("report.json", *files)]
