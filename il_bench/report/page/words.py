"""The answer of a run in words: one sentence on top, and one row a policy."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from il_bench.gate import Decision
from il_bench.gate.paired import PairedDifference, difference
from il_bench.protocol import CONTEXT, CONTROL_PERIOD_MS, Mode, TimedCall
from il_bench.report import answer
from il_bench.report.rows import Interval, Latency
from il_bench.report.schema import Report, Success
from il_bench.report.success import count, label, ranked

#: How a decision is shown: its tone, and a shape, since not everybody tells colours apart.
MARKS = {
    Decision.PASS: ("good", "✓"),
    Decision.UNCHANGED: ("good", "="),
    Decision.FAIL: ("bad", "✗"),
    Decision.INCONCLUSIVE: ("open", "?"),
    Decision.BELOW_TARGET: ("open", "▽"),
    Decision.NOT_GATED: ("none", "–"),
}
_TONES = {"green": ("good", "✓"), "red": ("bad", "✗"), "yellow": ("open", "?"), "": ("none", "–")}
#: What two runs have to show for a difference to be called one, over all policies together.
RISK = 0.05


@dataclass(frozen=True)
class Mark:
    """A decision on the page: what it is about, the word, its tone and shape, and the rest in words."""

    about: str
    word: str
    tone: str
    shape: str
    told: str = ""


@dataclass(frozen=True)
class PolicyLine:
    """The row of a policy in the first table; shares are of 1."""

    id: str
    name: str
    rate: Interval
    target: float | None
    marks: tuple[Mark, ...]
    change: Mark | None
    latency: str
    parameters: str
    episodes: str
    is_context: bool


@dataclass(frozen=True)
class Change:
    """A policy in two runs, on the seeds of both. note: why there is no comparison, or no change."""

    policy: str
    track: str
    found: PairedDifference | None
    was: float
    now: float
    lost: tuple[int, ...]
    won: tuple[int, ...]
    is_shown: bool
    note: str = ""


def verdict(report: Report, changes: Sequence[Change] | None = None, title: str = "") -> Mark:
    """Return the sentence on top, the terminal's; title: of a page without a run.

    changes: also say what two runs show.
    """
    if not report.success:
        n = sum(map(len, (report.throughput, report.latency, report.tokenizers)))
        return Mark("verdict", title or f"{n} measurements, no episodes", "none", "–")
    said, tone = answer.verdict(report.success)
    if changes:
        said = f"{_changed(changes)}; {said}"
        is_worse = any(each.is_shown and len(each.lost) > len(each.won) for each in changes)
        tone = "red" if is_worse else tone
    return Mark("verdict", said, *_TONES[tone])


def lines(report: Report, changes: Sequence[Change] = ()) -> list[PolicyLine]:
    """Return the rows, the best first, ceiling and floor last."""
    rows = sorted(ranked(report.success), key=lambda row: row.policy in CONTEXT)
    by_name = {(change.policy, change.track): change for change in changes}
    return [_line(row, report.latency, by_name.get((row.policy, row.track))) for row in rows]


def policy_id(row: Success, rows: Iterable[Success]) -> str:
    """Return a row's name in addresses: the policy, with its track if another row has that name too."""
    is_one = sum(other.policy == row.policy for other in rows) == 1
    return row.policy if is_one else f"{row.policy}.{row.track}"


def changes(report: Report, before: Report) -> list[Change]:
    """Compare the policies that two runs share, by the seeds that both ran."""
    old = {(row.policy, row.track): row for row in before.success}
    pairs = [(row, old[row.policy, row.track]) for row in report.success if (row.policy, row.track) in old]
    return [_change(new, was, RISK / len(pairs)) for new, was in pairs]


def _change(new: Success, old: Success, risk: float) -> Change:
    after = {episode.seed: episode.success for episode in new.episodes}
    before = {episode.seed: episode.success for episode in old.episodes}
    seeds = sorted(after.keys() & before.keys())
    if not seeds:
        return Change(new.policy, new.track, None, 0.0, 0.0, (), (), False, "the two runs share no seed")
    lost = tuple(seed for seed in seeds if before[seed] and not after[seed])
    won = tuple(seed for seed in seeds if after[seed] and not before[seed])
    found = difference(len(lost), len(won), len(seeds))
    was, now = (sum(values[seed] for seed in seeds) / len(seeds) for values in (before, after))
    note = "no episode changed its outcome" if not lost and not won else ""
    return Change(new.policy, new.track, found, was, now, lost, won, found.is_shown(risk), note)


def change_mark(change: Change) -> Mark:
    """Return a change as a mark. A difference that is not shown is not called better or worse."""
    if change.found is None:
        return Mark("other run", "not compared", "none", "–", change.note)
    told = f"was {change.was:.3f}, is {change.now:.3f} on {change.found.n} shared seeds; "
    told += change.note or f"{len(change.lost)} lost, {len(change.won)} won, p = {change.found.p:.2g}"
    if not change.is_shown:
        word = "same outcomes" if change.note else "no difference shown"
        return Mark("other run", word, "none", "=" if change.note else "?", told)
    is_worse = len(change.lost) > len(change.won)
    return Mark("other run", *(("worse", "bad", "▼") if is_worse else ("better", "good", "▲")), told)


def _changed(found: Sequence[Change]) -> str:
    shown = [
        (each.policy, "worse" if len(each.lost) > len(each.won) else "better")
        for each in found
        if each.is_shown
    ]
    if not shown:
        return "no difference to the other run is shown"
    return ", ".join(f"{name} is {word} than in the other run" for name, word in shown)


def _line(row: Success, latencies: Iterable[Latency], change: Change | None) -> PolicyLine:
    rate = row.measured("success_rate") or row.success_rate
    target = row.target
    has_target = target is not None and target.metric == "success_rate"
    marks = [
        _mark("target", row.decision, "" if target is None else target.told or f"target {target.value:g}")
    ]
    if row.baseline is not None:
        marks.append(_mark("baseline", row.baseline.decision, row.baseline.told))
    return PolicyLine(
        id=row.policy,
        name=label(row),
        rate=rate,
        target=target.value if target is not None and has_target else None,
        marks=tuple(marks),
        change=None if change is None else change_mark(change),
        latency=_latency(row, latencies),
        parameters=count(row.parameters) if row.parameters else "–",
        episodes=f"{row.n_episodes:,}",
        is_context=row.policy in CONTEXT,
    )


def _mark(about: str, decision: Decision, told: str) -> Mark:
    tone, shape = MARKS[decision]
    return Mark(about, str(decision), tone, shape, told)


def _latency(row: Success, latencies: Iterable[Latency]) -> str:
    """What a robot waits for a new chunk: median, and the share of the control period."""
    for each in latencies:
        is_it = (each.policy, each.batch, each.processed) == (row.policy, 1, True)
        if is_it and each.mode == Mode.EAGER and each.what == TimedCall.NEW_CHUNK and each.p50_ms is not None:
            return f"{each.p50_ms:.3g} ms, {100 * each.p50_ms / CONTROL_PERIOD_MS:.0f} %"
    return "–"
