"""Draw the stress curves, and print their tables, from the outcomes that are kept: no episode is run.

Run by `make stress-figures`; with `--time`, as in `make stress-times`, the policies are timed first.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from il_bench import zoo
from il_bench.protocol import KEYPOINTS
from il_bench.report import schema, stress
from il_bench.report.schema import Stress
from il_bench.report.tables import Table

HERE = Path(__file__).parent
COLUMNS = 4
HZ = (100, 500, 1000)
CALLS, SECONDS = 1000, 6.0


def main() -> None:
    """Draw the picture and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=HERE / "results" / "stress.json")
    parser.add_argument("--images", type=Path, default=HERE / "results" / "stress-images.json")
    parser.add_argument("--times", type=Path, default=HERE / "results" / "new-chunk-ms.json")
    parser.add_argument("--time", action="store_true", help="Time the shipped policies first, into --times.")
    parser.add_argument("--output", type=Path, default=Path("stress.png"))
    given = parser.parse_args()
    if given.time:
        given.times.write_text(json.dumps(timed()) + "\n")
    rows = schema.load(given.results).stress
    print(stress.section(rows).markdown())
    print(stress.section(schema.load(given.images).stress).markdown())
    print(frequencies(rows, json.loads(given.times.read_text())))
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


def timed() -> dict[str, list[float]]:
    """By shipped policy, what up to CALLS new chunks of one robot took on one thread of the CPU, in ms."""
    from il_bench.policies.checkpoint import load_policy
    from il_bench.stress.realtime import measured_ms

    taken = {name: measured_ms(load_policy(name), "cpu", SECONDS) for name in zoo.shipped(KEYPOINTS)}
    return {name: [round(ms, 2) for ms in times[:CALLS]] for name, times in taken.items()}


def frequencies(rows: tuple[Stress, ...], ms: dict[str, list[float]]) -> str:
    """A table: the latency in control steps at which success has not fallen by 5 points, and the deadlines.

    The last columns are the control frequency at which a policy has that latency by its median, and the share
    of its calls that take longer than a control step at each of HZ.
    """
    from il_bench.stress.realtime import LATENCY_ARMS, deadline_misses, most_hz  # torch: not for a picture

    lines = []
    for policy, times in ms.items():
        median = float(np.median(times))
        cells = [f"`{policy}`"]
        for arm in LATENCY_ARMS:
            (row,) = (row for row in rows if (row.policy, row.arm) == (policy, arm))
            hz, is_bound = most_hz(row, median)
            borne = "at least " * is_bound + f"{round(hz * median / 1e3)}"
            cells += [borne, f"{hz:.0f} Hz"] if hz else ["falls at once", ""]
        cells += [f"{median:.2f}", f"{np.quantile(times, 0.99):.2f}"]
        lines.append((*cells, *(f"{deadline_misses(times, hz):.1%}" for hz in HZ)))
    late = (f"late at {hz} Hz" for hz in HZ)
    names = (
        "policy",
        "waiting, steps",
        "that is",
        "overlapping, steps",
        "that is",
        "p50 ms",
        "p99 ms",
        *late,
    )
    section = stress.section(())
    section.tables.append(Table.of(names, lines))
    return section.markdown()


if __name__ == "__main__":
    main()
