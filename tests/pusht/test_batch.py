from collections.abc import Sequence

import numpy as np
import pytest

from il_bench.errors import IlBenchError
from il_bench.pusht.batch import PushTBatch
from il_bench.pusht.env import PushTEnv
from il_bench.pusht.geometry import block_keypoints, coverage

SEEDS = [200003, 200001, 200007]


def batch_of(seeds: Sequence[int]) -> PushTBatch:
    batch = PushTBatch()
    batch.reset(seeds)
    return batch


def test_each_world_is_the_environment_of_its_seed() -> None:
    batch = batch_of(SEEDS)
    envs = [PushTEnv("environment_state_agent_pos") for _ in SEEDS]
    observations = [env.reset(seed=seed)[0] for env, seed in zip(envs, SEEDS, strict=True)]
    rng = np.random.default_rng(0)
    for step in range(60):
        seen = batch.observations()
        assert {key: (value.shape, value.dtype) for key, value in seen.items()} == {
            "observation.state": ((3, 2), np.float32),
            "observation.environment_state": ((3, 16), np.float32),
        }
        for i, observation in enumerate(observations):
            for key, ours in (("agent_pos", "state"), ("environment_state", "environment_state")):
                as_lerobot = observation[key].astype(np.float32)
                np.testing.assert_array_equal(seen[f"observation.{ours}"][i], as_lerobot, f"step {step}")
        towards = batch.pose[:, :2] + rng.normal(0, 60, (3, 2))
        actions = towards.astype(np.float32)
        coverage = batch.step(actions)
        results = [env.step(action) for env, action in zip(envs, actions, strict=True)]
        observations = [result[0] for result in results]
        assert coverage.tolist() == [result[-1]["coverage"] for result in results], f"step {step}"


def test_inactive_worlds_stay_as_they_are_and_their_actions_do_not_matter() -> None:
    both, second = batch_of(SEEDS[:2]), batch_of(SEEDS[1:2])
    before = both.agent[0].tolist(), both.pose[0].tolist(), both.coverage[0]
    for x in (100.0, 300.0, 200.0):
        both.step(np.array([[np.nan, np.nan], [x, x]]), np.array([False, True]))
        second.step(np.array([[x, x]]))
    assert (both.agent[0].tolist(), both.pose[0].tolist(), both.coverage[0]) == before
    assert both.agent[1].tolist() == second.agent[0].tolist()
    both.step(np.zeros((2, 2)), np.array([False, False]))
    assert both.agent[1].tolist() == second.agent[0].tolist()


def test_a_world_that_was_left_out_goes_on_where_it_was() -> None:
    paused, alone = batch_of(SEEDS[:2]), batch_of(SEEDS[1:2])
    for step in range(20):
        if step % 3 == 1:  # in full motion
            paused.step(np.zeros((2, 2)), np.array([True, False]))
        action = np.array([50.0 + 20 * step, 300.0])
        paused.step(np.stack([action, action]))
        alone.step(action[None])
        assert paused.agent[1].tolist() == alone.agent[0].tolist(), f"step {step}"
        assert paused.pose[1].tolist() == alone.pose[0].tolist(), f"step {step}"


def test_coverage_and_keypoints_are_those_of_the_pose_whether_the_block_moved_or_not() -> None:
    batch = batch_of(range(200000, 200020))
    rng = np.random.default_rng(0)
    n_moved = 0
    for step in range(100):
        before = batch.pose.copy()
        batch.step(rng.normal(batch.pose[:, :2], 60))
        n_moved += int((batch.pose != before).any(axis=1).sum())
        assert batch.coverage.tolist() == [coverage(*pose) for pose in batch.pose.tolist()], f"step {step}"
        keypoints = block_keypoints(batch.pose).astype(np.float32)
        np.testing.assert_array_equal(batch.observations()["observation.environment_state"], keypoints)
    assert 200 < n_moved < 1800


def test_a_batch_can_be_reset_to_another_size() -> None:
    batch, fresh = batch_of(SEEDS), PushTBatch()
    batch.step(np.full((3, 2), 256.0))
    for seeds in (SEEDS[:1], SEEDS[::-1]):
        batch.reset(seeds)
        fresh.reset(seeds)
        assert len(batch) == len(seeds)
        for target in (200.0, 400.0):
            actions = np.full((len(seeds), 2), target)
            assert batch.step(actions).tolist() == fresh.step(actions).tolist()
        np.testing.assert_array_equal(batch.agent, fresh.agent)
        np.testing.assert_array_equal(batch.pose, fresh.pose)


def test_wrong_shapes_and_values_are_refused() -> None:
    batch = batch_of(SEEDS)
    with pytest.raises(IlBenchError, match=r"3 worlds takes actions of shape \(3, 2\).*got \(2, 2\)"):
        batch.step(np.zeros((2, 2)))
    with pytest.raises(IlBenchError, match=r"active of shape \(3,\).*and \(2,\)"):
        batch.step(np.zeros((3, 2)), np.array([True, False]))
    with pytest.raises(IlBenchError, match=r"action must be finite, got \(nan, 0.0\)"):
        batch.step(np.array([[0.0, 0.0], [np.nan, 0.0], [0.0, 0.0]]))
