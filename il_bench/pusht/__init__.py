"""PushT, equal to gym-pusht to the bit at a fraction of its cost.

Importing this package registers `il_bench/PushT-v0` with gymnasium.
"""

from typing import TYPE_CHECKING

from gymnasium.envs.registration import register

from il_bench import lazily
from il_bench.protocol import CONTROL_HZ, MAX_STEPS, SUCCESS_COVERAGE

if TYPE_CHECKING:
    from il_bench.pusht.batch import Camera

register(
    id="il_bench/PushT-v0",
    entry_point="il_bench.pusht.env:PushTEnv",
    max_episode_steps=MAX_STEPS,
    kwargs={"obs_type": "state"},
)

__all__ = ["CONTROL_HZ", "MAX_STEPS", "SUCCESS_COVERAGE", "Camera"]
__getattr__ = lazily(__name__, {"Camera": "il_bench.pusht.batch"})
