"""Tables of the report, which the terminal, the page and Markdown show alike."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from il_bench.report.rows import PRODUCTS, ReportPart
from il_bench.report.schema import Report

_NOT_IN_TABLES = {"vocabulary", "floor", "blocks", "yardstick", "machine", "versions", "sha256"}


def shortened(name: str, most: int = 80) -> str:
    """Return a name with its middle left out if it is longer than `most`: begin and end tell names apart."""
    return name if len(name) <= most else f"{name[: most // 2]}…{name[1 - most + most // 2 :]}"


class Cell(str):
    """The text of a cell, and its tone ("green", "red", ..), a word of rich and of the page's style sheet."""

    tone: str

    def __new__(cls, text: str, tone: str = "") -> "Cell":
        """Make a cell."""
        cell = super().__new__(cls, text)
        cell.tone = tone
        return cell


@dataclass(frozen=True)
class Column:
    """A column: its name, what it holds, and how a terminal shows it.

    is_number: aligned right. is_whole: never wrapped. is_spare: left out of a narrow terminal.
    """

    name: str
    about: str = ""
    is_number: bool = False
    is_whole: bool = False
    is_spare: bool = False


@dataclass(frozen=True)
class Table:
    """Columns and rows of cells. `context`: rows to compare the others with."""

    columns: tuple[Column, ...]
    rows: list[tuple[str, ...]]
    context: list[tuple[str, ...]] = field(default_factory=list)

    @staticmethod
    def of(columns: Iterable[str], rows: Iterable[tuple[str, ...]]) -> "Table":
        """Make a table whose columns are all shown alike."""
        return Table(tuple(map(Column, columns)), list(rows))


@dataclass(frozen=True)
class Section:
    """A part of the report: the tables that have rows, and the notes under them."""

    title: str
    tables: list[Table]
    notes: list[str]

    def markdown(self) -> str:
        """Return tables and notes as Markdown, for a README."""
        lines = []
        for table in self.tables:
            names = [column.name for column in table.columns]
            head, *rows = (f"| {' | '.join(cells)} |" for cells in (names, *table.rows))
            lines += [head, f"|{'---|' * len(names)}", *rows, ""]
        return "\n".join([*lines, *(f"- {note}" for note in self.notes)]) + "\n"


@dataclass(frozen=True)
class Published:
    """A published result of a policy: metrics on `track`, or the ms of an inference on `device`.

    values: what the source gives, by name.
    """

    policy: str
    variant: str | None
    source: str
    trust: str
    values: Mapping[str, float]
    track: str | None = None
    n: int | None = None
    device: str | None = None

    @property
    def label(self) -> str:
        """The policy and its variant."""
        return f"{self.policy} ({self.variant})" if self.variant else self.policy


@cache
def published(kind: str) -> tuple[Published, ...]:
    """Return the published results that il_bench knows, of a kind: "results" or "latency_ms"."""
    data = json.loads(Path(__file__).with_name("published.json").read_text(encoding="utf-8"))

    def read(row: dict[str, Any]) -> Published:
        facts = {name: value for name, value in row.items() if name in Published.__dataclass_fields__}
        values = {name: row[name] for name in row if name not in facts and row[name] is not None}
        return Published(**facts, values=values)

    return tuple(map(read, data[kind]))


def section(title: str, rows: Iterable[ReportPart]) -> Section:
    """Return a table with a column for each field that some row has, except those of _NOT_IN_TABLES.

    A tokenizer's vocabulary is for pictures; what a comparison is made from stays in report.json.
    """
    dumped = [row.model_dump(exclude=_NOT_IN_TABLES) for row in rows]
    filled = [name for name in dumped[0] if any(row[name] is not None for row in dumped)] if dumped else []
    table = Table.of(filled, [tuple(_text(row[name]) for name in filled) for row in dumped])
    return Section(title, [table] if dumped else [], [])


def throughput(report: Report) -> Section:
    """Return the throughput section, whose notes explain each floor."""
    floors: dict[str, dict[str, None]] = {}
    for row in report.throughput:
        if row.ratio_to_floor is not None:
            floors.setdefault(row.floor or PRODUCTS, {})[row.what] = None
    said = {PRODUCTS: f"{PRODUCTS} (a table look-up does without them, so its ratio_to_floor can be above 1)"}
    notes = [f"floor of {', '.join(what)}: {said.get(name, name)}" for name, what in floors.items()]
    return Section("throughput", section("throughput", report.throughput).tables, notes)


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, tuple):
        return ", ".join(map(_text, value))
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
