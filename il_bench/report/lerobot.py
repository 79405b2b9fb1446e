"""A policy's row with the keys of `eval_info.json`, LeRobot's file of an evaluation, for its tools.

It holds what a newer `lerobot-eval` writes, and two things more: `seeds` of the episodes, and `stops_early`
if their number follows from their outcomes. `pc_success_ci95` is the row's own interval, not Wilson's.
`sum_rewards` end with an episode's last step, where LeRobot counts one step more.
"""

import json
from typing import Any

import numpy as np

from il_bench.errors import IlBenchError
from il_bench.protocol import TRACKS
from il_bench.report.schema import Success

#: LeRobot's name of the environment.
_PUSHT = "pusht"


def eval_info(row: Success) -> dict[str, Any]:
    """Return the fields of the file. Raises IlBenchError for a row whose episodes were taken out."""
    if not row.episodes:
        raise IlBenchError(f"{row.policy}: its episodes were taken out of the report; give the whole report")
    sums = [episode.sum_reward for episode in row.episodes]  # None in older reports
    metrics = {
        "sum_rewards": sums,
        "max_rewards": [episode.max_reward for episode in row.episodes],
        "successes": [episode.success for episode in row.episodes],
        "seeds": [episode.seed for episode in row.episodes],
        "video_paths": [],
    }
    if row.interval == "confidence sequence":
        metrics["stops_early"] = True
    counts = {
        "n_episodes": row.n_episodes,
        "n_success": sum(episode.success for episode in row.episodes),
        "pc_success": 100 * row.success_rate.estimate,
        "pc_success_ci95": [100 * row.success_rate.low, 100 * row.success_rate.high],
    }
    aggregate = {
        "avg_sum_reward": None if None in sums else float(np.mean(np.array(sums, np.float64))),
        "avg_max_reward": row.mean_max_reward.estimate,
        **counts,
    }
    group = _PUSHT if row.track in TRACKS else row.track
    times = {"eval_s": row.seconds, "eval_ep_s": row.seconds / row.n_episodes}
    return {
        "per_task": [{"task_group": group, "task_id": 0, "metrics": metrics, **counts}],
        "per_group": {group: {**aggregate, "video_paths": []}},
        "overall": {**aggregate, **times, "video_paths": []},
    }


def content(row: Success) -> bytes:
    """Return the file."""
    return (json.dumps(eval_info(row), indent=2) + "\n").encode()
