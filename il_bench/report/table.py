"""The report as a table for the terminal."""

import io
from typing import Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from il_bench.report import latency, lines
from il_bench.report.schema import Report

_RIGHT = {"parameters", "episodes", "seconds"}
_WHOLE = {"policy", "parameters", "success_rate", "mean_max_reward"}
_UNLIMITED = 500  # wider than any table: no cell wraps
_LEAST = 116  # narrower, words break: better let the terminal wrap lines


def render(report: Report, *, width: int | None = None, color: bool = False) -> str:
    """Return the tables of a report as text, success first, leaving out empty ones.

    width: columns of the terminal; None where there is none, as in a log, which is never wrapped.
    color: whether to write terminal colours.
    """
    console = Console(
        file=io.StringIO(),
        width=max(width, _LEAST) if width else _UNLIMITED,
        force_terminal=color,
        color_system="standard" if color else None,
        highlight=False,
    )
    if report.success:
        _success(console, report)
    for name in lines.PLAIN_SECTIONS:
        _plain(console, name, lines.plain(report, name), lines.notes(report, name))
    _latency(console, report)
    file = console.file
    assert isinstance(file, io.StringIO)
    return "\n".join(text.rstrip() for text in file.getvalue().splitlines()) + "\n"


def _success(console: Console, report: Report) -> None:
    table = _table()
    for name in lines.COLUMNS:
        side: Literal["left", "right"] = "right" if name in _RIGHT else "left"
        table.add_column(name, justify=side, overflow="fold", no_wrap=name in _WHOLE)
    measured = lines.measured(report)
    for line in measured:
        table.add_row(*_cells(line))
    around, notes = lines.context(report)
    if around:
        table.add_section()
        table.add_row(Text("for context", style="dim italic"))
    for line in around:
        table.add_row(*_cells(line), style="dim")
    console.print(table)
    for note in notes:
        console.print(Text(note, style="dim"))


def _plain(console: Console, name: str, rows: list[dict[str, str]], notes: list[str]) -> None:
    if not rows:
        return
    table = _table()
    for column in rows[0]:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(text) for text in row.values()))
    console.print(Text(f"\n{name}", style="bold"))
    console.print(table)
    for note in notes:
        console.print(Text(note, style="dim"))


def _latency(console: Console, report: Report) -> None:
    rows = report.latency
    if not rows:
        return
    console.print(Text("\nlatency", style="bold"))
    for columns, found in (
        (latency.COLUMNS, latency.lines(rows)),
        (latency.FLOOR_COLUMNS, latency.floor_lines(rows)),
        (latency.FRESH_COLUMNS, latency.fresh_lines(rows)),
    ):
        table = _table()
        for column in columns:
            table.add_column(column, overflow="fold")
        for cells in found:
            table.add_row(*(Text(cell) for cell in cells))
        if found:
            console.print(table)
    for note in latency.notes(rows):
        console.print(Text(note, style="dim"))


def _table() -> Table:
    return Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")


def _cells(line: lines.Line) -> list[Text]:
    cells = [Text(text) for text in line.cells]
    for index, tone in zip((4, 5), line.tones, strict=True):
        if tone is not None:
            cells[index].stylize(tone)
    return cells
