"""The expert and what it plans with: pushes, ways, search."""

import math
import warnings

import gymnasium
import numpy as np
import pytest
import shapely
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from il_bench.pusht import planner, travel
from il_bench.pusht.expert import Expert, point_ahead
from il_bench.pusht.geometry import GOAL_POSE, OUTLINE, coverage, into_frame, out_of_frame, signed_distance
from il_bench.pusht.pushes import pushes
from il_bench.pusht.simulator import AGENT_RADIUS, Simulator

VALIDATION = 100_000
places = st.floats(0.0, 512.0)
angles = st.floats(-math.pi, math.pi)


def agent_of(simulator: Simulator) -> NDArray[np.float64]:
    return np.array([simulator.agent_x, simulator.agent_y])


def pose_of(simulator: Simulator) -> NDArray[np.float64]:
    return np.array([simulator.block_x, simulator.block_y, simulator.block_angle])


def episode(simulator: Simulator, expert: Expert) -> tuple[bool, NDArray[np.float64]]:
    """Run the expert from where the simulator stands: solved?, and its actions (T, 2)."""
    expert.reset()
    actions = []
    for _ in range(300):
        actions.append(expert.act(agent_of(simulator), pose_of(simulator)))
        simulator.step(*actions[-1].tolist())
        if simulator.coverage() > 0.95:
            return True, np.array(actions)
    return False, np.array(actions)


def test_the_expert_solves_every_start_with_smooth_actions_inside_the_world() -> None:
    simulator, expert = Simulator(), Expert()
    lengths, changes = [], []
    for seed in range(VALIDATION, VALIDATION + 25):
        simulator.reset(seed)
        solved, actions = episode(simulator, expert)
        assert solved, seed
        assert ((actions >= 0) & (actions <= 512)).all(), seed
        lengths.append(len(actions))
        changes.append(np.linalg.norm(np.diff(actions, axis=0), axis=1))
    assert np.mean(lengths) < 110
    change = np.concatenate(changes)
    assert np.median(change) < 20
    assert change.max() < 75  # the change to another way, at most the targets' distances from the agent


def test_the_expert_goes_on_from_anywhere() -> None:
    """Also with the agent on top of the block, and from where random actions led."""
    rng = np.random.default_rng(0)
    simulator, expert = Simulator(), Expert()
    solved = []
    for seed in range(VALIDATION, VALIDATION + 15):
        simulator.reset(seed)
        for target in np.repeat(rng.uniform(0, 512, (6, 2)), 6, axis=0).tolist():
            simulator.step(*target)
        solved.append(episode(simulator, expert)[0])
    simulator.set_state([300.0, 300.0, 300.0, 280.0, 0.3])
    solved.append(episode(simulator, expert)[0])
    assert all(solved)


def test_the_same_state_gets_the_same_answer() -> None:
    agent, pose = np.array([100.0, 120.0]), np.array([300.0, 260.0, 2.0])
    expert = Expert()
    first = expert.act(agent, pose)
    for _ in range(5):
        expert.act(agent + 3.0, pose)
    expert.reset()
    assert (expert.act(agent, pose) == first).all()
    assert (Expert().act(agent, pose) == first).all()


@pytest.mark.slow
def test_the_expert_solves_the_validation_seeds_in_gym_pusht_itself() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import gym_pusht  # noqa: F401  (registers the environment)

        env = gymnasium.make("gym_pusht/PushT-v0", obs_type="state")
    expert, world = Expert(), env.unwrapped
    solved = 0
    for seed in range(VALIDATION, VALIDATION + 200):
        env.reset(seed=seed)
        expert.reset()
        for _ in range(300):
            pose = np.array([*world.block.position, world.block.angle])
            done = env.step(expert.act(np.array(world.agent.position), pose))[2]
            if done:
                solved += 1
                break
    assert solved >= 199


@given(places, places, angles, places, places)
def test_frames_are_inverse(x: float, y: float, angle: float, u: float, v: float) -> None:
    pose = np.array([x, y, angle])
    assert out_of_frame(into_frame([u, v], pose), pose) == pytest.approx([u, v], abs=1e-9)


