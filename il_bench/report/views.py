"""Every view of a report: the terminal's tables, and the page."""

import io
from collections.abc import Sequence
from itertools import compress
from pathlib import Path

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from il_bench.errors import IlBenchError, described, printable
from il_bench.files import write_whole, writing
from il_bench.report import export, latency, page, schema, stress, success, tables
from il_bench.report.history import Line
from il_bench.report.schema import Report

_UNLIMITED = 500  # wider than any table: no cell wraps
_LEAST = 116  # in a narrower table words break: better let the terminal wrap its lines
_WIDE = 150  # from here on there is room for columns that are spare


def sections(report: Report) -> list[tables.Section]:
    """Return the report's sections in order, including those without rows."""
    return [
        success.section(report),
        stress.section(report.stress),
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


def write(report: Report, folder: Path, *, past: Sequence[Line] = ()) -> tuple[list[Path], list[str]]:
    """Write report.json, the page (see `draw`) and LeRobot's file of each policy.

    Raises IlBenchError without a report.json.
    """
    path = folder / "report.json"
    schema.save(path, report)
    views, problems = draw(report, folder, folder / "report.html", past=past)
    of_lerobot = folder / export.LEROBOT
    try:
        with writing(of_lerobot, "use another folder"):
            for earlier in of_lerobot.glob("*/eval_info.json"):
                earlier.unlink()
        export.eval_infos(report, of_lerobot)
    except IlBenchError as error:
        problems.append(f"NOT WRITTEN: {error}")
    return [path, *views], problems


def draw(
    report: Report, folder: Path, path: Path, *, before: Path | None = None, past: Sequence[Line] = ()
) -> tuple[list[Path], list[str]]:
    """Write the page, whole or not at all; return its path, and a sentence for what is missing.

    folder: where the recordings lie. before: the report.json of another run, to compare with. past: earlier
    runs.
    """
    older = None if before is None else schema.load(before)
    try:
        text = page.render(
            report,
            sections(report),
            folder,
            before=older,
            folder_before=None if before is None else before.parent,
            past=past,
        )
        with writing(path, "use another folder"):
            write_whole(path, text.encode())
    except KeyboardInterrupt:
        return [], [f"no {path.name}: interrupted; `il-bench report show` makes it again"]
    except IlBenchError as error:
        return [], [f"NOT WRITTEN: {error}"]
    except Exception as error:  # whatever it is, report.json and the terminal's tables are worth having
        return [], [f"no {path.name}: {described(error)}"]
    return [path], []
