import math
import subprocess
import sys

import numpy as np
import pytest
import shapely
from hypothesis import example, given, settings
from hypothesis import strategies as st
from shapely import affinity

from il_bench.pusht import geometry
from il_bench.pusht.geometry import AREA, BAR, GOAL_POSE, OUTLINE, STEM, block_keypoints, coverage

Pose = tuple[float, float, float]
ANGLES = st.floats(-10.0, 10.0)
ANYWHERE = st.tuples(st.floats(-50, 560), st.floats(-50, 560), ANGLES)
NEAR_GOAL = st.tuples(
    st.floats(GOAL_POSE[0] - 8, GOAL_POSE[0] + 8),
    st.floats(GOAL_POSE[1] - 8, GOAL_POSE[1] + 8),
    st.floats(GOAL_POSE[2] - 0.1, GOAL_POSE[2] + 0.1),
)
POSES = st.one_of(ANYWHERE, NEAR_GOAL)


def tee(pose: Pose) -> shapely.Geometry:
    shape = shapely.union_all([shapely.Polygon(BAR), shapely.Polygon(STEM)])
    return affinity.translate(affinity.rotate(shape, pose[2], origin=(0, 0), use_radians=True), *pose[:2])


def compose(a: Pose, b: Pose) -> Pose:
    """`b`, given in the frame at `a`, in the world."""
    cos, sin = math.cos(a[2]), math.sin(a[2])
    return a[0] + cos * b[0] - sin * b[1], a[1] + sin * b[0] + cos * b[1], a[2] + b[2]


@settings(deadline=None)
@given(POSES)
@example((*GOAL_POSE[:2], GOAL_POSE[2] + math.pi / 2))
@example((*GOAL_POSE[:2], GOAL_POSE[2] + math.pi))
@example(compose(GOAL_POSE, (0.0, 30.0, 0.0)))
@example(compose(GOAL_POSE, (0.0, 30.0, 1e-9)))
@example(compose(GOAL_POSE, (120.0, 0.0, 0.0)))
@example(compose(GOAL_POSE, (0.0, -120.0, 0.0)))
def test_coverage_is_shapelys(pose: Pose) -> None:
    expected = tee(pose).intersection(tee(GOAL_POSE)).area / AREA
    assert abs(coverage(*pose) - expected) < 1e-12


@settings(deadline=None)
@given(POSES, ANYWHERE)
def test_coverage_is_a_share_symmetric_and_the_same_wherever_the_goal_is(pose: Pose, motion: Pose) -> None:
    covered = coverage(*pose)
    assert 0.0 <= covered <= 1.0
    assert abs(covered - coverage(*GOAL_POSE, goal=pose)) < 1e-12
    assert abs(covered - coverage(*compose(motion, pose), goal=compose(motion, GOAL_POSE))) < 1e-12
    assert abs(coverage(*motion, goal=motion) - 1.0) < 1e-12


def test_coverage_is_1_at_the_goal_and_full_turns_away() -> None:
    assert coverage(*GOAL_POSE) == 1.0
    for turns in (-2, -1, 1, 3):
        assert abs(coverage(*GOAL_POSE[:2], GOAL_POSE[2] + turns * 2 * math.pi) - 1.0) < 1e-12


@pytest.mark.parametrize(
    ("shift", "shared"),
    [
        ((0.0, 30.0), 30.0 * 60.0 + 30.0 * 30.0),  # the stem keeps 60 rows, the bar lies on the stem
        ((0.0, -120.0), 0.0),
        ((60.0, 0.0), 60.0 * 30.0),  # half of the bar; the stems are 60 apart
        ((0.0, 119.0), 30.0 * 1.0),  # one row: the stem's end in the bar
    ],
)
def test_coverage_of_shifts_worked_out_by_hand(shift: tuple[float, float], shared: float) -> None:
    pose = compose(GOAL_POSE, (*shift, 0.0))
    assert abs(coverage(*pose) - shared / 6300.0) < 1e-12


@pytest.mark.parametrize("corner", [0, 6])
def test_corners_that_only_just_meet_are_not_missed(corner: int) -> None:
    middle = np.array([0.0, 45.9375])  # of the circle through the corners
    outwards = np.array((BAR + STEM)[corner]) - middle
    x, y = 2 * middle + outwards * (2 - 1 / np.linalg.norm(outwards))  # 1 px deep, turned by half
    pose = compose(GOAL_POSE, (x, y, math.pi))
    expected = tee(pose).intersection(tee(GOAL_POSE)).area / AREA
    assert expected > 0
    assert abs(coverage(*pose) - expected) < 1e-12


def test_keypoints_of_many_poses_are_those_of_each() -> None:
    poses = np.random.default_rng(0).uniform(-10, 512, (1000, 3))
    np.testing.assert_array_equal(block_keypoints(poses), [block_keypoints(pose) for pose in poses])
    np.testing.assert_array_equal(
        block_keypoints(poses), [geometry.keypoints_at(*pose) for pose in poses.tolist()]
    )


def test_keypoints_keep_leading_dimensions_and_order() -> None:
    poses = np.array([[[10.0, 20.0, 0.0], [0.0, 0.0, math.pi / 2]]])
    keypoints = block_keypoints(poses)
    assert keypoints.shape == (1, 2, 16)
    at_rest = [-50, 20, 70, 20, 70, 50, -50, 50, -5, 50, 25, 50, 25, 140, -5, 140]
    assert keypoints[0, 0].tolist() == at_rest
    quarter_turn = [(-y, x) for x, y in BAR + STEM]
    np.testing.assert_allclose(keypoints[0, 1].reshape(8, 2), quarter_turn, atol=1e-13)
    assert block_keypoints((10.0, 20.0, 0.0)).shape == (16,)


def test_the_outline_is_that_of_the_two_boxes() -> None:
    assert shapely.Polygon(OUTLINE).equals(tee((0.0, 0.0, 0.0)))
    assert shapely.Polygon(OUTLINE).area == AREA


def test_the_task_needs_no_drawing_and_no_learning() -> None:
    heavy = {"pygame", "cv2", "gym_pusht", "shapely", "torch", "lerobot"}
    code = (
        "import sys, il_bench.pusht, il_bench.pusht.env\n"
        "il_bench.pusht.env.PushTEnv('environment_state_agent_pos').reset(seed=0)\n"
        "il_bench.pusht.Camera('observation.image', 96, 96)\n"
        f"sys.exit(', '.join(sorted({heavy} & set(sys.modules))) or 0)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, f"imported: {run.stderr}"