@given(st.floats(-150, 150), st.floats(-100, 220))
def test_distance_from_the_t_is_shapelys(x: float, y: float) -> None:
    polygon, point = shapely.Polygon(OUTLINE), shapely.Point(x, y)
    distance = signed_distance([x, y])
    if polygon.contains(point):
        assert distance <= 0
    else:
        assert distance == pytest.approx(polygon.distance(point), abs=1e-9)


@settings(max_examples=25)
@given(st.integers(0, 10**6), places, angles)
def test_a_push_does_what_the_table_says_at_any_pose(pick: int, place: float, angle: float) -> None:
    """Away from the walls, in the simulator, within 1.5 px of every corner."""
    table = pushes()
    push = pick % len(table.gate)
    gate, direction = table.gates[table.gate[push]], table.directions[table.gate[push]]
    x, y = 216.0 + 80.0 * place / 512.0, 256.0
    simulator = Simulator()
    simulator.set_state([500.0, 500.0, x, y, angle])
    pose = pose_of(simulator)
    start, end = out_of_frame(np.stack([gate, gate + table.length[push] * direction]), pose)
    corners = out_of_frame(np.array(OUTLINE), pose)
    expected = out_of_frame(out_of_frame(np.array(OUTLINE), table.motion[push]), pose)
    reach = np.concatenate([corners, expected, start[None], end[None]])
    assume(np.abs(reach - 256.0).max() < 235.0)  # no wall in the way
    simulator.agent.position = tuple(start)
    simulator.agent_x, simulator.agent_y = start.tolist()
    for _ in range(40):
        simulator.step(*point_ahead(np.stack([start, end]), agent_of(simulator), 30.0).tolist())
    assert np.abs(out_of_frame(np.array(OUTLINE), pose_of(simulator)) - expected).max() < 1.5


@given(places, places, places, places, angles)
def test_a_way_around_the_block_keeps_clear_of_it(
    x: float, y: float, u: float, v: float, angle: float
) -> None:
    start = into_frame([x, y], [u, v, angle])
    assume(signed_distance(start) >= AGENT_RADIUS)
    open_turns = np.ones(len(travel.TURNS), np.bool_)
    lengths = travel.to_gates(start, open_turns)
    for gate in np.flatnonzero(np.isfinite(lengths))[::7]:
        points = np.concatenate([start[None], travel.way(start, pushes().gates[gate], open_turns)])
        steps = np.linalg.norm(np.diff(points, axis=0), axis=1)
        assert steps.sum() == pytest.approx(lengths[gate], abs=1e-6)
        assert (points[-1] == pushes().gates[gate]).all()
        dense = shapely.LineString(points).segmentize(1.0)
        assert signed_distance(shapely.get_coordinates(dense)).min() > AGENT_RADIUS - 1.0


@given(st.floats(-6, 6), st.floats(-6, 6), st.floats(-0.06, 0.06))
def test_first_order_coverage_is_close_near_the_goal(dx: float, dy: float, turn: float) -> None:
    pose = np.array([GOAL_POSE[0] + dx, GOAL_POSE[1] + dy, GOAL_POSE[2] + turn])
    assert planner.nearly_covered(pose[None])[0] == pytest.approx(coverage(*pose.tolist()), abs=0.02)


def test_distance_from_the_goal_is_the_corners_rms() -> None:
    pose = np.array([200.0, 300.0, 2.5])
    corners = np.array(OUTLINE)
    away = out_of_frame(corners, pose) - out_of_frame(corners, np.array(GOAL_POSE))
    assert planner.rms_distance(pose) == pytest.approx(math.sqrt((away**2).sum(axis=1).mean()))
    assert planner.rms_distance(np.array(GOAL_POSE)) == pytest.approx(0.0, abs=1e-6)


def test_the_point_ahead_follows_the_way_and_ends_at_its_end() -> None:
    way = np.array([[0.0, 0.0], [100.0, 0.0], [100.0, 50.0]])
    assert point_ahead(way, np.array([0.0, 3.0]), 45.0) == pytest.approx([14.0, 0.0])
    assert point_ahead(way, np.array([80.0, 0.0]), 45.0) == pytest.approx([100.0, 25.0])
    assert point_ahead(way, np.array([100.0, 40.0]), 45.0) == pytest.approx([100.0, 50.0])
