"""Describe a set of demonstrations: how long, how well solved and how smooth they are."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.utils.constants import ACTION, OBS_ENV_STATE, OBS_STATE
from numpy.typing import NDArray

from il_bench.data.lerobot_folder import episode_ends, read_column
from il_bench.demos import provenance
from il_bench.demos.replay import coverage_at_ends
from il_bench.pusht import SUCCESS_COVERAGE
from il_bench.pusht.geometry import GOAL_POSE, OUTLINE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

N_PATHS = 12  # in the picture
_BLUE, _GOAL = "#3b6ea5", "#a8d5a2"


@dataclass(frozen=True)
class Description:
    """What is known of E episodes."""

    length: NDArray[np.int64]  # (E,) steps
    coverage: NDArray[np.float64]  # (E,) after the last action; NaN if neither keypoints nor reward are known
    solved: NDArray[np.bool_]  # (E,) whether it is above 0.95
    paths: list[NDArray[np.float64]]  # for each episode its actions (T, 2) px
    left_out: int  # episodes that were made but are not in the data

    @property
    def change(self) -> NDArray[np.float64]:
        """How far the action moves from one step to the next, px, within all episodes."""
        return np.concatenate([np.linalg.norm(np.diff(path, axis=0), axis=1) for path in self.paths])

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; lengths in steps, action_change in px a step, None where unknown."""
        known = self.coverage[np.isfinite(self.coverage)]
        change, actions = self.change, np.concatenate(self.paths)
        return {
            "episodes": len(self.length),
            "frames": int(self.length.sum()),
            "left_out": self.left_out,
            "length": {
                "mean": float(self.length.mean()),
                "median": float(np.median(self.length)),
                "p95": float(np.percentile(self.length, 95)),
                "max": int(self.length.max()),
            },
            "coverage_at_end": _percentiles(known, p5=5, median=50, p95=95),
            "share_above_0.95": float(self.solved.mean()),
            "action_change": {
                "mean": float(change.mean()) if len(change) else None,
                **_percentiles(change, p99=99),
            },
            "action_range": [float(actions.min()), float(actions.max())],
        }


def measure(dataset: LeRobotDataset) -> Description:
    """Measure a dataset that `open_dataset` has opened.

    The provenance of data from `il-bench demos make` holds the coverage at the end. Of other data it is
    computed from the last state and action, or, without keypoints, from the last reward.
    """
    ends = episode_ends(dataset)
    found = provenance.read(Path(dataset.root), len(ends))
    known = np.array([np.nan if episode is None else episode.max_coverage for episode in found.episodes])
    covered = np.where(np.isnan(known), _computed(dataset, ends), known) if np.isnan(known).any() else known
    solved = covered > SUCCESS_COVERAGE
    if "next.success" in dataset.features:
        solved |= read_column(dataset, "next.success", np.bool_).reshape(-1)[ends - 1]
    return Description(
        length=np.diff(ends, prepend=0),
        coverage=covered,
        solved=solved,
        paths=np.split(read_column(dataset, ACTION, np.float64), ends[:-1]),
        left_out=len(found.left_out),
    )


def _computed(dataset: LeRobotDataset, ends: NDArray[np.int64]) -> NDArray[np.float64]:
    computed: NDArray[np.float64] = np.full(len(ends), np.nan)
    if OBS_ENV_STATE in dataset.features:
        keys = (OBS_STATE, OBS_ENV_STATE, ACTION)
        agent, keypoints, action = (read_column(dataset, key, np.float64) for key in keys)
        computed = coverage_at_ends(agent, keypoints, action, ends)
    if "next.reward" in dataset.features:  # clipped at 1
        reward = read_column(dataset, "next.reward", np.float64).reshape(-1)[ends - 1]
        computed = np.fmax(computed, SUCCESS_COVERAGE * reward)
    return computed


def _percentiles(values: NDArray[np.float64], **wanted: float) -> dict[str, float | None]:
    return {name: float(np.percentile(values, at)) if len(values) else None for name, at in wanted.items()}


def draw(described: Description, name: str) -> bytes:
    """Draw the demonstrations called `name`; return the content of a PNG file."""
    from matplotlib.figure import Figure  # not pyplot: no screen, no global state

    figure = Figure(figsize=(10, 8), layout="constrained")
    figure.suptitle(f"{name}: {len(described.length)} episodes, {described.length.sum()} frames")
    axes = figure.subplots(2, 2)
    covered, change = described.coverage[np.isfinite(described.coverage)], described.change
    low = min(0.8, float(covered.min())) if len(covered) else 0.0
    axes[0, 0].hist(covered, bins=np.linspace(low, 1.0, 41).tolist(), color=_BLUE)
    axes[0, 0].axvline(SUCCESS_COVERAGE, color="black", linestyle="--", linewidth=1)
    axes[0, 0].set(xlabel="coverage at the end", title=f"{described.solved.mean():.0%} above 0.95")
    axes[0, 1].hist(described.length, bins=40, color=_BLUE)
    axes[0, 1].set(xlabel="steps (0.1 s)", title=f"median {np.median(described.length):.0f} steps")
    for above in axes[0]:
        above.set(ylabel="episodes")
    _paths(axes[1, 0], described)
    axes[1, 1].hist(change, bins=60, color=_BLUE)
    axes[1, 1].set(xlabel="change of the action from step to step (px)", ylabel="steps", yscale="log")
    if len(change):
        mean, most = change.mean(), np.percentile(change, 99)
        axes[1, 1].set_title(f"mean {mean:.1f} px, 99 % below {most:.0f} px")
    file = io.BytesIO()
    figure.savefig(file, dpi=120)
    return file.getvalue()


def _paths(axes: "Axes", described: Description) -> None:
    x, y, angle = GOAL_POSE
    cos, sin = np.cos(angle), np.sin(angle)
    goal = np.array(OUTLINE) @ np.array([[cos, sin], [-sin, cos]]) + (x, y)
    axes.fill(*goal.T, color=_GOAL, label="goal")
    chosen = np.linspace(0, len(described.paths) - 1, min(N_PATHS, len(described.paths))).astype(int)
    for index in chosen.tolist():
        axes.plot(*described.paths[index].T, linewidth=0.8)
    axes.set(xlim=(0, 512), ylim=(512, 0), aspect="equal", xlabel="x (px)", ylabel="y (px)")
    axes.set_title(f"actions of {len(chosen)} episodes")
