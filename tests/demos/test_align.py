"""`il-bench demos align`: the same demonstrations, each ending at the goal, and their mirror images."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from il_bench.data import open_dataset
from il_bench.demos.align import aligned, mirrored
from il_bench.demos.describe import measure
from il_bench.demos.replay import _put
from il_bench.policies.expert import poses_of
from il_bench.pusht.simulator import Simulator
from tests.demos.conftest import column, facts_of, invoke


@pytest.fixture(scope="module")
def near(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three of the expert's demonstrations, as a replay buffer."""
    dataset = open_dataset("expert")
    ends = dataset.meta.episodes["dataset_to_index"][:3]
    keypoints = column(dataset, "observation.environment_state", np.float64)[: ends[-1]]
    agent, action = (column(dataset, key)[: ends[-1]] for key in ("observation.state", "action"))
    path = tmp_path_factory.mktemp("near") / "near.npz"
    state = np.concatenate([agent, poses_of(keypoints)], axis=1)
    np.savez(path, state=state, action=action, episode_ends=np.array(ends))
    return path


def distances(source: Path) -> np.ndarray:
    """Of the agent to the block's keypoints, (N, 8), sorted: what neither motion nor mirror changes."""
    dataset = open_dataset(source)
    agent, keypoints = column(dataset, "observation.state"), column(dataset, "observation.environment_state")
    return np.sort(np.linalg.norm(keypoints.reshape(-1, 8, 2) - agent[:, None], axis=2), axis=1)


def test_demonstrations_end_at_the_goal_and_are_the_same_seen_from_their_block(
    near: Path, tmp_path: Path
) -> None:
    output = tmp_path / "aligned"
    result = invoke("align", near, "--mirror", "--output", output)
    assert result.exit_code == 0, result.output
    before, dataset = open_dataset(near), open_dataset(output)
    assert f"6 episodes, {2 * before.num_frames} frames" in result.output
    assert measure(before).coverage.max() < 0.98
    np.testing.assert_allclose(measure(dataset).coverage, 1.0, atol=1e-3)
    np.testing.assert_allclose(distances(output), np.tile(distances(near), (2, 1)), atol=1e-3)
    (part,) = facts_of(output)["parts"]
    assert (part["source"], part["n_episodes"]) == ("near.npz", 6)


@pytest.mark.parametrize("move", [mirrored, partial(aligned, last=np.array([240.0, 262.0, 1.0]))])
def test_the_simulator_does_with_a_moved_demonstration_what_it_did_before(
    move: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]],
) -> None:
    start = np.array([[150.0, 250.0, 256.0, 200.0, 0.3]])
    actions = np.stack([np.linspace(150, 270, 20), np.linspace(250, 290, 20)], axis=1)
    state = pushed(start[0], actions)
    assert np.abs(state - start)[:, 2:4].max() > 5.0
    moved_start, moved_actions = move(start, actions)
    np.testing.assert_allclose(pushed(moved_start[0], moved_actions), move(state, actions)[0], atol=1e-6)


def pushed(start: np.ndarray, actions: np.ndarray) -> np.ndarray:
    """The state (1, 5) after actions (T, 2) from the state `start` (5,)."""
    world = Simulator()
    _put(world, start[:2], np.zeros(2), start[2:])
    for action in actions.tolist():
        world.step(*action)
    return np.array([[world.agent_x, world.agent_y, world.block_x, world.block_y, world.block_angle]])


def test_nothing_is_overwritten(near: Path, tmp_path: Path) -> None:
    result = invoke("align", near, "--output", tmp_path)
    assert result.exit_code == 2
    assert f"{tmp_path}: exists already; give another --output" in result.stderr
