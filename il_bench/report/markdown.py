"""A run in Markdown, for the summary of a CI step and a comment on a pull request.

The verdict in one sentence, a table of the policies that changed or did not pass, and where the rest is.
"""

import re
from collections.abc import Iterable, Iterator, Sequence

from il_bench.gate import Decision
from il_bench.protocol import CONTEXT
from il_bench.report.page import words
from il_bench.report.page.words import MARKS, Change, change_mark
from il_bench.report.schema import BaselineResult, Report, Success, TargetResult
from il_bench.report.success import label, ranked, target_text
from il_bench.report.tables import shortened

#: By which a comment is found again, to be replaced by a newer one.
MARKER = "<!-- il-bench -->"
#: Rows of a table, and characters of the verdict: a comment on GitHub has room for 65,536 in all.
_MOST_ROWS, _LONGEST = 50, 300
#: Stands where a comment would otherwise name a person, an issue or an address.
_BREAK = "&#8203;"
_QUIET = (Decision.UNCHANGED, Decision.PASS, Decision.NOT_GATED)


def render(report: Report, before: Report | None = None, page: str | None = None) -> str:
    """Return the text. before: the report of the run to compare with. page: the address of report.html."""
    changes = [] if before is None else words.changes(report, before)
    by_name = {(change.policy, change.track): change for change in changes}
    rows = [row for row in ranked(report.success) if row.policy not in CONTEXT]
    told = [(row, by_name.get((row.policy, row.track))) for row in rows]
    changed = [(row, change) for row, change in told if _has_changed(row, change)]
    mark = words.verdict(report, changes or None)
    return _text(mark.shape, _cell(shortened(mark.word, _LONGEST)), _body(changed, told, page))


def without_report(page: str | None = None) -> str:
    """Return the text of a run that left no report. page: the address of the run."""
    where = f"the log of [the run]({page})" if page else "the log of the run"
    return _text("✗", "no report", [f"The policies did not run to the end; {where} says why."])


def _text(shape: str, verdict: str, body: Iterable[str]) -> str:
    return "\n".join([MARKER, f"**il_bench {shape} {verdict}**", "", *body]) + "\n"


def _body(
    changed: Sequence[tuple[Success, Change | None]],
    told: Sequence[tuple[Success, Change | None]],
    page: str | None,
) -> Iterator[str]:
    if changed:
        beside = any(change is not None for _, change in told)
        heads = [
            "policy",
            "success_rate",
            "against target",
            "against baseline",
            *["other run"][:beside],
            "episodes",
        ]
        yield f"| {' | '.join(heads)} |"
        yield f"|{'---|' * len(heads)}"
        for row, change in changed[:_MOST_ROWS]:
            rate = (
                f"{row.success_rate.estimate:.3f} [{row.success_rate.low:.2f}, {row.success_rate.high:.2f}]"
            )
            cells = [shortened(label(row)), rate, _target(row.target), _baseline(row.baseline)]
            cells += [_change(change)] if beside else []
            yield f"| {' | '.join(map(_cell, (*cells, f'{row.n_episodes:,}')))} |"
        yield ""
        if (more := len(changed) - _MOST_ROWS) > 0:
            yield f"{more} more policies changed or did not pass."
    n = len(told) - len(changed)
    others = "policies are as they were" if n != 1 else "policy is as it was"
    parts = [f"{n} {'other ' if changed else ''}{others}."] if n else []
    parts += [f"[The page]({page}) plays every episode."] if page else []
    yield " ".join(parts)


def _has_changed(row: Success, change: Change | None) -> bool:
    """Whether a gate is not passed, or episodes came out differently."""
    target, baseline = row.target, row.baseline
    missed = target is not None and target.required and target.decision not in _QUIET
    other = baseline is not None and (baseline.decision not in _QUIET or bool(baseline.lost or baseline.won))
    return missed or other or (change is not None and bool(change.lost or change.won))


def _target(target: TargetResult | None) -> str:
    return "" if target is None else f"{MARKS[target.decision][1]} {target_text(target)}"


def _baseline(baseline: BaselineResult | None) -> str:
    if baseline is None:
        return ""
    beside = f", lost {len(baseline.lost)}, won {len(baseline.won)}" if baseline.lost or baseline.won else ""
    return f"{MARKS[baseline.decision][1]} {baseline.decision}{beside}"


def _change(change: Change | None) -> str:
    if change is None:
        return "not there"
    mark = change_mark(change)
    return f"{mark.shape} {mark.word}: {mark.told}"


def _cell(text: str) -> str:
    """Names and messages are text: nothing in them ends a cell, or becomes a tag, a link or a mention.

    GitHub looks for people, issues and addresses once entities are characters again, so those are cut in two.
    """
    safe = text.translate({ord(special): f"&#{ord(special)};" for special in "&\\`*_[]<>|@#~"})
    for sign in ("&#64;", "&#35;", "://", "www.", "GH-"):
        safe = re.sub(re.escape(sign), lambda found: f"{found[0]}{_BREAK}", safe, flags=re.IGNORECASE)
    return safe
