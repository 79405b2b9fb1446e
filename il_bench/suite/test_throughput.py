"""How many actions a second does each selected policy give, and how many chunks does its tokenizer code?"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from il_bench.fixtures import SETTINGS

if TYPE_CHECKING:
    from il_bench.policies.loading import LoadedPolicy
    from il_bench.tokenizers import Tokenizer

Timed = Callable[[str, Callable[[], object], int, int], None]
BLOCK = 50  # as many as a rollout asks for at once
N_CHUNKS = 256


@pytest.fixture
def timed(
    request: pytest.FixtureRequest,
    pytestconfig: pytest.Config,
    il_bench_record: Callable[[dict[str, Any]], None],
) -> Timed:
    """Time a call with pytest-benchmark and report how many of `n` it does a second."""
    if not pytestconfig.pluginmanager.hasplugin("benchmark"):
        pytest.skip("timed by pytest-benchmark, which is switched off")
    benchmark = request.getfixturevalue("benchmark")
    if benchmark.disabled:
        pytest.skip("pytest-benchmark times nothing here, as with -n: other processes would disturb it")

    def time(what: str, call: Callable[[], object], n: int, batch: int) -> None:
        from il_bench.report.collect import Record
        from il_bench.report.schema import Throughput
        from il_bench.suite.timing import one_thread, rounds

        n_rounds = rounds(call)
        with one_thread():
            benchmark.pedantic(call, rounds=n_rounds)
        row = Throughput(
            what=what,
            batch=batch,
            device=pytestconfig.stash[SETTINGS].device,
            per_second=n / benchmark.stats.stats.median,
            ratio_to_reference=None,
            reference=None,
        )
        il_bench_record(Record("throughput", row).to_dict())

    return time


@pytest.mark.throughput
@pytest.mark.parametrize("batch", [1, BLOCK])
def test_actions(policy: "LoadedPolicy", batch: int, timed: Timed) -> None:
    """Actions a second, each prediction's share in all the actions it gives."""
    from il_bench.suite.timing import acting

    call, n = acting(policy, batch)
    timed(f"{policy.name}: select_action", call, n, batch)


@pytest.mark.throughput
@pytest.mark.parametrize("way", ["encode", "decode"])
def test_chunks(policy: "LoadedPolicy", tokenizer: "Tokenizer", way: str, timed: Timed) -> None:
    """Chunks a second through the tokenizer."""
    from il_bench.suite.timing import coding

    timed(f"{policy.name}: {way}", coding(tokenizer, N_CHUNKS)[way], N_CHUNKS, N_CHUNKS)
