"""Every pixel of our frames is gym-pusht's."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gym_pusht.envs.pusht import PushTEnv as Reference

from il_bench.errors import IlBenchError
from il_bench.pusht import renderer
from il_bench.pusht.env import PushTEnv
from il_bench.pusht.geometry import GOAL_POSE
from il_bench.pusht.renderer import Renderer
from tests.pusht.test_against_gym_pusht import Actor, anywhere, push

HUMAN_DATA = os.environ.get("IL_BENCH_HUMAN_DATA")
VIDEO = 680
State = tuple[float, float, float, float, float]


def assert_same_pixels(ours: np.ndarray, theirs: np.ndarray, where: str) -> None:
    assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype), where
    different = np.argwhere((ours != theirs).any(axis=-1))
    for y, x in different:
        where = f"{where}: {len(different)} pixels differ, first (x={x}, y={y})"
        raise AssertionError(f"{where}: ours {ours[y, x]}, gym-pusht's {theirs[y, x]}")


def assert_same_episode(ours: PushTEnv, theirs: Reference, seed: int, act: Actor, n_steps: int) -> np.ndarray:
    """Compare every observation, and every fifth video frame; return the poses of agent and block (N, 5)."""
    rng = np.random.default_rng(seed)
    pixels, _ = ours.reset(seed=seed)
    reference, info = theirs.reset(seed=seed)
    poses = []
    for step in range(n_steps):
        assert_same_pixels(pixels, reference, f"seed {seed}, step {step}, observation")
        if step % 5 == 0:
            assert_same_pixels(ours.render(), theirs.render(), f"seed {seed}, step {step}, video")
        action = act(rng, info)
        pixels, *_ = ours.step(action)
        reference, *_, info = theirs.step(action)
        poses.append([*info["pos_agent"], *info["block_pose"]])
    return np.array(poses)


def beyond(rng: np.random.Generator, info: dict[str, Any]) -> np.ndarray:
    return rng.uniform(-600, 1100, 2).astype(np.float32)


@pytest.fixture(scope="module")
def drawn() -> Renderer:
    return Renderer()


@pytest.fixture(scope="module")
def reference() -> Reference:
    env = Reference()
    env.reset(seed=0)
    return env


def put(env: Reference, state: State, action: Any) -> None:
    """Have gym-pusht draw agent and block at these poses, without physics, and its last action."""
    env.agent.position = state[:2]
    env.block.angle = state[4]  # first the angle, which moves the block's position
    env.block.position = state[2:4]
    env._last_action = np.array(action, np.float32)
    for body in (env.agent, env.block):
        env.space.reindex_shapes_for_body(body)


def assert_same_frames(drawn: Renderer, env: Reference, where: str) -> None:
    """Compare what both draw of this world as an observation and as a video frame with its action."""
    agent, block = env.agent.position, (*env.block.position, env.block.angle)
    marks = drawn.contact_marks(env.space)
    screen = env._draw()
    assert_same_pixels(
        drawn.frame(agent, block, contacts=marks), env._get_img(screen, 96, 96), f"{where}, observation"
    )
    video = drawn.frame(agent, block, width=VIDEO, height=VIDEO, action=env._last_action, contacts=marks)
    assert_same_pixels(video, env._get_img(screen, VIDEO, VIDEO, render_action=True), f"{where}, video")


@pytest.mark.parametrize(("act", "n_steps"), [(anywhere, 25), (push, 40), (beyond, 20)])
def test_episodes(act: Actor, n_steps: int) -> None:
    ours, theirs = PushTEnv("pixels"), Reference("pixels")
    seeds = range(200000, 200003)
    poses = np.concatenate([assert_same_episode(ours, theirs, seed, act, n_steps) for seed in seeds])
    agents = poses[:, :2]
    if act is beyond:
        assert ((agents < 0) | (agents > 512)).any(axis=1).sum() > 10, "the agent should leave the picture"
    if act is push:
        assert len(np.unique(poses[:, 2:], axis=0)) > 60, "the block should be pushed"


POSES: dict[str, State] = {
    "goal": (100.0, 100.0, *GOAL_POSE),
    "agent in block on goal": (256.0, 290.0, *GOAL_POSE),
    "agent in block": (200.0, 230.0, 200.0, 200.0, 0.0),
    "halves": (20.5, 491.5, 100.5, 200.5, 0.0),  # are rounded to even numbers
    "walls": (6.0, 6.0, 500.0, 480.0, 1.0),
    "corner": (0.0, 512.0, 3.0, 508.0, 2.5),
    "half out": (-8.0, 250.0, 256.0, -40.0, 0.1),
    "edge": (-20.0, 250.0, 560.0, -40.0, 7.1),
    "out": (5000.0, -5000.0, 9000.0, 9000.0, -4.0),
}


@pytest.mark.parametrize("pose", POSES)
def test_poses(drawn: Renderer, reference: Reference, pose: str) -> None:
    put(reference, POSES[pose], [-3, 511.9])
    assert_same_frames(drawn, reference, pose)


def test_poses_all_over_the_picture_and_contacts_everywhere(drawn: Renderer, reference: Reference) -> None:
    rng = np.random.default_rng(0)
    n_marks = n_at_border = 0
    for n in range(40):
        middle = rng.uniform(-60, 572, 2)
        state = (*(middle + rng.uniform(-60, 60, 2)), *middle, rng.uniform(-10, 10))
        put(reference, state, rng.uniform(-20, 532, 2))
        reference.space.step(0.01)
        assert_same_frames(drawn, reference, f"pose {n}")
        marks = np.array(drawn.contact_marks(reference.space)).reshape(-1, 2)
        n_marks += len(marks) // 2
        n_at_border += int(((marks < 3) | (marks > 509)).any(axis=1).sum())
    assert n_marks > 30 and n_at_border > 3


@pytest.mark.parametrize(("width", "height"), [(512, 512), (96, 64), (120, 400), (1, 1)])
def test_other_sizes(drawn: Renderer, width: int, height: int) -> None:
    theirs = Reference("pixels_agent_pos", observation_width=width, observation_height=height)
    theirs.visualization_width, theirs.visualization_height = 2 * width, 2 * height
    pixels = theirs.reset(seed=9)[0]["pixels"]
    agent, block = theirs.agent.position, (*theirs.block.position, theirs.block.angle)
    assert_same_pixels(drawn.frame(agent, block, width=width, height=height), pixels, "observation")
    if min(width, height) > 1:  # where gym-pusht's marker is not 0 px thick
        theirs._last_action = np.array([130.0, 420.0])
        video = drawn.frame(agent, block, width=2 * width, height=2 * height, action=theirs._last_action)
        assert_same_pixels(video, theirs.render(), "video")


def test_a_frame_depends_on_nothing_drawn_before(drawn: Renderer) -> None:
    def first(size: int) -> np.ndarray:
        return drawn.frame((30, 20), (256, 300, 0.3), width=size, height=size)

    for size in (96, 512, VIDEO):
        frame = first(size)
        expected = frame.copy()
        marks = [((9, 9), (4, 4))]
        drawn.frame((256, 20), (20, 30, 2), width=size, height=size, action=(3, 4), contacts=marks)
        assert_same_pixels(frame, expected, "a frame handed out earlier")
        frame[:] = 0
        assert_same_pixels(first(size), expected, "the same arguments again")


@pytest.mark.parametrize("far", [1e5, -3e9, 1e300])
def test_what_is_out_of_sight_is_not_drawn(drawn: Renderer, far: float) -> None:
    """Coordinates are 32-bit integers in pygame and OpenCV; gym-pusht only complains and draws on."""
    empty = drawn.frame((-99, 9), (9, -999, 0), width=VIDEO, height=VIDEO, action=(-99, 9))
    frame = drawn.frame((9, far), (far, 9, 0), width=VIDEO, height=VIDEO, action=(9, far))
    assert_same_pixels(frame, empty, f"{far}")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"agent_xy": (1.0, np.nan)}, "agent_xy must be 2 finite numbers"),
        ({"agent_xy": (1.0, 2.0, 3.0)}, "agent_xy must be 2 finite numbers"),
        ({"block_pose": (1.0, 2.0)}, "block_pose must be 3 finite numbers"),
        ({"block_pose": None}, "block_pose must be 3 finite numbers, got None"),
        ({"action": (np.inf, 0.0)}, "action must be 2 finite numbers"),
        ({"contacts": [((0.0, 1.0), (0.0, np.nan))]}, "contacts must be 2 finite numbers"),
        ({"width": 0}, "at least 1 px wide and high, got width=0, height=96"),
    ],
)
def test_what_cannot_be_drawn_is_refused(drawn: Renderer, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(IlBenchError, match=message):
        drawn.frame(**{"agent_xy": (1.0, 2.0), "block_pose": (1.0, 2.0, 3.0)} | arguments)


def test_a_window_shows_the_same_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    ours, theirs = PushTEnv("pixels", render_mode="human"), Reference()
    pixels, _ = ours.reset(seed=4)
    theirs.reset(seed=4)
    try:
        shown = renderer.pygame.surfarray.array3d(renderer.pygame.display.get_surface()).transpose(1, 0, 2)
        assert_same_pixels(shown, theirs._get_img(theirs._draw(), 512, 512), "window")
        assert_same_pixels(pixels, theirs._render(), "observation")
    finally:
        ours.close()
    assert not renderer.pygame.display.get_init()


def test_drawing_needs_no_screen() -> None:
    program = """
