"""`il-bench demos build`: lerobot/pusht out of states, the same whatever interrupts it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lerobot.datasets.lerobot_dataset import LeRobotDataset

from il_bench.data import convert, open_dataset
from il_bench.demos import build as build_module
from il_bench.demos import pixels
from il_bench.demos.build import build_pixels
from il_bench.demos.states import States, read_states
from il_bench.errors import IlBenchError
from il_bench.pusht.geometry import block_keypoints, coverage
from il_bench.pusht.renderer import Renderer
from il_bench.pusht.simulator import Simulator
from il_bench.rollout import executors
from tests.demos.conftest import Played, column, contents, facts_of, invoke, opened
from tests.rollout.policies import LastFirst

# What meta/info.json of lerobot/pusht says of its features, but for what LeRobot adds to all data sets.
PUBLISHED = {
    "observation.image": ("video", (96, 96, 3), ["height", "width", "channel"]),
    "observation.state": ("float32", (2,), {"motors": ["motor_0", "motor_1"]}),
    "action": ("float32", (2,), {"motors": ["motor_0", "motor_1"]}),
    "next.reward": ("float32", (1,), None),
    "next.done": ("bool", (1,), None),
    "next.success": ("bool", (1,), None),
    "episode_index": ("int64", (1,), None),
    "frame_index": ("int64", (1,), None),
    "timestamp": ("float32", (1,), None),
    "index": ("int64", (1,), None),
    "task_index": ("int64", (1,), None),
}


def levels(dataset: LeRobotDataset) -> np.ndarray:
    """All images of a data set, (N, 96, 96, 3) uint8."""
    images = torch.stack([dataset[i]["observation.image"] for i in range(len(dataset))])
    return (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()


# --- what is in it ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["built", "filmed"])
def test_the_layout_is_that_of_lerobot_pusht(which: str, request: pytest.FixtureRequest) -> None:
    dataset = opened(request.getfixturevalue(which))
    kind = {"built": "image", "filmed": "video"}[which]
    found = {key: (f["dtype"], tuple(f["shape"]), f["names"]) for key, f in dataset.features.items()}
    assert found == PUBLISHED | {"observation.image": (kind, *PUBLISHED["observation.image"][1:])}
    assert (dataset.fps, dataset.meta.robot_type) == (10, "unknown")
    assert dataset[0]["task"] == "Push the T-shaped blue block onto the T-shaped green target surface."
    stats = dataset.meta.stats["observation.image"]
    assert stats["mean"].shape == (3, 1, 1) and (stats["mean"] > 0.8).all() and (stats["std"] > 0.01).all()


@pytest.mark.skipif(not hasattr(os, "sched_getscheduler"), reason="Linux")
def test_a_video_leaves_the_priority_of_the_process(source: Path, tmp_path: Path) -> None:
    before = os.sched_getscheduler(0)
    try:
        build_pixels(read_states(source), tmp_path / "filmed", video=True)
        assert (
            os.sched_getscheduler(0) == before
        )  # SVT-AV1 sets SCHED_FIFO, of the highest priority, for root
    finally:
        os.sched_setscheduler(0, before, os.sched_param(0))


def test_images_are_what_the_camera_saw_contacts_included(built: Path, played: Played) -> None:
    assert played.n_touching > 5
    seen = levels(opened(built))
    assert np.flatnonzero((seen != played.image).any(axis=(1, 2, 3))).tolist() == []


def test_numbers_are_the_recorded_ones_and_rewards_those_of_the_next_state(
    built: Path, played: Played
) -> None:
    dataset = opened(built)
    np.testing.assert_array_equal(column(dataset, "observation.state"), played.state[:, :2])
    np.testing.assert_array_equal(column(dataset, "action"), played.action)
    after = np.concatenate([played.state[1:14], played.state[13:14], played.state[15:], played.state[-1:]])
    covered = np.array([coverage(*pose) for pose in after[:, 2:].astype(float).tolist()])
    reward = np.clip(covered / 0.95, 0, 1)
    np.testing.assert_allclose(column(dataset, "next.reward"), reward, atol=1e-7)
    assert not column(dataset, "next.success").any()
    assert np.flatnonzero(column(dataset, "next.done")).tolist() == [13, 22]
    assert column(dataset, "index").tolist() == list(range(23))
    assert column(dataset, "episode_index").tolist() == [0] * 14 + [1] * 9


def test_a_video_shows_nearly_the_same_at_the_same_times(filmed: Path, played: Played) -> None:
    dataset = opened(filmed)
    shown, drawn = levels(dataset).astype(int), played.image.astype(int)
    off = np.abs(shown[:, None] - drawn[None]).mean(axis=(2, 3, 4))  # of each frame shown, from each drawn
    assert off.diagonal().max() < 4.0
    assert (
        np.median(np.abs(np.diff(drawn, axis=0)).mean(axis=(1, 2, 3))) > 0.3
    )  # a frame too early is noticed
    assert np.mean(off.argmin(axis=1) == np.arange(23)) > 0.8


def test_data_of_the_project_are_drawn_from_their_keypoints(two_solved: Path, tmp_path: Path) -> None:
    states = read_states(two_solved)
    root = build_pixels(states, tmp_path / "pixels")
    low, pixels = open_dataset(two_solved), open_dataset(root)
    for key in ("observation.state", "action", "next.reward", "next.success", "next.done", "timestamp"):
        np.testing.assert_array_equal(column(pixels, key), column(low, key), err_msg=key)
    assert column(pixels, "next.success")[-1] and states.reward_from.startswith("of the source")
    facts = facts_of(root)
    assert facts["episodes"][0]["seed"] == 3 and facts["parts"][0]["source"] == "expert-demos"
    world, renderer = Simulator(), Renderer()
    world.reset(3)
    images = levels(opened(root))
    first = low.meta.episodes["dataset_to_index"][0]
    for step, action in enumerate(column(low, "action")[:first].astype(float).tolist()):
        assert np.array_equal(images[step], renderer.view(world)), step
        world.step(*action)


# --- interruptions ----------------------------------------------------------------------------------------


class Killed(BaseException):
    """What nobody catches."""


def _after(n_calls: int, real: Callable[..., Any]) -> Callable[..., Any]:
    calls = []

    def dies(*args: Any, **kwargs: Any) -> Any:
        calls.append(args)
        if len(calls) > n_calls:
            raise Killed
        return real(*args, **kwargs)

    return dies


@pytest.mark.parametrize(
    ("where", "name", "n_calls", "n_kept"),
    [
        (pixels.LeRobotDataset, "add_frame", 17, 1),
        (pixels.LeRobotDataset, "save_episode", 1, 1),
        (pixels, "compact", 0, 2),
        (build_module, "join_episodes", 0, 1),
        (convert.LeRobotDatasetMetadata, "save_episode", 3, 2),
        (build_module.provenance, "write", 0, 2),
    ],
)
def test_killed_anywhere_it_goes_on_to_the_same_bytes(
    where: Any, name: str, n_calls: int, n_kept: int, built: Path, source: Path, tmp_path: Path
) -> None:
    output, states = tmp_path / "pixels", read_states(source)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(where, name, _after(n_calls, getattr(where, name)))
        with pytest.raises(Killed):
            build_pixels(states, output)
    assert not output.exists()
    if name == "join_episodes":  # and one of the finished episodes is damaged
        (data,) = (tmp_path / "pixels.partial" / "episode-000001").glob("data/*/*.parquet")
        data.write_bytes(data.read_bytes()[:-50])
    done: list[tuple[int, int]] = []
    build_pixels(states, output, on_progress=lambda n, total: done.append((n, total)))
    assert done[0] == (n_kept, 2) and done[-1] == (2, 2)
    assert contents(output) == contents(built)
    assert [path.name for path in tmp_path.iterdir()] == ["pixels"]


def test_an_executor_that_is_added_makes_the_same_files(
    built: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executors, "choose", lambda *_: LastFirst())
    assert contents(build_pixels(read_states(source), tmp_path / "pixels")) == contents(built)


def test_the_same_call_again_changes_nothing_and_another_is_refused(
    source: Path, played: Played, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, states = tmp_path / "pixels", read_states(source)
    build_pixels(states, output)
    before = contents(output)
    monkeypatch.setattr(pixels, "Drawer", None)
    assert build_pixels(states, output) == output
    with pytest.raises(IlBenchError, match=r"was made by another command \(images was 'image', is 'vi"):
        build_pixels(states, output, video=True)
    assert contents(output) == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear ..")
    with pytest.raises(IlBenchError, match=r"mine: exists already and was not made by this command"):
        build_pixels(states, tmp_path / "mine")


def test_too_little_room_is_said_before_anything_is_written(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build_module, "_BYTES_IMAGE", 10**15)
    with pytest.raises(IlBenchError, match=r"MB are free and this takes about 69000000000 MB"):
        build_pixels(read_states(source), tmp_path / "pixels")
    assert list(tmp_path.iterdir()) == []


# --- sources ----------------------------------------------------------------------------------------------


def keypoint_copy(states: States, output: Path, **changed: np.ndarray | None) -> Path:
    """The states as a data set of keypoints, some of its columns changed."""
    columns = {
        "observation.state": states.agent,
        "observation.environment_state": block_keypoints(states.pose).astype(np.float32),
        "action": states.action,
        "next.reward": states.reward,
        "next.done": np.isin(np.arange(len(states.pose)), states.episode_ends - 1),
        "next.success": states.success,
        **convert.place_columns(states.episode_ends),
    }
    columns |= {f"next.{key}": values for key, values in changed.items()}
    kept = {key: values for key, values in columns.items() if values is not None}
    with pytest.MonkeyPatch.context() as patch:
        wanted = {key: value for key, value in convert.FEATURES.items() if key in kept}
        patch.setattr(convert, "FEATURES", wanted)
        convert.write_columns(kept, states.episode_ends, output)
    return output


def test_rewards_are_of_the_source_or_computed_but_never_wrong(source: Path, tmp_path: Path) -> None:
    states = read_states(source)
    without = read_states(keypoint_copy(states, tmp_path / "without", reward=None, success=None))
    assert without.reward_from.startswith("computed")
    np.testing.assert_allclose(without.reward, states.reward, atol=1e-4)
    last = states.reward.copy()
    last[-1] = 0.75  # after the last action, which only the source knows
    kept = read_states(keypoint_copy(states, tmp_path / "kept", reward=last))
    assert kept.reward_from.startswith("of the source") and kept.reward[-1] == np.float32(0.75)
    for name, frame, value, said in (
        ("reward", 3, states.reward[3] + 0.01, r"next\.reward is .* at frame 3, but the block's pose"),
        ("reward", 3, np.nan, r"next\.reward is nan at frame 3"),
        ("success", -1, True, r"next\.success is True at frame 22"),
    ):
        wrong = getattr(states, name).copy()
        wrong[frame] = value
        with pytest.raises(IlBenchError, match=said):
            read_states(keypoint_copy(states, tmp_path / f"{name} {value}", **{name: wrong}))


def test_what_cannot_be_drawn_is_named_in_one_line(built: Path, source: Path, tmp_path: Path) -> None:
    for arguments, message in (
        (["--from", built], "no feature observation.environment_state, and only keypoints say where"),
        (["--from", tmp_path / "nothing"], "no such file or folder"),
        (["--from", source, "--track", "keypoints"], "--track keypoints: only pixels have to be drawn"),
        (["--from", source, "--frames", source], "not a .npz with the arrays index and image"),
    ):
        result = invoke("build", *arguments, "--output", tmp_path / "out")
        assert result.exit_code == 2, result.output
        assert message in result.output and result.output.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


# --- the command -------------------------------------------------------------------------------------------


def test_the_command_says_what_it_takes_and_what_came_out(
    source: Path, played: Played, built: Path, tmp_path: Path
) -> None:
    frames = played.save_frames(tmp_path / "frames.npz")
    output = tmp_path / "pixels"
    command = ("build", "--track", "pixels", "--from", source, "--frames", frames, "--output", output)
    result = invoke(*command)
    assert result.exit_code == 0, result.output
    assert "MB of disk while written" in result.output
    assert "Reward and success are computed from the block's poses" in result.output
    assert "demonstrations: 2 of 2 episodes" in result.output
    findings = "100.000% of the pixels of 5 frames identical on average"
    assert findings in result.output
    assert contents(output) == contents(built)
    again = invoke(*command)
    assert "exists already, made by the same command" in again.output
    assert findings in again.output and "demonstrations: " not in again.output


def _build(source: Path, output: Path, *options: str) -> subprocess.Popen[bytes]:
    program = Path(sys.executable).with_name("il-bench")
    arguments = ["demos", "build", "--from", str(source), "--output", str(output), *options]
    return subprocess.Popen([program, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


@pytest.mark.slow
def test_a_process_killed_twice_gives_what_two_workers_give(
    source: Path, built: Path, tmp_path: Path
) -> None:
    output, partial = tmp_path / "pixels", tmp_path / "pixels.partial"
    for wanted in ("episode-000000", "episode-000001.partial"):
        process = _build(source, output)
        while process.poll() is None and not (partial / wanted).exists():
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    process = _build(source, output)
    said, _ = process.communicate()
    assert process.returncode == 0, said
    assert contents(output) == contents(built)
    assert contents(build_pixels(read_states(source), tmp_path / "team", workers=2)) == contents(built)
