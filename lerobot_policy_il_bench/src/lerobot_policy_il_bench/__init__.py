"""il_bench's policies for LeRobot's commands, which import every distribution called ``lerobot_policy_*``."""

import il_bench.policies  # noqa: F401  (registers its types of policies)
