"""How well does the action tokenizer inside each selected policy keep the demonstrations?"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    from il_bench.policies.loading import LoadedPolicy
    from il_bench.tokenizers import Tokenizer


@pytest.mark.success
def test_tokenizer(
    policy: "LoadedPolicy",
    tokenizer: "Tokenizer",
    pusht_dataset: "LeRobotDataset",
    il_bench_record: Callable[[dict[str, Any]], None],
) -> None:
    """Report what encoding and decoding loses; fail if the tokens say no more than the mean chunk does."""
    from il_bench.report.collect import Record
    from il_bench.suite.tokenizers import measure

    row, mean_px = measure(policy, tokenizer, pusht_dataset)
    il_bench_record(Record("tokenizers", row).to_dict())
    assert row.l1_px < mean_px, f"{policy.name}: {row.l1_px:.1f} px lost, {mean_px:.1f} px by the mean chunk"
