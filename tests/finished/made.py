"""Files of finished runs as the tests need them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from il_bench.gate.verdict import PolicyGates
from il_bench.report.schema import Success
from il_bench.report.success import row_of as made_row
from il_bench.rollout.outcomes import Outcomes


def task(group: str, number: int | str, successes: Sequence[bool]) -> dict[str, Any]:
    """A task as lerobot-eval 0.4 to 0.6 writes it."""
    rewards = [1.0 if each else 0.5 for each in successes]
    metrics = {
        "sum_rewards": rewards,
        "max_rewards": rewards,
        "successes": list(successes),
        "video_paths": [],
    }
    return {"task_group": group, "task_id": number, "metrics": metrics}


def part(successes: Sequence[bool]) -> dict[str, Any]:
    """What stands under a group, and under `overall`."""
    rate = 100 * float(np.mean(successes))
    return {"avg_sum_reward": float("nan"), "pc_success": rate, "n_episodes": len(successes), "eval_s": 1.5}


def eval_info(tasks: Mapping[tuple[str, int], Sequence[bool]]) -> dict[str, Any]:
    """A whole file."""
    groups = {
        group: part([one for (of, _), each in tasks.items() for one in each if of == group])
        for group, _ in tasks
    }
    together = [one for each in tasks.values() for one in each]
    per_task = [task(group, number, each) for (group, number), each in tasks.items()]
    return {"per_task": per_task, "per_group": groups, "overall": part(together)}


class _Policy:
    track, data, checkpoint, sha256, parameters = "keypoints", "human", "/runs/act", "a" * 64, 100

    def __init__(self, name: str) -> None:
        self.name = name


def row_of(outcomes: Outcomes, policy: str, *, sequential: bool = False) -> Success:
    """The row of a policy without gates."""
    return made_row(_Policy(policy), outcomes, PolicyGates(policy).verdict(outcomes, sequential=sequential))
