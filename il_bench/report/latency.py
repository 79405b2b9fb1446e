"""The latency section of the report: three tables, and notes that quote published latencies."""

from collections.abc import Callable, Iterable, Sequence

from il_bench.protocol import CONTROL_PERIOD_MS, FRESH_PROCESS, Mode, TimedCall
from il_bench.report.rows import Latency
from il_bench.report.tables import Section, Table, published

COLUMNS = (
    "policy",
    "batch",
    "processing",
    "new chunk: p50, p90, p99",
    "jitter",
    "of 10 Hz",
    "queued action",
    "predict_action_chunk",
    "control step",
    "of 10 Hz",
    "peak memory",
)
FLOOR_COLUMNS = (
    "policy",
    "batch",
    "MFLOP of a prediction",
    "floor",
    "new chunk: times the floor",
    "predict_action_chunk, without processing",
)
NEW_PROCESS_COLUMNS = ("policy", "load", "first call", "memory of the process", "memory of the device")
#: What disturbs a measurement, and how a row shows it.
_DISTURBANCES: dict[str, Callable[[Latency], bool]] = {
    "got less than 95 % of a core: other processes ran, so the times are too long": lambda row: (
        (row.device, row.clock) == ("cpu", "wall") and (row.cpu_share or 1.0) < 0.95
    ),
    "were slowed down by the GPU itself": lambda row: (
        (row.state or {}).get("slowed_by") not in (None, "nothing")
    ),
    "were still changing after warm-up": lambda row: row.stable is False,
}


def section(rows: Sequence[Latency]) -> Section:
    """Return the tables that have rows, and the notes under them."""
    found = (
        Table.of(COLUMNS, call_rows(rows)),
        Table.of(FLOOR_COLUMNS, floor_rows(rows)),
        Table.of(NEW_PROCESS_COLUMNS, new_process_rows(rows)),
    )
    return Section("latency", [table for table in found if table.rows], notes(rows))


def call_rows(rows: Sequence[Latency]) -> list[tuple[str, ...]]:
    """Return the rows of the first table: one for each policy, way to run it, batch and processing."""
    found: dict[tuple[str, int, str], dict[str, Latency]] = {}
    for row in rows:
        if row.what in TimedCall:
            key = (label(row), row.batch, "with" if row.processed else "without")
            found.setdefault(key, {})[row.what] = row
    ordered = sorted(found, key=lambda key: key[1:])  # policies stay in the order of the rows
    return [(*map(str, key), *_cells(found[key])) for key in ordered]


def floor_rows(rows: Iterable[Latency]) -> list[tuple[str, ...]]:
    """Return the rows of the second table: one for each policy, way to run it and batch that has a floor."""
    found: dict[tuple[str, int], dict[tuple[str, bool], Latency]] = {}
    for row in rows:
        if row.ratio_to_floor is not None:
            found.setdefault((label(row), row.batch), {})[row.what, row.processed] = row
    shown = []
    for (name, batch), calls in sorted(found.items(), key=lambda item: item[0][1]):
        chunk, bare = calls.get((TimedCall.NEW_CHUNK, True)), calls.get((TimedCall.PREDICT, False))
        if chunk is not None and chunk.flops is not None:
            ratios = (chunk.ratio_to_floor, bare.ratio_to_floor if bare else None)
            shown.append((name, str(batch), *map(_ms, (chunk.flops / 1e6, chunk.floor_ms, *ratios))))
    return shown


def new_process_rows(rows: Iterable[Latency]) -> list[tuple[str, ...]]:
    """Return the rows of the third table: one for each policy that was timed in a new process."""
    return [
        (label(row), _ms(row.load_ms), _ms(row.first_call_ms), _mb(row.resident_mb), _mb(row.peak_memory_mb))
        for row in rows
        if row.what == FRESH_PROCESS
    ]


def notes(rows: Sequence[Latency]) -> list[str]:
    """Return the notes: units, what is missing and why, what disturbed the times, published figures."""
    if not rows:
        return []
    devices = ", ".join(dict.fromkeys(row.device for row in rows))
    found = [
        f"device {devices}, one thread; times in ms; jitter: interquartile range over median; a dash: the "
        "policy has no such call, or too few calls for the percentile (median 6, p90 29, p99 299)",
        "control step: a prediction and all its actions, divided by their number; of 10 Hz: p50 over "
        f"{CONTROL_PERIOD_MS:.0f} ms",
    ]
    others = ", ".join(dict.fromkeys(row.clock for row in rows if row.clock != "wall"))
    if others:
        found.append(f"timed by {others}, not by the wall clock: waiting for a GPU or a core does not count")
    if any(row.ratio_to_floor is not None for row in rows):
        found.append(
            "floor: the ms that a prediction's matrix products, convolutions and attention would take at the "
            "device's rate of multiplying matrices of this type, timed in turns with the call; times the "
            "floor: p50 over the floor, on a CPU without the time that other processes took"
        )
    for text, is_disturbed in _DISTURBANCES.items():
        if disturbed := [label(row) for row in rows if is_disturbed(row)]:
            names = ", ".join(dict.fromkeys(disturbed))
            found.append(f"{len(disturbed)} of {len(rows)} rows {text}: {names}")
    policies = {row.policy for row in rows}
    known = [
        f"{each.label} {_ms(each.values['value'])} on {each.device} ({each.source}, {each.trust})"
        for each in published("latency_ms")
        if each.policy in policies
    ]
    if known:
        found.append(f"published, other networks (camera images), other devices: {'; '.join(known)}")
    return found


def label(row: Latency) -> str:
    """Return a row's name: the policy, with its sampler if it has one and its mode unless it is eager."""
    details = [text for text in (row.sampler, None if row.mode == Mode.EAGER else row.mode) if text]
    return f"{row.policy} ({', '.join(details)})" if details else row.policy


def _cells(calls: dict[str, Latency]) -> tuple[str, ...]:
    """Return the cells after the first three, from the timed calls of one row of the table."""
    chunk, step = calls.get(TimedCall.NEW_CHUNK), calls.get(TimedCall.CONTROL_STEP)
    held = [row.peak_memory_mb for row in calls.values() if row.peak_memory_mb is not None]
    return (
        ", ".join(map(_ms, (chunk.p50_ms, chunk.p90_ms, chunk.p99_ms))) if chunk else "-",
        _percent(chunk.jitter if chunk else None),
        _percent(chunk.share_of_period if chunk else None),
        *(_ms(row.p50_ms if row else None) for row in map(calls.get, list(TimedCall)[1:])),
        _percent(step.share_of_period if step else None),
        _mb(max(held, default=None)),
    )


def _ms(value: float | None) -> str:
    """Return three digits, such as 0.123 and 12.3, or all before the point, as in 1,234."""
    return "-" if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _mb(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f} MB" if value >= 10 else f"{value:.2g} MB"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2g} %" if value < 0.1 else f"{100 * value:,.0f} %"
