"""Runs over time: a file with a line a run, which only grows, and what it says."""

import errno
import json
import os
from collections.abc import Sequence
from datetime import datetime
from io import FileIO
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from il_bench.errors import IlBenchError, wrong_field
from il_bench.files import locked, writing
from il_bench.protocol import Mode, TimedCall
from il_bench.report.schema import Report

SCHEMA: Final[Literal[1]] = 1
_LOCK_SECONDS = 30


class Past(BaseModel):
    """What a line keeps of a policy."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    policy: str
    track: str
    sha256: str | None
    n: Annotated[int, Field(ge=0)]
    rate: float
    low: float
    high: float
    target: str
    baseline: str | None
    latency_ms: float | None = None


class Line(BaseModel):
    """A run: when, of which commit and versions, and every policy."""

    model_config = ConfigDict(extra="forbid", frozen=True, serialize_by_alias=True, validate_by_name=True)

    schema_: Annotated[Literal[1], Field(alias="schema")] = SCHEMA
    created: datetime
    commit: str | None
    versions: dict[str, str]
    policies: tuple[Past, ...]


def line_of(report: Report) -> Line:
    """Return the line of a run; "+" follows its commit if files differed from it."""
    timed = {
        row.policy: row.p50_ms
        for row in report.latency
        if (row.what, row.batch, row.processed, row.mode) == (TimedCall.NEW_CHUNK, 1, True, Mode.EAGER)
    }
    policies = tuple(
        Past(
            policy=row.policy,
            track=row.track,
            sha256=row.sha256,
            n=row.n_episodes,
            **dict(zip(("rate", "low", "high"), row.success_rate.model_dump().values(), strict=True)),
            target=str(row.decision),
            baseline=None if row.baseline is None else str(row.baseline.decision),
            latency_ms=timed.get(row.policy),
        )
        for row in report.success
    )
    packages, commit = (report.environment.get(name) for name in ("packages", "commit"))
    return Line(
        created=report.created,
        commit=f"{commit}{'+' if report.environment.get('dirty') else ''}" if commit else None,
        versions={str(name): str(value) for name, value in dict(packages or {}).items()},
        policies=policies,
    )


def append(path: Path, line: Line) -> None:
    """Add a line to the file, and make it if it is missing; the line is there whole or not at all.

    Raises IlBenchError if it cannot be written, or if other runs write to it all the time.
    """
    way_out, content = "name another file with --il-history", line.model_dump_json().encode() + b"\n"
    busy = f"another process has held its lock for {_LOCK_SECONDS} s; {way_out}"
    with writing(path, way_out):
        path.parent.mkdir(parents=True, exist_ok=True)
    with (
        locked(path.with_name(f".{path.name}.lock"), path, busy, way_out, seconds=_LOCK_SECONDS),
        writing(path, way_out),
        FileIO(path, "a+") as file,
    ):
        size = file.seek(0, os.SEEK_END)
        file.seek(max(size - 1, 0))
        if file.read(1) not in (b"", b"\n"):
            content = b"\n" + content
        try:
            if file.write(content) < len(content):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(file.fileno())
        except OSError:
            file.truncate(size)
            raise


def load(path: Path) -> list[Line]:
    """Read the runs, in the order in which they were added, whatever the clock said then.

    Raises IlBenchError: the file cannot be read, or a line is damaged.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise IlBenchError(
            f"{path}: cannot be read ({reason}); name a file that --il-history wrote"
        ) from None
    found = []
    for number, text in enumerate(lines, 1):
        if not text.strip():
            continue
        try:
            found.append(Line.model_validate(json.loads(text)))
        except ValidationError as error:
            what = wrong_field(error, "the line")
            raise IlBenchError(f"{path}: line {number}: {what}; correct or delete the line") from None
        except ValueError:
            raise IlBenchError(
                f"{path}: line {number} is not valid JSON; correct or delete the line"
            ) from None
    return found


def of_run(report: Report) -> tuple[list[Line], list[str]]:
    """Return the runs in the file of a run that had --il-history, and a sentence if it cannot be read."""
    path = report.environment.get("history")
    if not isinstance(path, str):
        return [], []
    try:
        return load(Path(path)), []
    except IlBenchError as error:
        return [], [f"no history on the page: {error}"]


def told(lines: Sequence[Line]) -> list[str]:
    """Return a line a run: when, which commit, the rates, and what the gates newly say."""
    before: dict[tuple[str, str], tuple[str, str | None]] = {}
    found = []
    for line in lines:
        rates, news = [], []
        for past in line.policies:
            gates = past.target, past.baseline
            rates.append(f"{past.policy} {past.rate:.3f}")
            if before.get((past.policy, past.track), gates) != gates:
                news.append(f"{past.policy} now {' and '.join(filter(None, gates))}")
            before[past.policy, past.track] = gates
        when = line.created.strftime("%Y-%m-%d %H:%M")
        changed = f"; {', '.join(news)}" if news else ""
        found.append(f"{when}  {(line.commit or '-')[:10]:10}  {', '.join(rates)}{changed}")
    return found


def points(lines: Sequence[Line]) -> list[dict[str, Any]]:
    """Return for each policy its rate in each run, and whether a gate changed its word there."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for number, line in enumerate(lines):
        for past in line.policies:
            earlier = found.setdefault((past.policy, past.track), [])
            gates = (past.target, past.baseline)
            changed = bool(earlier) and earlier[-1]["gates"] != gates
            earlier.append(
                {
                    "run": number + 1,
                    "when": line.created.strftime("%Y-%m-%d %H:%M"),
                    "commit": (line.commit or "")[:10],
                    "gates": gates,
                    "changed": changed,
                    **past.model_dump(include={"rate", "low", "high", "n", "latency_ms"}),
                }
            )
    return [{"name": name, "track": track, "runs": runs} for (name, track), runs in found.items()]
