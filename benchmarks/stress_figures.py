"""Draw the stress curves, and print their tables, from the outcomes that are kept: no episode is run.

Run by `make stress-figures`.
"""

import argparse
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from il_bench.protocol import TimedCall
from il_bench.report import schema, stress
from il_bench.report.schema import Stress
from il_bench.report.tables import Table

HERE = Path(__file__).parent
COLUMNS = 4


def main() -> None:
    """Draw the picture and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=HERE / "results" / "stress.json")
    parser.add_argument("--latency", type=Path, help="The report.json of a run that timed the policies.")
    parser.add_argument("--output", type=Path, default=Path("stress.png"))
    given = parser.parse_args()
    rows = schema.load(given.results).stress
    print(stress.section(rows).markdown())
    if given.latency is not None:
        print(frequencies(rows, new_chunk_ms(schema.load(given.latency))))
    draw(rows, given.output)
    print(f"Wrote {given.output}.")


def draw(rows: tuple[Stress, ...], output: Path) -> None:
    """One panel an arm, one line a policy."""
    arms = list(dict.fromkeys(row.arm for row in rows))
    policies = list(dict.fromkeys(row.policy for row in rows))
    n_rows = -(-len(arms) // COLUMNS)
    figure = Figure(figsize=(2.6 * COLUMNS, 2.4 * n_rows + 0.4), layout="constrained")
    panels = list(figure.subplots(n_rows, COLUMNS, squeeze=False, sharey=True).flat)
    for panel, arm in zip(panels, arms, strict=False):
        for row in rows:
            if row.arm == arm:
                curve(panel, row, f"C{policies.index(row.policy)}")
    for panel in panels[len(arms) :]:
        panel.set_axis_off()
    lines = {line.get_label(): line for panel in figure.axes for line in panel.get_lines()}
    names = [name for name in policies if name in lines]
    figure.legend([lines[name] for name in names], names, loc="outside lower center", ncols=6, frameon=False)
    figure.savefig(output, dpi=110)


def curve(panel: Axes, row: Stress, color: str) -> None:
    """A policy's success over the levels of an arm, with its intervals."""
    places = range(len(row.levels) + 1)
    rates = row.success_rate
    panel.plot(places, [rate.estimate for rate in rates], "o-", markersize=3, color=color, label=row.policy)
    panel.fill_between(
        places, [rate.low for rate in rates], [rate.high for rate in rates], color=color, alpha=0.12, lw=0
    )
    panel.set(title=row.arm, xlabel=row.unit, ylim=(0, 1.02))
    panel.set_xticks(list(places), ["none", *(f"{level:g}" for level in row.levels)])
    panel.grid(color="0.9")


def new_chunk_ms(report: schema.Report) -> dict[str, tuple[float, float | None]]:
    """By policy, the median and the 99th percentile of a new chunk of one robot, on the CPU, in ms."""
    return {
        row.policy: (row.p50_ms, row.p99_ms)
        for row in report.latency
        if (row.what, row.batch, row.processed, row.mode, row.device)
        == (TimedCall.NEW_CHUNK, 1, True, "eager", "cpu")
        and row.p50_ms is not None
    }


def frequencies(rows: tuple[Stress, ...], ms: dict[str, tuple[float, float | None]]) -> str:
    """A table: up to which control frequency success has not fallen by 5 points, waiting and overlapping."""
    from il_bench.stress.realtime import LATENCY_ARMS, most_hz  # imports torch, which a picture needs not

    lines = []
    for policy, (median, late) in ms.items():
        cells = [policy, f"{median:.3g}", "" if late is None else f"{late:.3g}", f"{1e3 / median:.0f}"]
        for arm in LATENCY_ARMS:
            found = [row for row in rows if (row.policy, row.arm) == (policy, arm)]
            cells.append(_hz(*most_hz(found[0], median)) if found else "")
        lines.append(tuple(cells))
    names = ("policy", "p50 ms", "p99 ms", "deadline met up to Hz", "wait: Hz", "overlap: Hz")
    section = stress.section(())
    section.tables.append(Table.of(names, lines))
    return section.markdown()


def _hz(hz: float, is_bound: bool) -> str:
    return "falls at once" if hz == 0 else f"{'at least ' if is_bound else ''}{hz:.0f}"


if __name__ == "__main__":
    main()
