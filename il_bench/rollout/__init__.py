"""Policy x seeds -> episodes. Only the first use of a name below imports torch."""

from typing import TYPE_CHECKING

from il_bench import lazily

if TYPE_CHECKING:
    from il_bench.protocol import BLOCK_SIZE
    from il_bench.rollout.blocks import Policy, PolicyLoader, RunBlock, Stop, rollout, run_block
    from il_bench.rollout.outcomes import Outcomes

__all__ = ["BLOCK_SIZE", "Outcomes", "Policy", "PolicyLoader", "RunBlock", "Stop", "rollout", "run_block"]

_BLOCKS = "il_bench.rollout.blocks"
__getattr__ = lazily(
    __name__,
    dict.fromkeys(("Policy", "PolicyLoader", "RunBlock", "Stop", "rollout", "run_block"), _BLOCKS)
    | {"BLOCK_SIZE": "il_bench.protocol", "Outcomes": "il_bench.rollout.outcomes"},
)
