"""A picture of demonstrations: coverage at the end, lengths, paths over the goal, how far actions move."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from il_bench.demos.describe import Measured
from il_bench.pusht import SUCCESS_COVERAGE
from il_bench.pusht.geometry import GOAL_POSE, OUTLINE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

N_PATHS = 12
_BLUE, _GOAL = "#3b6ea5", "#a8d5a2"


def draw(measured: Measured, name: str, path: Path) -> None:
    """Write the picture of the demonstrations called `name` to `path`, a .png file."""
    from matplotlib.figure import Figure  # not pyplot: no screen, no global state

    figure = Figure(figsize=(10, 8), layout="constrained")
    figure.suptitle(f"{name}: {len(measured.length)} episodes, {measured.length.sum()} frames")
    axes = figure.subplots(2, 2)
    _coverage(axes[0, 0], measured)
    _lengths(axes[0, 1], measured)
    _paths(axes[1, 0], measured)
    _changes(axes[1, 1], measured)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def _coverage(axes: "Axes", measured: Measured) -> None:
    known = measured.coverage[np.isfinite(measured.coverage)]
    low = min(0.8, float(known.min())) if len(known) else 0.0
    axes.hist(known, bins=np.linspace(low, 1.0, 41).tolist(), color=_BLUE)
    axes.axvline(SUCCESS_COVERAGE, color="black", linestyle="--", linewidth=1)
    axes.set(
        xlabel="coverage at the end", ylabel="episodes", title=f"{measured.solved.mean():.0%} above 0.95"
    )


def _lengths(axes: "Axes", measured: Measured) -> None:
    axes.hist(measured.length, bins=40, color=_BLUE)
    axes.set(
        xlabel="steps (0.1 s)", ylabel="episodes", title=f"median {np.median(measured.length):.0f} steps"
    )


def _paths(axes: "Axes", measured: Measured) -> None:
    x, y, angle = GOAL_POSE
    cos, sin = np.cos(angle), np.sin(angle)
    goal = np.array(OUTLINE) @ np.array([[cos, sin], [-sin, cos]]) + (x, y)
    axes.fill(*goal.T, color=_GOAL, label="goal")
    chosen = np.linspace(0, len(measured.paths) - 1, min(N_PATHS, len(measured.paths))).astype(int)
    for index in chosen.tolist():
        axes.plot(*measured.paths[index].T, linewidth=0.8)
    axes.set(xlim=(0, 512), ylim=(512, 0), aspect="equal", xlabel="x (px)", ylabel="y (px)")
    axes.set_title(f"actions of {len(chosen)} episodes")


def _changes(axes: "Axes", measured: Measured) -> None:
    change = measured.change
    axes.hist(change, bins=60, color=_BLUE)
    axes.set(xlabel="change of the action from step to step (px)", ylabel="steps", yscale="log")
    if len(change):
        axes.set_title(f"mean {change.mean():.1f} px, 99 % below {np.percentile(change, 99):.0f} px")
