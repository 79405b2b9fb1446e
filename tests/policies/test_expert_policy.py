"""The expert rolled out like a policy."""

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from il_bench.policies.checkpoint import load_policy
from il_bench.policies.expert import ExpertPolicy, poses_of
from il_bench.pusht.batch import PushTBatch
from il_bench.pusht.geometry import block_keypoints
from il_bench.rollout import Policy

places = st.floats(50.0, 450.0)


@given(places, places, st.floats(-3.1, 3.1))
def test_the_pose_is_recovered_from_float32_keypoints(x: float, y: float, angle: float) -> None:
    seen = block_keypoints([[x, y, angle]]).astype(np.float32).astype(np.float64)
    assert poses_of(seen)[0] == pytest.approx([x, y, angle], abs=1e-4)


def steps_to_success(policy: Policy, seeds: list[int]) -> list[int]:
    """Roll these worlds out as one batch: the step each is solved at."""
    worlds = PushTBatch()
    worlds.reset(seeds)
    policy.reset()
    solved = np.full(len(seeds), 300)
    for step in range(300):
        batch = {key: torch.from_numpy(value) for key, value in worlds.observations().items()}
        coverage = worlds.step(policy.select_action(batch).numpy(), solved == 300)
        solved[(coverage > 0.95) & (solved == 300)] = step
        if (solved < 300).all():
            break
    return solved.tolist()


def test_worlds_of_a_batch_do_not_disturb_each_other_and_a_reset_forgets_them() -> None:
    policy = ExpertPolicy()
    together = steps_to_success(policy, [100_000, 100_001, 100_002])
    assert max(together) < 300
    assert steps_to_success(policy, [100_002]) == together[2:]


def test_the_expert_loads_by_name_and_can_be_sent_to_a_worker() -> None:
    loaded = pickle.loads(pickle.dumps(load_policy("expert")))
    assert (loaded.name, loaded.track, loaded.parameters, loaded.sha256) == ("expert", "keypoints", 0, None)
    assert steps_to_success(loaded, [100_003])[0] < 300
