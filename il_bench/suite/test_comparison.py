"""Has a selected policy become slower since a stored run?"""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from il_bench.plugin.fixtures import SETTINGS, in_one_line

if TYPE_CHECKING:
    from il_bench.latency.regression import Stopwatch
    from il_bench.policies.checkpoint import LoadedPolicy


@pytest.fixture(scope="module")
def stopwatch(pytestconfig: pytest.Config) -> "Iterator[Stopwatch]":
    """Times policies in warm processes."""
    settings = pytestconfig.stash[SETTINGS]
    if settings.compare is None and not settings.keep_blocks:
        pytest.skip("needs several processes: run it with --il-keep-blocks or --il-compare FILE")
    from il_bench.latency import regression

    with regression.stopwatch() as started:
        yield started


@pytest.mark.latency
def test_against_stored_run(
    il_bench_policy: "LoadedPolicy",
    stopwatch: "Stopwatch",
    pytestconfig: pytest.Config,
    il_bench_record: Callable[[dict[str, Any]], None],
) -> None:
    """Compare the wait for a new chunk, timed in several processes, with that of --il-compare."""
    from il_bench.latency.contenders import Contender
    from il_bench.latency.regression import against, find, problem
    from il_bench.plugin.collect import Record
    from il_bench.suite.latency import source_of

    settings = pytestconfig.stash[SETTINGS]
    contender = Contender(source_of(il_bench_policy, settings), settings.device)
    with in_one_line():
        row = stopwatch(il_bench_policy.name, contender)
        if settings.compare is not None:
            row = against(find(settings.compare, row), row, settings.compare)
    il_bench_record(Record("comparisons", row).to_dict())
    if sentence := problem(row):
        pytest.fail(sentence, pytrace=False)
