"""How long does a robot wait for each selected policy's prediction?"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from il_bench.fixtures import SETTINGS

if TYPE_CHECKING:
    from il_bench.policies.loading import LoadedPolicy


@pytest.mark.latency
def test_prediction(
    policy: "LoadedPolicy", pytestconfig: pytest.Config, il_bench_record: Callable[[dict[str, Any]], None]
) -> None:
    """The wait for the first action of an episode, of one robot."""
    if hasattr(pytestconfig, "workerinput"):
        pytest.skip("other processes would disturb it: run without -n")
    from il_bench.report.collect import Record
    from il_bench.suite.timing import latency

    row = latency(policy, 1, pytestconfig.stash[SETTINGS].device)
    il_bench_record(Record("latency", row).to_dict())
