"""How good is each selected policy, does it meet its target, and is it worse than it was?"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from il_bench.plugin.fixtures import REGISTRY, SETTINGS, any_environment, in_one_line
from il_bench.protocol import EXPERT, UNTRAINED

if TYPE_CHECKING:
    from il_bench.plugin.evaluation import Evaluate
    from il_bench.policies.checkpoint import LoadedPolicy
    from il_bench.suite.success import Measure

Record = Callable[[dict[str, Any]], None]


@pytest.fixture(scope="module")
def measure(pytestconfig: pytest.Config, il_bench_evaluate: "Evaluate") -> "Measure":
    """Rolls a policy out and judges it."""
    from il_bench.rollout import executors

    settings = pytestconfig.stash[SETTINGS]
    executors.import_ahead(settings.workers, settings.executor)
    from il_bench.suite.success import Measure

    with in_one_line():
        return Measure(settings, il_bench_evaluate, pytestconfig.stash[REGISTRY])


@pytest.mark.success
@any_environment
def test_success(il_bench_policy: "LoadedPolicy", measure: "Measure", il_bench_record: Record) -> None:
    """Roll a policy out, report it, and fail if it misses a required target or its measured baseline."""
    with in_one_line():
        record, problems = measure.policy(il_bench_policy)
    il_bench_record(record)
    if problems:
        pytest.fail("\n".join(problems), pytrace=False)


@pytest.mark.success
@pytest.mark.usefixtures("il_bench_whole_table")
def test_untrained(measure: "Measure", il_bench_record: Record) -> None:
    """Roll out untrained weights: the floor of the table."""
    with in_one_line():
        il_bench_record(measure.context(UNTRAINED))


@pytest.mark.success
@pytest.mark.usefixtures("il_bench_whole_table")
def test_expert(measure: "Measure", il_bench_record: Record) -> None:
    """Roll out the planner that knows the simulator: the ceiling of the table."""
    with in_one_line():
        il_bench_record(measure.context(EXPERT))
