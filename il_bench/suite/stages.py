"""How long the stages of a run may take, and what only a thorough run does. This imports no torch."""

from typing import Any

import pytest

from il_bench.plugin.fixtures import SETTINGS
from il_bench.plugin.selection import LONG

#: Seconds of timed calls in a default run, shared by the rows of a stage; what prepares them comes on top.
BUDGET = {"throughput": 15.0, "latency": 15.0}
ONLY_THOROUGH = "takes long: run it with --il-thorough"


def either(*values: Any, is_long: bool, id: str | None = None) -> Any:
    """A parameter, or several, of a test; if `is_long`, of a thorough run only."""
    return pytest.param(*values, marks=[LONG] if is_long else [], id=id)


def long(*values: Any) -> list[Any]:
    """Parameters of a thorough run only."""
    return [either(value, is_long=True) for value in values]


def is_thorough(config: pytest.Config) -> bool:
    """Whether the run also measures what takes long."""
    return config.stash[SETTINGS].thorough


def seconds(request: pytest.FixtureRequest, stage: str, most: float) -> float:
    """Seconds for the timed calls of a row: its share of the stage's budget, and `most` in a thorough run."""
    if is_thorough(request.config):
        return most
    rows = sum(item.get_closest_marker(stage) is not None for item in request.session.items)
    return min(most, BUDGET[stage] / max(1, rows))
