"""il_bench's policies for LeRobot's commands, which import every distribution called ``lerobot_policy_*``.

Importing registers ``il_bc``, ``il_bet`` and ``il_vqbet``.
"""

from il_bench.policies import ILBCConfig, ILBeTConfig, ILVQBeTConfig

__all__ = ["ILBCConfig", "ILBeTConfig", "ILVQBeTConfig"]
