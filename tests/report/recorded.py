"""A report folder as a run leaves it, with recordings: a policy that fails, and one that solves."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from il_bench.gate.baselines import Target
from il_bench.gate.verdict import PolicyGates
from il_bench.policies.expert import ExpertPolicy
from il_bench.report import schema, views
from il_bench.report.success import row_of
from il_bench.rollout import Outcomes, rollout
from il_bench.rollout.endings import Ending
from il_bench.rollout.recordings import Recordings
from tests.report.made import report
from tests.rollout.policies import Wander

SEEDS = range(200_000, 200_050)


def row(
    name: str, outcomes: Outcomes, track: str = "keypoints", checkpoint: str | None = None, **gates: Any
) -> schema.Success:
    """The row of a policy with this name and these episodes."""
    facts = {"data": "none", "sha256": "a" * 64, "parameters": 1_600_000}
    policy = SimpleNamespace(name=name, track=track, checkpoint=checkpoint or f"tests.{name}", **facts)
    return row_of(policy, outcomes, PolicyGates(name, **gates).verdict(outcomes))


def written(
    folder: Path, *, solved: str = "expert", failed: str = "wander", **sections: Any
) -> schema.Report:
    """Roll both out and write the report, its page and the recordings."""
    rows = []
    for name, policy in ((failed, Wander()), (solved, ExpertPolicy())):
        outcomes = rollout(policy, SEEDS, record=Recordings(folder, name, "keypoints").save)
        rows.append(row(name, outcomes, target=Target(value=0.8, required=True)))
    found = report(success=rows, **sections)
    views.write(found, folder)
    return found


def worse(outcomes: Outcomes, n: int) -> Outcomes:
    """The same episodes, of which the first n successes are near misses."""
    at = np.flatnonzero(outcomes.success)[:n]
    success, ending, reward = outcomes.success.copy(), outcomes.ending.copy(), outcomes.max_reward.copy()
    success[at], ending[at], reward[at] = False, Ending.NEAR_MISS, 0.98
    return replace(outcomes, success=success, ending=ending, max_reward=reward)
