"""What a finished run says of each task, whoever wrote its file."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from il_bench.errors import printable

WAY_OUT = (
    "give an eval_info.json of lerobot-eval, a report.json, a CSV with the columns seed and success, or"
    " what `il-bench evaluate --output` writes"
)


@dataclass(frozen=True)
class FinishedTask:
    """The episodes of one task.

    successes, n: how many succeed, of how many. outcomes: of each, in order. seeds: of each start state.
    None: the file does not say. stops_early: whether the run ended when its gates were decided, so that the
    number of episodes follows from their outcomes. max_rewards: the best reward of each.
    """

    name: str
    successes: int
    n: int
    outcomes: tuple[bool, ...] | None = None
    seeds: tuple[int, ...] | None = None
    stops_early: bool = False
    max_rewards: tuple[float, ...] | None = None

    @staticmethod
    def of(name: str, outcomes: Sequence[bool], **facts: Any) -> "FinishedTask":
        """Count the successes."""
        return FinishedTask(printable(name), sum(outcomes), len(outcomes), tuple(outcomes), **facts)


def rewards_of(given: Any, n: int) -> tuple[float, ...] | None:
    """Return the rewards of `n` episodes; None if `given` is anything else, which costs no other number."""
    is_right = isinstance(given, list | tuple) and len(given) == n
    if not is_right or not all(type(each) in (int, float) and math.isfinite(each) for each in given):
        return None
    return tuple(map(float, given))


@dataclass(frozen=True)
class FinishedRun:
    """A file of a finished run. form: what kind of file it is, in words."""

    form: str
    tasks: tuple[FinishedTask, ...]
    path: Path = field(default=Path(), compare=False)

    @property
    def successes(self) -> int:
        """Of all tasks together."""
        return sum(task.successes for task in self.tasks)

    @property
    def n(self) -> int:
        """Episodes of all tasks together."""
        return sum(task.n for task in self.tasks)
