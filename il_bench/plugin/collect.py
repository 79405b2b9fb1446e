"""The files of a run: baselines are read before it, and at its end the rows of all tests become a report.

Only the controller calls `check_baselines` and `finish`; workers of pytest-xdist send it records.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from il_bench import machine, zoo
from il_bench.errors import IlBenchError
from il_bench.gate import baselines, exit_status
from il_bench.gate.baselines import Baselines, MeasuredBaseline
from il_bench.plugin.settings import Settings
from il_bench.protocol import TEST_SEEDS, TRACKS
from il_bench.report import schema, views
from il_bench.rollout.metrics import METRICS
from il_bench.rollout.outcomes import Outcomes


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
        baselines.check_stale(found, {track: zoo.shipped(track) for track in TRACKS}, path=path)


@dataclass(frozen=True)
class Record:
    """A row on its way to the report. `fingerprint`: the conditions of a success row's episodes."""

    section: str
    row: schema.ReportPart
    fingerprint: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, which pytest-xdist can carry."""
        return {**vars(self), "row": self.row.model_dump(mode="json"), "fingerprint": dict(self.fingerprint)}

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> "Record":
        """Read what `to_dict` wrote."""
        row = schema.SECTIONS[values["section"]].model_validate(values["row"])
        return Record(values["section"], row, values["fingerprint"])


class Run:
    """The records of one pytest run, in any order.

    values: what `Record.to_dict` gave. Of rows for the same thing, as after a rerun, the last one counts.
    """

    def __init__(self, values: Iterable[Mapping[str, Any]]) -> None:
        records = map(Record.from_dict, values)
        self._records = list({(record.section, _order(record.row)): record for record in records}.values())

    @property
    def exit_status(self) -> int:
        """Exit status 1, 6 or 0, see `gate.exit_status`."""
        rows = [record.row for record in self._records if record.section == "success"]
        return exit_status(row.model_dump(include={"target", "baseline"}) for row in rows)

    def report(self) -> schema.Report:
        """Return the whole run, its rows in an order that does not depend on which test finished first."""
        rows: dict[str, list[schema.ReportPart]] = {name: [] for name in schema.SECTIONS}
        for record in sorted(self._records, key=lambda record: _order(record.row)):
            rows[record.section].append(record.row)
        facts = {"created": datetime.now(UTC), "environment": machine.describe()}
        return schema.Report.model_validate(facts | rows)

    def measured(self, known: Baselines) -> dict[tuple[str, str], MeasuredBaseline]:
        """Return the new baselines: of rows whose episodes ran on the first test seeds, without a gap.

        A baseline that `known` holds keeps its metric, margin and risks.
        """
        found: dict[tuple[str, str], MeasuredBaseline] = {}
        for record in self._records:
            row = record.row
            if not isinstance(row, schema.Success) or row.sha256 is None:
                continue
            if [episode.seed for episode in row.episodes] != list(TEST_SEEDS[: row.n_episodes]):
                continue
            old = known.entry(row.policy, row.track).baseline
            found[row.policy, row.track] = MeasuredBaseline.from_outcomes(
                Outcomes.from_records([episode.model_dump() for episode in row.episodes]),
                data=row.data,
                sha256=row.sha256,
                fingerprint=record.fingerprint,
                **(old.model_dump(include={"metric", "margin", "alpha", "beta"}) if old else {}),
            )
        return found


def finish(
    records: Iterable[Mapping[str, Any]], settings: Settings, *, width: int | None, color: bool
) -> tuple[str, int]:
    """Write the report, and the baselines if asked to; return the terminal's summary and the status."""
    run = Run(records)
    report = run.report()
    text = views.terminal(report, width=width, color=color)
    try:
        paths = views.write(report, settings.report)
        text += f"report: {paths[0]} (and {', '.join(path.name for path in paths[1:])})\n"
        if settings.update_baselines:
            path = baselines_path(settings)
            text += f"baselines: {path}\n"
            text += "".join(f"  {line}\n" for line in update_baselines(run, path) or ["nothing to update"])
    except (OSError, IlBenchError) as error:
        return f"{text}NOT WRITTEN: {error}\n", 1
    if run.exit_status == 6:
        text += "exit status 6: a required gate is INCONCLUSIVE: nothing failed, but too little is shown\n"
    return text, run.exit_status


def update_baselines(run: Run, path: Path) -> list[str]:
    """Make this run's rows the measured baselines in the file; return a sentence for each policy.

    A baseline with more episodes than the run stays.
    """
    before = baselines.load(path) if path.exists() else Baselines()
    changes, kept = [], {}
    for (policy, track), new in sorted(run.measured(before).items()):
        old = before.entry(policy, track).baseline
        if old is not None and old != new and len(new.success) < len(old.success):
            said = f"kept: the run has only {len(new.success)} of {len(old.success)} episodes"
        else:
            kept[policy, track], said = new, _described(new)
            if old is None or old == new:
                said = f"{'new' if old is None else 'unchanged'}, {said}"
            else:
                said += f"; it was {_described(old)}"
        changes.append(f"{policy} ({track}): {said}")
    if kept:
        baselines.update(path, kept)
    return changes


def _described(baseline: MeasuredBaseline) -> str:
    value = METRICS[baseline.metric].estimate(baseline.outcomes)
    n = len(baseline.success)
    return f"{baseline.metric} {value:.3f} ({n} episodes, sha256 {baseline.sha256[:12]})"


def _order(row: schema.ReportPart) -> tuple[str, ...]:
    names = row.ORDER or tuple(type(row).model_fields)[:3]
    values = [getattr(row, name) for name in names]
    return tuple(f"{value:09d}" if isinstance(value, int) else str(value) for value in values)
