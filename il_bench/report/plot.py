"""The report as pictures: metrics beside their targets, errors of tokenizers, latencies."""

import io
from collections.abc import Sequence

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from il_bench.protocol import CONTROL_PERIOD_MS, Mode, TimedCall
from il_bench.report import latency, success
from il_bench.report.schema import Latency, Report, Success, TokenizerRow
from il_bench.report.tables import published, shortened
from il_bench.rollout.metrics import METRICS, Metric

_LONGEST = 40  # characters of a name
#: Decorates what draws names: `$` is a character of theirs, not the beginning of a formula.
with_names_as_text = rc_context({"text.parse_math": False})


@with_names_as_text
def render(report: Report) -> bytes:
    """Return the success rows as a PNG, the best on top; without rows the axes are empty."""
    rows = success.ranked(report.success)[::-1]
    figure = Figure(figsize=(4.5 * len(METRICS), 1.6 + 0.5 * max(len(rows), 2)), layout="constrained")
    axes = figure.subplots(1, len(METRICS), sharey=True)
    for axis, metric in zip(axes, METRICS.values(), strict=True):
        _draw(axis, rows, metric)
    axes[0].set_yticks(
        range(len(rows)),
        [f"{shortened(success.label(row), _LONGEST)}\n{row.n_episodes} episodes" for row in rows],
    )
    labelled = [axis.get_legend_handles_labels() for axis in axes]
    handles = {label: handle for pair in labelled for handle, label in zip(*pair, strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=3, frameon=False)
    return png(figure)


@with_names_as_text
def render_tokenizers(rows: Sequence[TokenizerRow]) -> bytes:
    """Return a PNG of each tokenizer's bits and error, with a panel for each set of demonstrations."""
    data = list(dict.fromkeys(row.data for row in rows))
    figure = Figure(figsize=(1.0 + 5.0 * len(data), 4.6), layout="constrained")
    colors = {name: f"C{number % 10}" for number, name in enumerate(sorted({row.tokenizer for row in rows}))}
    for axis, name in zip(figure.subplots(1, len(data), squeeze=False)[0], data, strict=True):
        shown = sorted((row for row in rows if row.data == name), key=lambda row: row.tokenizer)
        for row in shown:
            style = {"marker": "s" if row.fit_seconds is None else "o", "color": colors[row.tokenizer]}
            label = f"{shortened(row.tokenizer, _LONGEST)} ({row.l1_px:.1f} px)"
            axis.plot(row.bits_per_chunk, row.l1_px, ls="none", markersize=8, label=label, **style)
        axis.set(
            xscale="log",
            xlabel="bits a chunk",
            title="" if name is None else f"{shortened(name, _LONGEST)} demonstrations",
        )
        axis.set_xticks(ticks := [4, 8, 16, 32, 64], [str(tick) for tick in ticks])
        axis.minorticks_off()
        axis.set(ylim=(0.0, 1.15 * max(row.l1_px for row in shown)), ylabel="error of a coordinate (px)")
        axis.grid(color="0.9")
        axis.set_axisbelow(True)
        axis.legend(fontsize=8, title="circles: fitted here, squares: a policy's own", title_fontsize=8)
    return png(figure)


@with_names_as_text
def render_latency(rows: Sequence[Latency]) -> bytes:
    """Return a PNG of what one robot waits for: p50, and a line to the highest percentile there is."""
    shown = [row for row in rows if row.batch == 1 and row.processed and row.p50_ms is not None]
    names = list(dict.fromkeys(latency.label(row) for row in shown))[::-1]
    figure = Figure(figsize=(9.0, 1.6 + 0.5 * max(len(names), 2)), layout="constrained")
    axis = figure.subplots()
    for number, what in enumerate(TimedCall):
        for row in (row for row in shown if row.what == what):
            y, color = names.index(latency.label(row)) + 0.24 - 0.16 * number, f"C{number}"
            times = [ms for ms in (row.p50_ms, row.p90_ms, row.p99_ms) if ms is not None]
            axis.plot([times[0], times[-1]], [y, y], color=color)
            axis.plot(times[:1], [y], "o", color=color, markersize=5)
        axis.plot([], [], "o-", color=f"C{number}", label=what)
    places = {row.policy: names.index(latency.label(row)) for row in shown[::-1] if row.mode == Mode.EAGER}
    known = [each for each in published("latency_ms") if each.policy in places]
    ms, at = [each.values["value"] for each in known], [places[each.policy] - 0.4 for each in known]
    axis.plot(ms, at, "x", color="0.6", label="published, other networks and devices")
    axis.axvline(CONTROL_PERIOD_MS, color="C3", lw=1, ls="--", label="control period, 10 Hz")
    axis.set(xscale="log", xlabel="ms: p50, line to p99 (p90 where calls are few)", ylim=(-0.6, len(names)))
    axis.set_yticks(range(len(names)), [shortened(name, _LONGEST) for name in names])
    axis.grid(axis="x", color="0.9")
    axis.set_axisbelow(True)
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    return png(figure)


def png(figure: Figure, dpi: float = 100) -> bytes:
    """Return the figure as a PNG. Without pyplot, Agg draws it: that needs no display or global state."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()


def _draw(axis: Axes, rows: list[Success], metric: Metric) -> None:
    unit = metric.unit and f" ({metric.unit})"
    axis.set(ylim=(-0.6, max(len(rows), 1) - 0.4), xlabel=f"{metric.name}{unit}")
    if metric.high is not None:
        edge = 0.02 * (metric.high - metric.low)
        axis.set(xlim=(metric.low - edge, metric.high + edge))
    axis.grid(axis="x", color="0.9")
    axis.set_axisbelow(True)
    for y, row in enumerate(rows):
        if (value := row.measured(metric.name)) is not None:
            bars = [[value.estimate - value.low], [value.high - value.estimate]]
            label = "measured, 95 % interval" if y == 0 else None
            axis.errorbar(value.estimate, y, xerr=bars, fmt="o", color="C0", capsize=3, label=label)
        if row.target is not None and row.target.metric == metric.name:
            axis.plot(row.target.value, y, marker="|", color="C3", markersize=18, ls="none", label="target")
        known = [
            entry.values[metric.name]
            for entry in published("results")
            if (entry.policy, entry.track) == (row.policy, row.track) and metric.name in entry.values
        ]
        if known:
            axis.plot(known, [y] * len(known), "x", color="0.4", label="published, same track")
