"""The lines of the success table as text, for whatever shows them: measured policies first, then context."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from il_bench.gate import Decision
from il_bench.protocol import CONTEXT, TRACKS
from il_bench.report.schema import PRODUCTS, Baseline, Interval, Report, Success, Target

COLUMNS = (
    "policy",
    "parameters",
    "success_rate",
    "mean_max_reward",
    "against target",
    "against baseline",
    "episodes",
    "seconds",
)
#: Sections whose tables are their rows as they are.
PLAIN_SECTIONS = ("tokenizers", "throughput", "comparisons")
_NOT_IN_TABLES = {"vocabulary", "floor", "blocks", "yardstick", "machine", "versions", "sha256"}
#: What a decision looks like, in the words of rich and of the page's style sheet.
TONES = {
    Decision.PASS: "green",
    Decision.UNCHANGED: "green",
    Decision.FAIL: "red",
    Decision.INCONCLUSIVE: "yellow",
    Decision.BELOW_TARGET: "yellow",
    Decision.NOT_GATED: "dim",
}


@dataclass(frozen=True)
class Published:
    """A published result; None where the source gives no such metric."""

    policy: str
    variant: str | None
    track: str
    success_rate: float | None
    mean_max_reward: float | None
    n: int | None
    source: str
    trust: str

    @property
    def label(self) -> str:
        """The policy and its variant."""
        return f"{self.policy} ({self.variant})" if self.variant else self.policy


@dataclass(frozen=True)
class Line:
    """One line of the table: a text for each of COLUMNS, and a tone for the two decisions (or None)."""

    cells: tuple[str, ...]
    tones: tuple[str | None, str | None] = (None, None)


@cache
def published() -> tuple[Published, ...]:
    """Every published result the package knows."""
    data = json.loads(Path(__file__).with_name("published.json").read_text(encoding="utf-8"))
    return tuple(Published(**row) for row in data["results"])


def ranked(rows: Iterable[Success]) -> list[Success]:
    """Rows with the best success rate first."""
    return sorted(
        rows, key=lambda row: (-row.success_rate.estimate, -row.mean_max_reward.estimate, row.policy)
    )


def label(row: Success) -> str:
    """What a row is called: the policy, and the environment if it is not PushT."""
    return row.policy if row.track in TRACKS else f"{row.policy} ({row.track})"


def measured(report: Report) -> list[Line]:
    """Lines of the policies that were asked for, best first."""
    return [_measured(row) for row in ranked(report.success) if row.policy not in CONTEXT]


def context(report: Report) -> tuple[list[Line], list[str]]:
    """Lines to read the others by: ceiling and floor, published results; and the footnotes of the table.

    Only results of the same policies, on the same track and in the same metrics are among them.
    """
    lines = [_measured(row) for row in ranked(report.success) if row.policy in CONTEXT]
    here = {(row.policy, row.track) for row in report.success}
    notes: list[str] = []
    for known in published():
        if (known.policy, known.track) not in here:
            continue
        note = f"{known.source} ({known.trust})"
        notes += [note] if note not in notes else []
        mark = f"published [{notes.index(note) + 1}]"
        rates = (_share(known.success_rate), _share(known.mean_max_reward))
        lines.append(Line((known.label, "", *rates, mark, "", str(known.n or ""), "")))
    numbered = [f"[{number}] {note}" for number, note in enumerate(notes, 1)]
    outside = [_outside(row) for row in ranked(report.success) if row.share_outside > 0]
    return lines, _intervals(report.success) + outside + numbered


def plain(report: Report, section: str) -> list[dict[str, str]]:
    """The rows of another section as text by column, without columns that are empty in all of them.

    A tokenizer's vocabulary is left to pictures, and what a comparison was made of to report.json.
    """
    rows = [row.model_dump(exclude=_NOT_IN_TABLES) for row in getattr(report, section)]
    filled = [name for name in rows[0] if any(row[name] is not None for row in rows)] if rows else []
    return [{name: _value(row[name]) for name in filled} for row in rows]


def notes(report: Report, section: str) -> list[str]:
    """What stands under a section's table: of throughput, what each floor is."""
    if section != "throughput":
        return []
    floors: dict[str, list[str]] = {}
    for row in report.throughput:
        if row.ratio_to_floor is not None:
            what = floors.setdefault(row.floor or PRODUCTS, [])
            what += [row.what] if row.what not in what else []
    said = {PRODUCTS: f"{PRODUCTS} (a table look-up does without them, so its ratio_to_floor can be above 1)"}
    return [f"floor of {', '.join(what)}: {said.get(name, name)}" for name, what in floors.items()]


def target_text(target: Target | None) -> str:
    """The decision against a target and what it rests on, such as 'PASS (> 0.80 shown)'."""
    if target is None:
        return str(Decision.NOT_GATED)
    if target.decision is Decision.PASS:
        found = f"> {target.value - target.margin:.2f} shown"
    elif target.decision in (Decision.FAIL, Decision.BELOW_TARGET):
        found = f"< {target.value:.2f} shown"
    else:
        found = f"target {target.value:.2f}"
    return f"{target.decision} ({found}{'' if target.metric == 'success_rate' else f', {target.metric}'})"


def baseline_text(baseline: Baseline | None) -> str:
    """The decision against the measured baseline, 'none' without one."""
    return "none" if baseline is None else str(baseline.decision)


def _measured(row: Success) -> Line:
    return Line(
        (
            label(row),
            _count(row.parameters),
            _interval(row.success_rate),
            _interval(row.mean_max_reward),
            target_text(row.target),
            baseline_text(row.baseline),
            str(row.n_episodes),
            f"{row.seconds:.0f}",
        ),
        (
            TONES[row.decision],
            None if row.baseline is None else TONES[row.baseline.decision],
        ),
    )


def _outside(row: Success) -> str:
    space = "[0, 512] px" if row.track in TRACKS else "the action space"
    return f"{label(row)}: {row.share_outside:.2%} of its actions lie outside {space} (they are not clipped)"


def _intervals(rows: Iterable[Success]) -> list[str]:
    """Say what the intervals in brackets are, of each kind that there is."""
    explained = {
        "confidence sequence": "confidence sequences, as the episodes ended when the gates were decided",
        "Clopper-Pearson": "Clopper-Pearson's, of rewards a bootstrap's, of a fixed number of episodes",
    }
    policies = {kind: [label(row) for row in rows if row.interval == kind] for kind in explained}
    return [f"95 % {explained[kind]}: {', '.join(names)}" for kind, names in policies.items() if names]


def _interval(value: Interval) -> str:
    return f"{value.estimate:.3f} [{value.low:.2f}, {value.high:.2f}]"


def _value(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, tuple):
        return ", ".join(map(_value, value))
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _count(parameters: int) -> str:
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if parameters >= size:
            return f"{parameters / size:.1f} {unit}"
    return str(parameters)
