"""Success under stress: a row a level, a column a policy, and the areas under the curves."""

from collections.abc import Sequence

from il_bench.report.schema import Stress
from il_bench.report.tables import Cell, Column, Section, Table

_NOTES = (
    "in brackets: the difference to the undisturbed episodes of the same seeds; * its 95 % interval, taken "
    "by itself, leaves 0 out",
    "area: the mean of success over an arm's levels, the undisturbed first, each step to the next level "
    "counted alike; with its 95 % interval",
)


_GATES = "PASS (0.9), FAIL (0.9), ..: against the target of 0.9 that baselines.json declares for this level"


def section(rows: Sequence[Stress]) -> Section:
    """Return two tables, of the levels and of the areas; none without rows."""
    if not rows:
        return Section("stress", [], [])
    policies = list(dict.fromkeys(_name(row) for row in rows))
    by_arm: dict[str, dict[str, Stress]] = {}
    for row in rows:
        by_arm.setdefault(row.arm, {})[_name(row)] = row
    levels = [("undisturbed", *(_undisturbed(rows, name) for name in policies))]
    for arm, found in by_arm.items():
        for level in dict.fromkeys(level for row in found.values() for level in row.levels):
            levels.append((f"{arm} {level:g}", *(_at(found.get(name), level) for name in policies)))
    areas = [(arm, *(_area(found.get(name)) for name in policies)) for arm, found in by_arm.items()]
    columns = [Column(name, is_number=True) for name in policies]
    about = [
        f"{row.arm}: {row.about} ({row.unit})" for row in (next(iter(f.values())) for f in by_arm.values())
    ]
    tables = [
        Table((Column("success_rate", is_whole=True), *columns), levels),
        Table((Column("area", is_whole=True), *columns), areas),
    ]
    gates = [_GATES] if any(row.targets for row in rows) else []
    return Section("stress", tables, [*about, *gates, *_NOTES])


def _name(row: Stress) -> str:
    return row.policy if row.track == "keypoints" else f"{row.policy} ({row.track})"


def _undisturbed(rows: Sequence[Stress], name: str) -> str:
    return next(f"{row.success_rate[0].estimate:.3f}" for row in rows if _name(row) == name)


def _at(row: Stress | None, level: float) -> str:
    if row is None or level not in row.levels:
        return ""
    place = row.levels.index(level)
    rate, difference = row.success_rate[place + 1].estimate, row.difference[place]
    is_shown = difference.low > 0 or difference.high < 0
    tone = ("green" if difference.low > 0 else "red") if is_shown else ""
    gate = row.targets.get(f"{level:g}")
    against = "" if gate is None else f" {gate.decision} ({gate.value:g})"
    return Cell(f"{rate:.3f} ({difference.estimate:+.3f}){'*' if is_shown else ''}{against}", tone)


def _area(row: Stress | None) -> str:
    return "" if row is None else f"{row.area.estimate:.3f} [{row.area.low:.2f}, {row.area.high:.2f}]"
