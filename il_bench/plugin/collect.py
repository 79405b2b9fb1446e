"""The files of a run: baselines are read before it, and at its end the rows of all tests become a report.

Only the controller calls `check_baselines` and `finish`; workers of pytest-xdist send it records.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError

from il_bench import machine, zoo
from il_bench.errors import IlBenchError, printable, wrong_field
from il_bench.gate import Decision, baselines, exit_status
from il_bench.gate.baselines import Baselines
from il_bench.gate.measured import MeasuredBaseline
from il_bench.plugin.settings import Settings
from il_bench.protocol import PIXELS, TEST_SEEDS, TRACKS
from il_bench.report import answer, history, schema, shards, views
from il_bench.report.rows import ReportPart
from il_bench.rollout.metrics import METRICS
from il_bench.rollout.outcomes import Outcomes

ACCEPT = "repeat the run with --il-accept-regression (with --il-resume no episode runs again)"


def baselines_path(settings: Settings) -> Path:
    """Return the baselines file of a run."""
    return settings.baselines or baselines.default_path()


def load_baselines(settings: Settings) -> Baselines:
    """Return the targets and baselines of a run; none if --il-update-baselines is to make the file."""
    path = baselines_path(settings)
    return Baselines() if settings.update_baselines and not path.exists() else baselines.load(path)


def check_baselines(settings: Settings) -> None:
    """Raise IlBenchError for an unusable baselines file now, not after an hour of rollouts."""
    path, found = baselines_path(settings), load_baselines(settings)
    policies = settings.project_policies
    known = (*TRACKS, *(each.environment for each in policies if each.environment is not None))
    for policy, tracks in found.gates.items():
        for track in tracks:
            if track not in known:
                raise IlBenchError(
                    f"{path}: gates.{policy}.{track}: unknown track; use one of {', '.join(known)}, or"
                    " register the environment"
                )
    if settings.baselines is None:
        there = {track: zoo.shipped(track) for track in TRACKS}
        if (
            zoo.pixels_folder() is None
        ):  # gates without their policies: nobody can tell whether they are stale
            there[PIXELS] = tuple(policy for policy, tracks in found.gates.items() if PIXELS in tracks)
        baselines.check_stale(found, there, path=path)


@dataclass(frozen=True)
class Record:
    """A row on its way to the report. `fingerprint`: the conditions of a success row's episodes."""

    section: str
    row: ReportPart
    fingerprint: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, which pytest-xdist can carry."""
        return {**vars(self), "row": self.row.model_dump(mode="json"), "fingerprint": dict(self.fingerprint)}

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> "Record":
        """Read what `to_dict` wrote. Raises IlBenchError for anything else, or a row that cannot be right."""
        section = values.get("section")
        if section not in schema.SECTIONS:
            raise IlBenchError(f"section = {section!r:.60}: use one of {', '.join(schema.SECTIONS)}")
        try:
            row = schema.SECTIONS[section].model_validate(values.get("row"))
        except ValidationError as error:
            raise IlBenchError(f"{section}: {wrong_field(error, 'the row')}") from None
        return Record(section, row, values.get("fingerprint", {}))


class Run:
    """The records of one pytest run, in any order.

    values: what `Record.to_dict` gave. Of rows for the same thing, as after a rerun, the last one counts.
    problems: a sentence for each row that cannot be right, which costs no other row.
    """

    def __init__(self, values: Iterable[Mapping[str, Any]]) -> None:
        records: dict[tuple[str, tuple[str, ...]], Record] = {}
        self.problems = []
        for each in values:
            try:
                record = Record.from_dict(each)
                records[record.section, _order(record.row)] = record
            except IlBenchError as error:
                self.problems.append(f"NOT IN THE REPORT: a row of {error}")
        self._records = list(records.values())

    @property
    def exit_status(self) -> int:
        """Exit status 1, 6 or 0, see `gate.exit_status`; 1 if a row is missing."""
        if self.problems:
            return 1
        rows = [record.row for record in self._records]
        gated = [
            row.model_dump(include={"target", "baseline"}) for row in rows if isinstance(row, schema.Success)
        ]
        under_stress = [
            target for row in rows if isinstance(row, schema.Stress) for target in row.targets.values()
        ]
        return exit_status([*gated, *({"target": target.model_dump()} for target in under_stress)])

    def report(self) -> schema.Report:
        """Return the whole run, its rows in an order that does not depend on which test finished first."""
        rows: dict[str, list[ReportPart]] = {name: [] for name in schema.SECTIONS}
        for record in sorted(self._records, key=lambda record: _order(record.row)):
            rows[record.section].append(record.row)
        facts = {"created": datetime.now(UTC), "environment": machine.describe()}
        return schema.Report.model_validate(facts | rows)

    def measured(self, known: Baselines) -> list[tuple[schema.Success, MeasuredBaseline]]:
        """Return the new baselines: of rows whose episodes ran on the first test seeds, without a gap.

        A baseline that `known` holds keeps its metric, margin and risks.
        """
        found = []
        for record in sorted(self._records, key=lambda record: _order(record.row)):
            row = record.row
            if not isinstance(row, schema.Success) or row.sha256 is None:
                continue
            if [episode.seed for episode in row.episodes] != list(TEST_SEEDS[: row.n_episodes]):
                continue
            old = known.entry(row.policy, row.track).baseline
            new = MeasuredBaseline.from_outcomes(
                Outcomes.from_records([episode.model_dump() for episode in row.episodes]),
                data=row.data,
                sha256=row.sha256,
                fingerprint=record.fingerprint,
                measured=datetime.now(UTC).date(),
                **(old.model_dump(include={"metric", "margin", "alpha", "beta"}) if old else {}),
            )
            found.append((row, new))
        return found


def summary(
    records: Iterable[Mapping[str, Any]], *, width: int | None, color: bool, encoding: str | None = None
) -> str:
    """The tables of the records so far, for the terminal."""
    return views.terminal(Run(records).report(), width=width, color=color, encoding=encoding)


def finish(
    records: Iterable[Mapping[str, Any]],
    settings: Settings,
    seconds: Mapping[str, Mapping[str, float]] = MappingProxyType({}),
    *,
    width: int | None,
    color: bool,
    encoding: str | None = None,
    verbosity: int = 0,
) -> tuple[str, int]:
    """Write the report, and the baselines if asked to; return the terminal's summary and the status.

    What cannot be written costs neither the summary nor the other files. seconds: what each stage took (see
    `controller.Reporter`). width, color, encoding: of the terminal. verbosity: with 1, all tables come before
    the answer.
    """
    run = Run(records)
    report, status, lines = run.report(), run.exit_status, list(run.problems)
    report.environment.update(settings.numerics.conditions())
    report.environment["seconds"] = {stage: dict(spent) for stage, spent in seconds.items()}
    if settings.history is not None:
        report.environment["history"] = str(settings.history.resolve())
    shown: dict[str, Any] = {"width": width, "color": color, "encoding": encoding}
    has_answer = bool(report.success)
    text = f"{views.terminal(report, **shown)}\n" if verbosity > 0 or not has_answer else ""
    text += answer.terminal(report, **shown)
    if has_answer and verbosity == 0 and (others := answer.left_out(report)):
        lines.append(f"also measured: {others}; -v prints them, `il-bench report show` too")
    try:
        past, problems = _history(report, settings.history)
        paths, more = views.write(report, settings.report, past=past)
        problems += more
        others = "".join(f" (and {path.name})" for path in paths[1:])
        lines.append(f"report: {paths[0]}{others}")
        took = ", ".join(f"{stage} {spent['wall']:.0f} s" for stage, spent in seconds.items())
        lines += [f"it took: {took}"] if took else []
        lines += problems
    except IlBenchError as error:
        status = 1
        lines.append(f"NOT WRITTEN: {error}")
    if settings.update_baselines:
        path = baselines_path(settings)
        try:
            changes = update_baselines(run, path)
            lines += [f"baselines: {path}", *(f"  {line}" for line in changes or ["nothing to update"])]
        except IlBenchError as error:
            status = 1
            lines.append(f"NOT WRITTEN: {error}")
    if status == 6:
        lines.append(
            "exit status 6: a required gate is INCONCLUSIVE: nothing failed, but too little is shown"
        )
    return text + "".join(f"{printable(line, encoding)}\n" for line in lines), status


def finish_shard(records: Iterable[Mapping[str, Any]], settings: Settings) -> tuple[str, int]:
    """Write what `il-bench merge` needs of this shard; return what to say, and the status."""
    number, of = settings.shard or (1, 1)
    parts = [
        shards.ShardPart.model_validate(each["part"]) for each in records if each["section"] == shards.SECTION
    ]
    parts.sort(key=lambda part: (part.name, part.track))
    try:
        shard = shards.Shard(number=number, of=of, environment=machine.describe(), parts=tuple(parts))
        path = shards.save(settings.report, shard)
    except IlBenchError as error:
        return f"NOT WRITTEN: {error}\n", 1
    return f"shard {number}/{of}: {path}; il-bench merge combines all of them into one run\n", 0


def _history(report: schema.Report, path: Path | None) -> tuple[list[history.Line], list[str]]:
    """Add the run to the file of earlier runs; return all of them, or what is wrong with the file."""
    if path is None:
        return [], []
    try:
        history.append(path, history.line_of(report))
        return history.load(path), []
    except IlBenchError as error:
        return [], [f"--il-history: {error}"]


def update_baselines(run: Run, path: Path) -> list[str]:
    """Make this run's rows the measured baselines in the file; return a sentence for each policy.

    A baseline stays if it has more episodes than the run, or if the run's are shown to be worse and nobody
    has accepted that.
    """
    before = baselines.load(path) if path.exists() else Baselines()
    changes, kept = [], {}
    for row, new in run.measured(before):
        old, against = before.entry(row.policy, row.track).baseline, row.baseline
        if old is None:
            said = f"new, {_described(new)}"
        elif old.same_episodes(new):
            said = f"unchanged, {_described(old)}"
            new = old
        elif new.n_episodes < old.n_episodes:
            said = f"kept: the run has only {new.n_episodes} of {old.n_episodes} episodes"
            new = old
        elif against is not None and against.decision is Decision.FAIL and not against.accepted:
            said = f"REFUSED, {against.told}; to record it all the same, {ACCEPT}"
            new = old
        else:
            said = f"{_described(new)}; it was {_described(old)}"
            if against is not None and against.beside is not None:
                said += f": {against.beside}"
        if new is not old:
            kept[row.policy, row.track] = new
        changes.append(f"{row.policy} ({row.track}): {said}")
    if kept:
        baselines.update(path, kept)
    return changes


def _described(baseline: MeasuredBaseline) -> str:
    rate = METRICS[baseline.metric].estimate(baseline.outcomes)
    return f"{baseline.metric} {rate:.3f} ({baseline.n_episodes} episodes, sha256 {baseline.sha256[:12]})"


def _order(row: ReportPart) -> tuple[str, ...]:
    names = row.ORDER or tuple(type(row).model_fields)[:3]
    values = [getattr(row, name) for name in names]
    return tuple(f"{value:09d}" if isinstance(value, int) else str(value) for value in values)
