"""Draw how the shipped policies learned, from the logs beside their weights: one picture.

Run by `make training-curves`.
"""

import argparse
import csv
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from il_bench.zoo import ZOO, shipped

LOG = "train_log.csv"


def main() -> None:
    """Draw the picture and say where it is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("training-curves.png"))
    output = parser.parse_args().output
    figure = Figure(figsize=(9.0, 3.6), layout="constrained")
    solved, loss = figure.subplots(1, 2)
    for name in shipped():
        draw(ZOO / name / LOG, name, solved, loss)
    solved.set(xlabel="training step", ylabel="success_rate (validation starts)", ylim=(0, 1))
    loss.set(xlabel="training step", ylabel="loss / its value after 100 steps", yscale="log")
    for axis in (solved, loss):
        axis.grid(color="0.9")
    figure.legend(*solved.get_legend_handles_labels(), loc="outside lower center", ncols=5, frameon=False)
    figure.savefig(output, dpi=110)
    print(f"Wrote {output}.")


def draw(log: Path, name: str, solved: Axes, loss: Axes) -> None:
    """Add one policy's curves: its evaluations, and its loss without VQ-BeT's first phase.

    The row in which a phase begins is a mean over both.
    """
    with log.open(newline="") as file:
        rows = list(csv.DictReader(file))
    evaluated = [(int(row["step"]), float(row["success_rate"])) for row in rows if row["success_rate"]]
    solved.plot(*zip(*evaluated, strict=True), marker="o", markersize=3, label=name)
    losses = [
        (int(row["step"]), float(row["loss"])) for row in rows if row["loss"] and row["phase"] == "policy"
    ]
    steps, values = zip(*losses[1:], strict=True)
    loss.plot(steps, [value / values[0] for value in values], linewidth=0.8)


if __name__ == "__main__":
    main()
