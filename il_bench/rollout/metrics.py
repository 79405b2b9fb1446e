"""The numbers that say how good a policy is, each defined once: another entry of METRICS is another metric.

Reports, tables, the page, pictures, `il-bench evaluate` and `il-bench metrics` show every metric. Options and
baselines.json accept targets for those that are `gated`.

Read before anything heavy is imported: standard library only.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from il_bench.errors import IlBenchError
from il_bench.protocol import MARGIN, NEAR_COVERAGE, SUCCESS_COVERAGE

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from il_bench.rollout.outcomes import Outcomes


@dataclass(frozen=True)
class Metric:
    """The mean of one value an episode, over the episodes that have one.

    gated: whether it can have a target and a baseline. Then every episode has a value, and more is better.
    is_column: whether it stands in the first table of policies; the others share a second one.
    """

    name: str  # what report.json, tables and options call it
    about: str  # what it is, in words
    publishers: str  # who publishes it, and under which name
    values: "Callable[[Outcomes], NDArray[np.float64]]"  # of N episodes (M,) in seed order, M <= N
    low: float = 0.0  # of a value
    high: float | None = 1.0  # None: the most steps that an episode may have
    is_binary: bool = False  # values are 0 or 1
    higher_is_better: bool = True
    gated: bool = False
    is_column: bool = True
    unit: str = ""
    digits: int = 3

    def estimate(self, outcomes: "Outcomes") -> float:
        """Return the mean, nan if no episode has a value."""
        values = self.values(outcomes)
        return float(values.mean()) if values.size else float("nan")

    def text(self, estimate: float, low: float, high: float, *, digits: int | None = None) -> str:
        """Return for example '0.512 [0.44, 0.58]'. digits: of the ends; None: one fewer than `digits`."""
        ends = self.digits - 1 if digits is None else digits
        return f"{estimate:.{self.digits}f} [{low:.{ends}f}, {high:.{ends}f}]{self.unit and f' {self.unit}'}"


def _known(outcomes: "Outcomes", name: str) -> "NDArray[np.float64]":
    """Return a column of the episodes whose coverage is known: PushT's, since reports tell it."""
    values: NDArray[np.float64] = getattr(outcomes, name)
    known: NDArray[np.float64] = values[outcomes.final_coverage == outcomes.final_coverage]
    return known


#: In the order of the tables. The first is the default.
METRICS = {
    metric.name: metric
    for metric in (
        Metric(
            name="success_rate",
            about="share of the episodes that succeed: coverage above 0.95 at some step",
            publishers="LeRobot, as pc_success in percent",
            values=lambda outcomes: outcomes.success.astype("float64"),
            is_binary=True,
            gated=True,
        ),
        Metric(
            name="mean_max_reward",
            about="mean over the episodes of the best reward, clip(coverage / 0.95, 0, 1)",
            publishers="LeRobot, as avg_max_reward; Diffusion Policy, as test/mean_score",
            values=lambda outcomes: outcomes.max_reward,
            gated=True,
        ),
        Metric(
            name="mean_steps_to_success",
            about="mean number of steps of the episodes that succeed",
            publishers="nobody",
            values=lambda outcomes: outcomes.n_steps[outcomes.success].astype("float64"),
            low=1.0,
            high=None,
            higher_is_better=False,
            unit="steps",
            digits=1,
        ),
        Metric(
            name="best_coverage_90_rate",
            about=f"share of the episodes whose coverage is at least {NEAR_COVERAGE:.2f} at some step",
            publishers="nobody that we know; people's demonstrations mostly end there",
            values=lambda outcomes: (_known(outcomes, "best_coverage") >= NEAR_COVERAGE).astype("float64"),
            is_binary=True,
            is_column=False,
        ),
        Metric(
            name="last_reward_95_rate",
            about="share of the episodes whose last reward is at least 0.95, which is a coverage of 0.9025",
            publishers="Embodimetry, as success",
            values=lambda outcomes: (_known(outcomes, "last_reward") >= SUCCESS_COVERAGE).astype("float64"),
            is_binary=True,
            is_column=False,
        ),
        Metric(
            name="mean_last_reward",
            about="mean reward of the last step",
            publishers="nobody that we know",
            values=lambda outcomes: _known(outcomes, "last_reward"),
            is_column=False,
        ),
        Metric(
            name="mean_final_coverage",
            about=(
                "mean coverage after the last step; success ends an episode here, so one that succeeds keeps"
                " the more than 0.95 it ended with, where others play on to the time-out"
            ),
            publishers="the VQ-BeT paper, at the time-out",
            values=lambda outcomes: _known(outcomes, "final_coverage"),
            is_column=False,
        ),
    )
}
DEFAULT_METRIC = next(iter(METRICS))
GATED_METRICS = tuple(metric.name for metric in METRICS.values() if metric.gated)


def gated_metric(name: str) -> Metric:
    """Return the metric of this name. Raises IlBenchError unless it can have a target."""
    if name not in GATED_METRICS:
        raise IlBenchError(f"metric = {name!r}: need {' or '.join(map(repr, GATED_METRICS))}")
    return METRICS[name]


def target_of(given: str, option: str, margin: float = MARGIN) -> tuple[str, float]:
    """Return the metric and the value of METRIC=VALUE; IlBenchError names the option."""
    metric, _equals, text = given.partition("=")
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if metric not in GATED_METRICS or not margin < value < 1.0:
        raise IlBenchError(
            f"{option}: {given!r} is not METRIC=VALUE; METRIC is {' or '.join(GATED_METRICS)}, VALUE "
            f"between {margin:g} and 1, for example success_rate=0.8"
        )
    return metric, value
