"""What does each selected policy's success rest on? With --il-stress only."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from il_bench.plugin.fixtures import in_one_line
from il_bench.protocol import EXPERT
from il_bench.suite.test_success import measure  # noqa: F401  (a fixture)

if TYPE_CHECKING:
    from il_bench.policies.checkpoint import LoadedPolicy
    from il_bench.suite.success import Measure

Record = Callable[[dict[str, Any]], None]


@pytest.mark.success
def test_stress(il_bench_policy: "LoadedPolicy", measure: "Measure", il_bench_record: Record) -> None:  # noqa: F811
    """Roll a policy out with one thing changed, at every level of every arm; fail if it misses a target."""
    problems: list[str] = []
    with in_one_line():
        for record, found in measure.stress(il_bench_policy):
            il_bench_record(record)
            problems += found
    if problems:
        pytest.fail("\n".join(problems), pytrace=False)


@pytest.mark.success
@pytest.mark.usefixtures("il_bench_whole_table")
def test_expert_under_stress(measure: "Measure", il_bench_record: Record) -> None:  # noqa: F811
    """The same for the planner that knows the undisturbed simulator."""
    from il_bench.policies.checkpoint import load_policy

    with in_one_line():
        for record, _ in measure.stress(load_policy(EXPERT)):
            il_bench_record(record)
