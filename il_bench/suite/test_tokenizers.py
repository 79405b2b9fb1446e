"""How well do action tokenizers keep demonstrations that were held out?

The tokenizers are those inside the selected policies, and il_bench's and the project's, fitted here.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from il_bench.suite import stages, tokenizer_names

if TYPE_CHECKING:
    from il_bench.policies.checkpoint import LoadedPolicy
    from il_bench.suite.reconstruction import FittedTokenizer
    from il_bench.tokenizers import Tokenizer

Report = Callable[["FittedTokenizer"], None]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Measure on every set of demonstrations, but slow fits on one set, and ours in a thorough run only."""
    sets = tokenizer_names.demonstrations(metafunc.config)
    if "name" in metafunc.fixturenames:
        last = tokenizer_names.preferred(metafunc.config)
        pairs = [(name, data) for data in sets.items() for name in tokenizer_names.QUICK]
        ours = tokenizer_names.TRAINED if stages.is_thorough(metafunc.config) else ()
        slow = (*ours, *tokenizer_names.of_project(metafunc.config))
        pairs += [(name, last) for name in slow]
        metafunc.parametrize(("name", "data"), pairs, ids=[f"{name}-{data[0]}" for name, data in pairs])
    elif "data" in metafunc.fixturenames:
        metafunc.parametrize("data", sets.items(), ids=sets, scope="module")


@pytest.fixture
def report(data: tuple[str, str], il_bench_record: Callable[[dict[str, Any]], None]) -> Report:
    """Put a tokenizer's row into the report; fail if it loses as much as always answering the mean chunk."""

    def measured(subject: "FittedTokenizer") -> None:
        from il_bench.plugin.collect import Record
        from il_bench.suite.reconstruction import measure
        from il_bench.suite.tokenizers import held_out

        name, source = data
        row, mean_px = measure(subject, held_out(source, subject.tokenizer.chunk_shape[0]), name)
        il_bench_record(Record("tokenizers", row).to_dict())
        assert row.l1_px < mean_px, (
            f"{subject.name} loses {row.l1_px:.1f} px, the mean chunk {mean_px:.1f} px"
        )

    return measured


@pytest.mark.success
def test_tokenizer(il_bench_policy: "LoadedPolicy", il_bench_tokenizer: "Tokenizer", report: Report) -> None:
    """Measure the tokenizer inside a policy."""
    from il_bench.suite.reconstruction import of_policy

    report(of_policy(il_bench_policy, il_bench_tokenizer, il_bench_policy.name))


@pytest.mark.success
@pytest.mark.usefixtures("il_bench_whole_table")
def test_fitted(pytestconfig: pytest.Config, name: str, data: tuple[str, str], report: Report) -> None:
    """Measure a tokenizer that is fitted on the other episodes of the same demonstrations."""
    from il_bench.suite.tokenizers import fitted

    report(fitted(name, data[1], tokenizer_names.factory(pytestconfig, name)))
