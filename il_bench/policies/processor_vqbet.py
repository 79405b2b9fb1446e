"""Pre- and post-processing of ``il_vqbet``: LeRobot's own normalisation, found by name."""

from typing import Any

from lerobot.processor import make_default_pre_post_processors
from torch import Tensor

from il_bench.policies.configuration_vqbet import ILVQBeTConfig


def make_il_vqbet_pre_post_processors(
    config: ILVQBeTConfig, dataset_stats: dict[str, dict[str, Tensor]] | None = None
) -> Any:
    """The pair: normalise observations and actions by ``dataset_stats``; unnormalise what comes back."""
    return make_default_pre_post_processors(config, dataset_stats)
