"""LeRobot policies for PushT: importing this registers ``il_bc``, ``il_bet`` and ``il_vqbet``.

LeRobot's commands find them with ``--policy.discover_packages_path=il_bench.policies``. A policy's
module names (``configuration_*``, ``modeling_*``, ``processor_*``) follow LeRobot's factory, which
looks classes up by them.
"""

from il_bench.policies.configuration_bc import ILBCConfig
from il_bench.policies.configuration_bet import ILBeTConfig
from il_bench.policies.configuration_vqbet import ILVQBeTConfig

__all__ = ["ILBCConfig", "ILBeTConfig", "ILVQBeTConfig"]