import os, sys
from il_bench.pusht.env import PushTEnv
before = {**os.environ, "PYGAME_HIDE_SUPPORT_PROMPT": "1"}
env = PushTEnv("pixels")
assert env.reset(seed=0)[0].std() > 0 and env.render().std() > 0
assert not sys.modules["pygame"].display.get_init() and "gym_pusht" not in sys.modules
assert {k: v for k, v in os.environ.items() if k not in before} == {}, "what OpenCV sets for windows"
"""
    screens = ("SDL_VIDEODRIVER", "DISPLAY", "WAYLAND_DISPLAY")
    environment = {name: value for name, value in os.environ.items() if name not in screens}
    run = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert (run.returncode, run.stdout) == (0, ""), run.stderr


@pytest.mark.skipif(HUMAN_DATA is None, reason="IL_BENCH_HUMAN_DATA names no human data")
def test_the_original_camera_frames(drawn: Renderer) -> None:
    """Drawn by older libraries, which fill polygons otherwise, and with contacts that nobody recorded."""
    folder = Path(str(HUMAN_DATA))
    if not (folder / "human_frames.npz").exists():
        pytest.skip(f"{folder} has no human_frames.npz")
    frames = np.load(folder / "human_frames.npz")
    states = np.load(folder / "human_demos.npz")["state"][frames["index"]].astype(np.float64)
    ours = np.stack([drawn.frame(state[:2], state[2:]) for state in states])
    same = (ours == frames["image"]).all(axis=-1).mean(axis=(1, 2))
    assert len(same) == 206
    assert same.mean() >= 0.995, f"{same.mean():.2%} of the pixels are identical on average"


# That these comparisons would notice anything.


def test_one_pixel_is_noticed() -> None:
    class OnePixelOff(PushTEnv):
        n_frames = 0

        def _frame(self, *args: Any) -> np.ndarray:
            frame = super()._frame(*args)
            frame[17, 42, 1] ^= self.n_frames == 12
            self.n_frames += 1
            return frame

    with pytest.raises(AssertionError, match=r"seed 5, step 10, .*: 1 pixels differ, first \(x=42, y=17\)"):
        assert_same_episode(OnePixelOff("pixels"), Reference("pixels"), 5, anywhere, 15)


COLORS = ("_GOAL", "_BLOCK", "_BLOCK_FILL", "_AGENT", "_AGENT_FILL", "_WALL", "_CONTACT", "_ACTION")


def off_by_one(color: tuple[int, int, int]) -> tuple[int, int, int]:
    return color[0], color[1], color[2] ^ 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, off_by_one(getattr(renderer, name))) for name in COLORS),
        ("AGENT_RADIUS", 16.0),
        ("_EDGE_RADIUS", 3),
        ("_REACH", 0),
    ],
)
def test_one_changed_constant_is_noticed(
    monkeypatch: pytest.MonkeyPatch, reference: Reference, name: str, value: Any
) -> None:
    """In one frame: the agent over the block's edge, both over a wall."""
    put(reference, (30.0, 12.0, 72.0, 8.0, 0.05), [300.0, 300.0])
    reference.space.step(0.01)
    assert Renderer().contact_marks(reference.space)
    assert_same_frames(Renderer(), reference, "unchanged")
    monkeypatch.setattr(renderer, name, value)
    with pytest.raises(AssertionError, match=r"^changed, .* pixels differ"):
        assert_same_frames(Renderer(), reference, "changed")
