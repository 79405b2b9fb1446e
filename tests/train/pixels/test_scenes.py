"""Scenes are what their generator makes of them, and their targets are true."""

import numpy as np
import pytest
import torch

from il_bench.pusht.geometry import block_keypoints, into_frame, signed_distance
from il_bench.train.pixels.scenes import AGENT, KEYPOINTS, N_TARGETS, Scenes, distance_to_goal, targets


@pytest.fixture(scope="module")
def batch() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return Scenes().batch(np.random.default_rng([7, 0]), 60)


def test_a_batch_depends_on_its_generator_alone(batch) -> None:
    again = Scenes().batch(np.random.default_rng([7, 0]), 60)
    assert all(np.array_equal(one, two) for one, two in zip(batch, again, strict=True))
    other = Scenes().batch(np.random.default_rng([7, 1]), 60)
    assert not np.array_equal(batch[2], other[2])


def test_the_second_half_is_near_the_goal_and_no_agent_deep_in_the_block(batch) -> None:
    images, agents, poses = batch
    assert images.shape == (60, 96, 96, 3)
    assert np.median(distance_to_goal(poses[30:])) < 40 < np.median(distance_to_goal(poses[:30]))
    gaps = [float(signed_distance(into_frame(a, p))) for a, p in zip(agents, poses, strict=True)]
    assert min(gaps) > 11
    assert 0.2 < np.mean(np.array(gaps) < 18) < 0.8  # many touch it: the agent's radius is 15


def test_targets_tell_the_agent_and_the_corners(batch) -> None:
    _, agents, poses = batch
    said = targets(agents, poses)
    assert said.shape == (60, N_TARGETS)
    assert said.abs().max() <= 1.5
    np.testing.assert_allclose((said[:, AGENT] + 1) * 256, agents, atol=1e-3)
    np.testing.assert_allclose((said[:, KEYPOINTS] + 1) * 256, block_keypoints(poses), atol=1e-3)
    assert torch.isfinite(said).all()
