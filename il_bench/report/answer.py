"""The answer of a run, as a terminal ends with it: a sentence, a line a policy, and what needs attention."""

import io
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from il_bench.errors import printable
from il_bench.gate import Decision
from il_bench.protocol import CONTEXT
from il_bench.report import success
from il_bench.report.schema import Report, Success
from il_bench.report.tables import shortened
from il_bench.rollout.metrics import METRICS

_UNLIMITED = 500  # of a log: no line wraps
_WIDE, _NARROW = 100, 80  # without room for numbers of episodes, and for more than words
_LONGEST = 32  # characters of a name
_COLUMNS = ("policy", "success_rate", "against target", "against baseline", "episodes", "seconds")
_NUMBERS = _COLUMNS[-2:]


def verdict(rows: Sequence[Success]) -> tuple[str, str]:
    """Return the verdict on all rows in one sentence, and its tone: "green", "yellow", "red", "" for none."""
    asked = [row for row in rows if row.policy not in CONTEXT]
    required = [row for row in asked if row.target is not None and row.target.required]
    compared = [row for row in asked if row.baseline is not None]
    missed = [row for row in required if row.decision is Decision.FAIL]
    worse = [row for row in compared if row.baseline and row.baseline.decision is Decision.FAIL]
    open_ = [row for row in required if row.decision is Decision.INCONCLUSIVE]
    parts = []
    if required:
        passed = len(required) - len(missed) - len(open_)
        parts.append(f"{passed} of {len(required)} required gates PASS")
    else:
        parts.append("no target is required")
    if missed:
        parts.append(f"{_names(missed)} FAIL")
    if open_:
        parts.append(f"{_names(open_)} INCONCLUSIVE")
    undecided = [row for row in compared if row.baseline and row.baseline.decision is Decision.INCONCLUSIVE]
    if worse:
        parts.append(f"{_names(worse)} got worse")
    elif undecided:
        parts.append(f"whether {_names(undecided)} got worse is undecided")
    elif compared:
        parts.append("nothing got worse")
    n, seconds = sum(row.n_episodes for row in rows), sum(row.seconds for row in rows)
    parts.append(f"{n:,} episodes in {seconds:.0f} s")
    tone = "red" if missed or worse else "yellow" if open_ else "green" if required or compared else ""
    return "; ".join(parts), tone


def terminal(
    report: Report, *, width: int | None = None, color: bool = False, encoding: str | None = None
) -> str:
    """Return the answer as text, "" without policies; width, color, encoding: as for `views.terminal`."""
    if not report.success:
        return ""
    written = io.StringIO()
    console = Console(
        file=written,
        width=width or _UNLIMITED,
        force_terminal=color,
        color_system="standard" if color else None,
        highlight=False,
    )
    said, tone = verdict(report.success)
    console.print(Text(printable(said, encoding), style=f"bold {tone}".strip()))
    console.print(_lines(report, encoding, console.width))
    rows = success.ranked(report.success)
    for sentence in success.attention(rows) + success.sources_of_targets(rows):
        console.print(Text(printable(sentence, encoding)))
    return "\n".join(text.rstrip() for text in written.getvalue().splitlines()) + "\n"


def left_out(report: Report) -> str:
    """Say what the answer leaves out, "" if nothing."""
    found = {
        "tokenizers": len(report.tokenizers),
        "throughputs": len(report.throughput),
        "latencies": len(report.latency),
        "comparisons": len(report.comparisons),
    }
    return ", ".join(f"{n} {name}" for name, n in found.items() if n)


def _lines(report: Report, encoding: str | None, width: int) -> Table:
    """Return a line for each policy, the best first, ceiling and floor last."""
    drawn = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    is_narrow, has_room = width < _NARROW, width >= _WIDE
    names = ("policy", "success", "target", "baseline") if is_narrow else _COLUMNS
    for name in names if has_room or is_narrow else names[:-2]:
        drawn.add_column(name, overflow="fold", justify="right" if name in _NUMBERS else "left")
    for row in sorted(success.ranked(report.success), key=lambda row: row.policy in CONTEXT):
        is_context = row.policy in CONTEXT
        target, baseline = success.target_text(row.target), "none"
        tones = [success.TONES[row.decision], "dim"]
        if row.baseline is not None:
            baseline, tones[1] = row.baseline.decision, success.TONES[row.baseline.decision]
        rate = METRICS["success_rate"].text(*row.success_rate.model_dump().values())
        if is_narrow:
            target, rate = row.decision, f"{row.success_rate.estimate:.3f}"
        gates = ["", ""] if is_context else map(Text, (target, baseline), tones)
        name = printable(shortened(success.label(row), _LONGEST // (1 + is_narrow)), encoding)
        cells = [Text(name), rate, *gates, f"{row.n_episodes:,}", f"{row.seconds:.0f}"]
        drawn.add_row(*cells[: len(drawn.columns)], style="dim" if is_context else None)
    return drawn


def _names(rows: Iterable[Success]) -> str:
    return ", ".join(shortened(success.label(row)) for row in rows)
