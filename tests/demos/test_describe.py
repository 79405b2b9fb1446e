"""`il-bench demos describe`: numbers of a set worked out by hand, and the coverage after the last action."""

import json
from pathlib import Path

import numpy as np
import pytest

from il_bench.data import open_dataset
from il_bench.demos.describe import measure
from il_bench.demos.replay import coverage_at_ends
from il_bench.policies.expert import poses_of
from il_bench.protocol import SUCCESS_COVERAGE
from il_bench.pusht.expert import Expert
from il_bench.pusht.geometry import GOAL_POSE, block_keypoints
from il_bench.pusht.simulator import Simulator
from tests.demos.conftest import invoke


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """Three episodes of 3, 2 and 5 steps whose block nobody touches: at the goal twice, away from it once."""
    lengths, away = (3, 2, 5), (100.0, 400.0, 0.0)
    pose = np.repeat([GOAL_POSE, away, GOAL_POSE], lengths, axis=0)
    agent = np.full((10, 2), [400.0, 60.0])
    action = np.full((10, 2), [400.0, 60.0])
    action[1, 0] += 3.0  # 3 px there and back
    action[4, 1] += 4.0  # 4 px
    state = np.concatenate([agent, pose], axis=1)
    np.savez(tmp_path / "tiny.npz", action=action, state=state, episode_ends=np.cumsum(lengths))
    return tmp_path / "tiny.npz"


def test_numbers_of_a_set_worked_out_by_hand(tiny: Path) -> None:
    numbers = measure(open_dataset(tiny)).to_dict()
    assert (numbers["episodes"], numbers["frames"], numbers["left_out"]) == (3, 10, 0)
    assert numbers["length"] == {"mean": 10 / 3, "median": 3.0, "p95": pytest.approx(4.8), "max": 5}
    assert numbers["coverage_at_end"]["median"] == pytest.approx(1.0, abs=1e-6)
    assert numbers["coverage_at_end"]["p5"] == pytest.approx(0.1, abs=1e-6)
    assert numbers["share_above_0.95"] == pytest.approx(2 / 3)
    # 2 + 1 + 4 changes within episodes: 3, 3; 4; 0, 0, 0, 0
    assert numbers["action_change"]["mean"] == pytest.approx(10 / 7)
    assert numbers["action_change"]["p99"] == pytest.approx(3.94)
    assert numbers["action_range"] == [60.0, 403.0]


def test_the_command_prints_a_table_or_json_and_draws(tiny: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    table = invoke("describe", tiny, "--output", out)
    assert table.exit_code == 0, table.output
    assert "share above 0.95" in table.output and "0.667" in table.output
    assert (out / "demos.png").read_bytes().startswith(b"\x89PNG")
    printed = invoke("describe", tiny, "--json")
    assert json.loads(printed.stdout) == json.loads((out / "demos.json").read_text())


def test_bad_sources_are_named_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("IL_BENCH_HUMAN_DATA", raising=False)
    for source, message in (
        (str(tmp_path / "none"), "no such file or folder"),
        ("human", "IL_BENCH_HUMAN_DATA"),
    ):
        result = invoke("describe", source)
        assert (result.exit_code, result.output.count("\n")) == (2, 1), result.output
        assert message in result.output


def test_poses_come_back_from_keypoints() -> None:
    rng = np.random.default_rng(0)
    pose = np.stack([*rng.uniform(50, 450, (2, 20)), rng.uniform(-3.1, 3.1, 20)], axis=1)
    np.testing.assert_allclose(poses_of(block_keypoints(pose)), pose, atol=1e-9)


def test_the_last_action_is_executed() -> None:
    """Of an expert's episode, whose last step crosses the line, frames stop before it."""
    world, expert, frames = Simulator(), Expert(), []
    world.reset(4)
    while world.coverage() <= SUCCESS_COVERAGE:
        agent = np.array([world.agent_x, world.agent_y])
        pose = np.array([world.block_x, world.block_y, world.block_angle])
        frames.append((agent, block_keypoints(pose), expert.act(agent, pose)))
        world.step(*frames[-1][2].tolist())
    agents, keypoints, actions = (np.array(column) for column in zip(*frames, strict=True))
    ends = np.array([len(frames)])
    (covered,) = coverage_at_ends(agents, keypoints, actions, ends)
    assert covered == pytest.approx(world.coverage(), abs=0.01)
    assert covered > SUCCESS_COVERAGE
    actions[:10] += 20.0  # not those that were executed
    agents[-1] += 5.0
    (before,) = coverage_at_ends(agents, keypoints, actions, ends)
    assert before < SUCCESS_COVERAGE
