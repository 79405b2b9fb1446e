"""A replay buffer becomes LeRobot's dataset, once."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pymunk
import pytest
from gym_pusht.envs.pusht import PushTEnv, pymunk_to_shapely
from lerobot.datasets.lerobot_dataset import LeRobotDataset

from il_bench.data import convert, open_dataset
from il_bench.errors import IlBenchError
from tests.data.conftest import LENGTHS, frames_of, make_buffer, save_npz, save_zarr


def test_frames_of_a_replay_buffer_come_back_unchanged(tmp_path: Path) -> None:
    buffer = make_buffer()
    dataset = open_dataset(save_npz(tmp_path))
    frames = frames_of(dataset)
    assert dataset.fps == 10
    assert (dataset.num_episodes, dataset.num_frames) == (len(LENGTHS), sum(LENGTHS))
    np.testing.assert_array_equal(frames["action"], buffer.action)
    np.testing.assert_array_equal(frames["observation.state"], buffer.state[:, :2])
    np.testing.assert_array_equal(frames["episode_index"], np.repeat(np.arange(4), LENGTHS))
    np.testing.assert_array_equal(frames["frame_index"], np.concatenate([np.arange(n) for n in LENGTHS]))
    np.testing.assert_array_equal(np.flatnonzero(frames["next.done"]), buffer.episode_ends - 1)
    assert dataset[0]["task"] == "Push the T-shaped blue block onto the T-shaped green target surface."


def test_keypoints_reward_and_success_are_gym_pushts(tmp_path: Path) -> None:
    buffer = make_buffer()
    buffer.state[3, 2:] = 256.0, 256.0, np.pi / 4  # on the goal
    frames = frames_of(open_dataset(save_npz(tmp_path, state=buffer.state)))
    goal = PushTEnv.get_goal_pose_body(np.array([256, 256, np.pi / 4]))
    covered = []
    for frame, (x, y, angle) in enumerate(buffer.state[:, 2:].astype(float)):
        block, shapes = PushTEnv.add_tee(pymunk.Space(), (x, y), angle)
        expected = PushTEnv.get_keypoints(shapes).flatten().astype(np.float32)
        np.testing.assert_array_equal(frames["observation.environment_state"][frame], expected)
        goal_area = pymunk_to_shapely(goal, shapes)
        covered.append(goal_area.intersection(pymunk_to_shapely(block, shapes)).area / goal_area.area)
    # A frame's reward is that of the next state; an episode's last frame has no next and repeats its own.
    following = [min(frame + 1, end - 1) for end, n in zip(buffer.episode_ends, LENGTHS, strict=True)
                 for frame in range(end - n, end)]  # fmt: skip
    reward = np.clip(np.array(covered) / 0.95, 0, 1)[following]
    np.testing.assert_allclose(frames["next.reward"], reward, atol=3e-8)
    np.testing.assert_array_equal(np.flatnonzero(frames["next.success"]), [2])


def test_files_are_those_of_lerobots_own_writer(tmp_path: Path) -> None:
    buffer = make_buffer()
    columns = convert.frame_columns(buffer)
    theirs = LeRobotDataset.create(
        "local/ours", 10, convert.FEATURES, tmp_path / "theirs", "2d pointer", False, video_backend="pyav"
    )
    for start, end in zip([0, *buffer.episode_ends[:-1]], buffer.episode_ends, strict=True):
        for i in range(start, end):
            values = {key: np.asarray(columns[key][i]) for key in convert.FEATURES}
            frame = {key: v.reshape(convert.FEATURES[key]["shape"]) for key, v in values.items()}
            theirs.add_frame(frame | {"task": convert.TASK})
        theirs.save_episode()
    theirs.finalize()
    convert.write_dataset(buffer, tmp_path / "ours")
    for file in (path for path in (tmp_path / "theirs").rglob("*") if path.is_file()):
        ours = tmp_path / "ours" / file.relative_to(tmp_path / "theirs")
        if file.suffix == ".json":
            assert ours.read_text() == file.read_text(), file
        else:
            assert pq.read_table(ours).equals(pq.read_table(file)), file
            assert pq.read_metadata(ours).num_row_groups == pq.read_metadata(file).num_row_groups, file


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_zarr_and_npz_give_one_dataset(tmp_path: Path, zarr_format: int) -> None:
    from_zarr = open_dataset(save_zarr(tmp_path, make_buffer(), zarr_format))
    (tmp_path / "npz").mkdir()
    from_npz = open_dataset(tmp_path / "npz" if save_npz(tmp_path / "npz") else "")
    assert from_zarr.root == from_npz.root  # found in the cache by its content
    np.testing.assert_array_equal(frames_of(from_zarr)["action"], make_buffer().action)


def test_conversion_runs_once_and_again_when_the_cache_is_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    write = convert.write_dataset
    monkeypatch.setattr(convert, "write_dataset", lambda *args: (calls.append(args), write(*args)))
    source = save_npz(tmp_path)
    with ThreadPoolExecutor(2) as pool:  # both find the cache empty
        first, second = pool.map(lambda _: open_dataset(source, cache_dir=tmp_path / "cache"), range(2))
    assert len(calls) == 1
    assert first.root == second.root
    next(first.root.glob("data/*/*.parquet")).write_bytes(b"gone")
    again = open_dataset(source, cache_dir=tmp_path / "cache")
    assert len(calls) == 2
    np.testing.assert_array_equal(frames_of(again)["action"], make_buffer().action)


def test_an_interrupted_conversion_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, cache = save_npz(tmp_path), tmp_path / "cache"
    stats, calls = convert.compute_episode_stats, []

    def interrupted(*args: Any) -> Any:
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return stats(*args)

    monkeypatch.setattr(convert, "compute_episode_stats", interrupted)
    with pytest.raises(KeyboardInterrupt):
        open_dataset(source, cache_dir=cache)
    assert [path.name for path in (cache / "datasets").iterdir() if path.is_dir()] == []
    assert open_dataset(source, cache_dir=cache).num_frames == sum(LENGTHS)


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file, not a folder")
    with pytest.raises(IlBenchError, match=r"cache.*cannot be written.*IL_BENCH_CACHE"):
        open_dataset(save_npz(tmp_path), cache_dir=tmp_path / "cache")


def test_what_failed_to_be_written_is_not_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LeRobot would, when it is collected; at the end of the process Arrow then aborts."""

    def full(*_: object) -> None:
        raise OSError("no space")

    with (
        pytest.raises(KeyError, match="first"),
        convert.new_metadata(tmp_path / "new", convert.FEATURES, "2d pointer") as meta,
    ):
        monkeypatch.setattr(meta, "_close_writer", full)
        raise KeyError("first")
    meta.finalize()
