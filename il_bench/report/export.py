"""What people take away: tables of sections and episodes as CSV and Parquet, and LeRobot's eval_info.json."""

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, count
from pathlib import Path
from typing import Any

from il_bench.files import write_whole, writing
from il_bench.report import lerobot, schema

#: The kind of files that LeRobot's tools read, and their folder in that of a report.
LEROBOT = "lerobot"
_NOT_IN_ROWS = {"success": {"episodes"}, "tokenizers": {"vocabulary"}, "comparisons": {"blocks", "yardstick"}}
Row = Mapping[str, Any]


def tables(report: schema.Report) -> dict[str, list[Row]]:
    """Return the rows of each section that has some, and of all episodes, with plain values in columns."""
    found: dict[str, list[Row]] = {
        name: [
            _flat(row.model_dump(mode="json", exclude=_NOT_IN_ROWS.get(name)))
            for row in getattr(report, name)
        ]
        for name in schema.SECTIONS
    }
    found["episodes"] = [
        {"policy": row.policy, "track": row.track, **episode.model_dump()}
        for row in report.success
        for episode in row.episodes
    ]
    return {name: rows for name, rows in found.items() if rows}


def write(report: schema.Report, folder: Path, kinds: Sequence[str]) -> list[Path]:
    """Write every table as each of `kinds`, "csv" or "parquet"; return the paths.

    "lerobot": write `<policy>/eval_info.json` of each policy.
    """
    written = []
    if LEROBOT in kinds:
        written = eval_infos(report, folder)
        kinds = [kind for kind in kinds if kind != LEROBOT]
    for name, rows in tables(report).items():
        columns = list(dict.fromkeys(column for row in rows for column in row))
        for kind in kinds:
            path = folder / f"{name}.{kind}"
            content = _csv(columns, rows) if kind == "csv" else _parquet(columns, rows)
            with writing(path, "give another --output"):
                write_whole(path, content)
            written.append(path)
    return written


def eval_infos(report: schema.Report, folder: Path) -> list[Path]:
    """Write `<policy>/eval_info.json` of each policy; return the paths."""
    written = []
    for row, name in zip(report.success, _folders(report.success), strict=True):
        path = folder / name / "eval_info.json"
        with writing(path, "give another --output"):
            write_whole(path, lerobot.content(row))
        written.append(path)
    return written


def _folders(rows: Sequence[schema.Success]) -> list[str]:
    """Return a name of a folder for each policy, no two alike on any file system."""
    policies, found = [row.policy for row in rows], list[str]()
    for row in rows:
        name = row.policy if policies.count(row.policy) == 1 else f"{row.policy}.{row.track}"
        name = re.sub(r"[^\w.-]+", "-", name).strip(".")[:100] or "policy"
        taken = {each.casefold() for each in found}
        names = chain([name], (f"{name}-{number}" for number in count(2)))
        found.append(next(each for each in names if each.casefold() not in taken))
    return found


def _flat(values: Row) -> Row:
    """Put `{"rate": {"low": 1}}` into one column "rate.low"; lists become JSON."""
    return dict(_columns(values, ""))


def _columns(values: Row, above: str) -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _columns(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", json.dumps(value) if isinstance(value, list) else value


def _csv(columns: Sequence[str], rows: Sequence[Row]) -> bytes:
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _as_text(value) for name, value in row.items()} for row in rows)
    return file.getvalue().encode()


def _as_text(value: Any) -> Any:
    """Names that a spreadsheet would run as a formula are marked as text."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@") else value


def _parquet(columns: Sequence[str], rows: Sequence[Row]) -> bytes:
    import pyarrow
    from pyarrow import parquet

    file = pyarrow.BufferOutputStream()
    parquet.write_table(pyarrow.table({name: [row.get(name) for row in rows] for name in columns}), file)
    content: bytes = file.getvalue().to_pybytes()
    return content
