"""LeRobot policies for PushT: importing this registers ``il_bc``, ``il_bet`` and ``il_vqbet``.

LeRobot's commands find them with ``--policy.discover_packages_path=il_bench.policies``. Each is one
file with configuration, processors and network: where a configuration's module has no ``configuration_`` in
its name, LeRobot's factory looks for the other two in that module too.
"""

from il_bench.policies.bc import ILBCConfig
from il_bench.policies.bet import ILBeTConfig
from il_bench.policies.vqbet import ILVQBeTConfig

__all__ = ["ILBCConfig", "ILBeTConfig", "ILVQBeTConfig"]
