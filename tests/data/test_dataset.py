"""Demonstrations: every source gives the same LeRobotDataset, windows are LeRobot's, bad input is named."""

import json
import os
import shutil
import socket
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pymunk
import pytest
import torch
from gym_pusht.envs.pusht import PushTEnv, pymunk_to_shapely
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from lerobot.datasets import dataset_metadata
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from torch.utils.data import default_collate

from il_bench.data import Windows, convert, open_dataset
from il_bench.data.lerobot_folder import open_folder
from il_bench.data.replay_buffer import ReplayBuffer
from il_bench.errors import IlBenchError

LENGTHS = (5, 1, 3, 9)


@pytest.fixture(scope="module", autouse=True)
def _on_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No network, and no files outside the temporary folder."""

    def offline(*_: Any, **__: Any) -> Any:
        raise socket.gaierror("no network here")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", offline)
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("huggingface"))
        patch.setenv("IL_BENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def make_buffer(lengths: Sequence[int] = LENGTHS, seed: int = 0) -> ReplayBuffer:
    rng = np.random.default_rng(seed)
    n = sum(lengths)
    near_goal = rng.normal([256, 256, np.pi / 4], [20, 20, 0.3], (n, 3))
    state = np.concatenate([rng.uniform(20, 490, (n, 2)), near_goal], axis=1)
    action = rng.uniform(0, 512, (n, 2))
    return ReplayBuffer(action.astype(np.float32), state.astype(np.float32), np.cumsum(lengths))


def arrays_of(buffer: ReplayBuffer) -> dict[str, np.ndarray]:
    return {"action": buffer.action, "state": buffer.state, "episode_ends": buffer.episode_ends}


def save_npz(folder: Path, **changed: np.ndarray | None) -> Path:
    arrays = {**arrays_of(make_buffer()), **changed}
    np.savez_compressed(folder / "demos.npz", **{k: v for k, v in arrays.items() if v is not None})
    return folder / "demos.npz"


def save_zarr(folder: Path, buffer: ReplayBuffer, zarr_format: int = 2) -> Path:
    zarr = pytest.importorskip("zarr")
    root = zarr.open_group(folder / "demos.zarr", mode="w", zarr_format=zarr_format)
    for name, place in (("action", "data"), ("state", "data"), ("episode_ends", "meta")):
        array = arrays_of(buffer)[name]
        root.create_array(f"{place}/{name}", data=array, chunks=(7, *array.shape[1:]))
    return folder / "demos.zarr"


def frames_of(dataset: LeRobotDataset) -> dict[str, np.ndarray]:
    table = dataset.hf_dataset.with_format("numpy")[:]
    return {key: np.asarray(table[key]) for key in dataset.features}


def assert_same_batch(got: dict[str, Any], expected: dict[str, Any]) -> None:
    assert list(got) == list(expected)
    for key, value in expected.items():
        if isinstance(value, torch.Tensor):
            assert got[key].dtype == value.dtype, key
            assert got[key].shape == value.shape, key
            assert torch.equal(got[key], value), key
        else:
            assert got[key] == value, key


def check_windows(
    dataset: LeRobotDataset, deltas: dict[str, list[float]], episodes: list[int] | None, indices: list[int]
) -> None:
    reference = LeRobotDataset(
        dataset.repo_id, dataset.root, episodes=episodes, delta_timestamps=deltas, video_backend="pyav"
    )
    windows = Windows(dataset, deltas, episodes)
    assert len(windows) == len(reference.hf_dataset)
    indices = [index % len(windows) for index in indices]
    assert_same_batch(windows.batch(torch.tensor(indices)), default_collate([reference[i] for i in indices]))


# --- conversion -----------------------------------------------------------------------------------------


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
    with pytest.raises(IlBenchError, match=r"cache.*cannot keep.*IL_BENCH_CACHE"):
        open_dataset(save_npz(tmp_path), cache_dir=tmp_path / "cache")


# --- windows --------------------------------------------------------------------------------------------

OBSERVATIONS = ["observation.state", "observation.environment_state"]
KEYS = [*OBSERVATIONS, "action", "next.reward", "next.done", "timestamp", "frame_index", "index"]
OFFSETS = st.lists(st.integers(-12, 12).map(lambda n: n / 10), min_size=1, max_size=6)
DELTAS = st.dictionaries(st.sampled_from(KEYS), OFFSETS, max_size=4)
# A failing case is small as it is; shrinking one that opens datasets takes minutes.
PHASES = (Phase.explicit, Phase.reuse, Phase.generate)
INDICES = st.lists(st.integers(0, 10_000), min_size=1, max_size=8)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> LeRobotDataset:
    return open_dataset(save_npz(tmp_path_factory.mktemp("small")))


@settings(max_examples=15, deadline=None, phases=PHASES)
@given(
    deltas=DELTAS, indices=INDICES, episodes=st.none() | st.lists(st.integers(0, 3), min_size=1, max_size=5)
)
def test_windows_are_lerobots(
    small: LeRobotDataset, deltas: dict[str, list[float]], indices: list[int], episodes: list[int] | None
) -> None:
    check_windows(small, deltas, episodes, indices)


@settings(max_examples=3, deadline=None, phases=PHASES)
@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=5), deltas=DELTAS, data=st.data())
def test_windows_are_lerobots_on_any_dataset(
    tmp_path_factory: pytest.TempPathFactory,
    lengths: list[int],
    deltas: dict[str, list[float]],
    data: st.DataObject,
) -> None:
    root = tmp_path_factory.mktemp("any") / "dataset"
    convert.write_dataset(make_buffer(lengths), root)
    check_windows(open_dataset(root), deltas, None, list(range(sum(lengths))))
    episodes = data.draw(st.lists(st.sampled_from(range(len(lengths))), min_size=1))
    check_windows(open_dataset(root), deltas, episodes, data.draw(INDICES))


def test_windows_give_every_kind_of_number_as_lerobot_does(tmp_path: Path) -> None:
    kinds = {"double": ("float64", (3,)), "small": ("int32", (1,)), "byte": ("uint8", (2,)),
             "flag": ("bool", (2,)), "half": ("float16", (1,)), "grid": ("float32", (2, 3))}  # fmt: skip
    features = {
        name: {"dtype": dtype, "shape": shape, "names": None} for name, (dtype, shape) in kinds.items()
    }
    dataset = LeRobotDataset.create("local/kinds", 30, features, tmp_path / "kinds", video_backend="pyav")
    rng = np.random.default_rng(0)
    for episode in range(3):
        for _ in range(4):
            frame = {k: (rng.random(shape) * 9).astype(dtype) for k, (dtype, shape) in kinds.items()}
            dataset.add_frame(frame | {"task": f"task {episode % 2}"})
        dataset.save_episode()
    dataset.finalize()
    check_windows(dataset, {}, None, list(range(12)))
    check_windows(dataset, {name: [-1 / 30, 0.0, 2 / 30] for name in kinds}, [2, 1], list(range(8)))


def test_windows_of_a_dataset_opened_with_some_episodes(small: LeRobotDataset) -> None:
    part = LeRobotDataset("local/part", small.root, episodes=[3, 0], video_backend="pyav")
    deltas = {"action": [0.0, 0.1, 0.2]}
    indices = torch.arange(len(Windows(part, deltas)))
    assert_same_batch(Windows(part, deltas).batch(indices), Windows(small, deltas, [0, 3]).batch(indices))


def test_windows_count_negative_frames_from_the_end_and_refuse_others(small: LeRobotDataset) -> None:
    windows = Windows(small, {"action": [-0.1, 0.0, 0.1]})
    last = len(windows) - 1
    assert_same_batch(windows.batch(torch.tensor([-1])), windows.batch(torch.tensor([last])))
    assert windows.batch(torch.tensor([last]))["action_is_pad"].tolist() == [[False, False, True]]
    with pytest.raises(IndexError):
        windows.batch(torch.tensor([len(windows)]))


def test_window_stats_are_the_datasets(small: LeRobotDataset) -> None:
    stats = Windows(small, {}).stats
    assert stats.keys() == small.meta.stats.keys()
    for key, feature in small.meta.stats.items():
        for name, value in feature.items():
            np.testing.assert_array_equal(stats[key][name].numpy(), value)
    np.testing.assert_allclose(stats["action"]["mean"].numpy(), make_buffer().action.mean(0), rtol=1e-5)


def test_a_batch_costs_microseconds_a_sample(small: LeRobotDataset) -> None:
    windows = Windows(small, {"observation.state": [-0.1, 0.0], "action": [i / 10 for i in range(16)]})
    indices = torch.randint(0, len(windows), (256,), generator=torch.Generator().manual_seed(0))
    windows.batch(indices)
    seconds = []
    for _ in range(20):
        start = time.perf_counter()
        windows.batch(indices)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) / 256 < 20e-6  # measured: 0.5 us; LeRobotDataset takes 2.4 ms


@pytest.mark.parametrize(
    ("deltas", "episodes", "message"),
    [
        ({"actions": [0.0]}, None, r"delta_timestamps\['actions'\]: no such feature .*action"),
        ({"action": []}, None, r"delta_timestamps\['action'\]: no offsets"),
        ({"action": [0.0, 0.05]}, None, r"delta_timestamps\['action'\]: 0.05 s is not a multiple of 1/10 s"),
        ({"task_index": [0.0]}, None, r"delta_timestamps\['task_index'\]"),
        ({}, [0, 4], r"episodes \[4\] cannot be taken; it has 4 episodes, 0 to 3"),
        ({}, [], r"episodes \[\] cannot be taken"),
    ],
)
def test_impossible_windows_are_named(
    small: LeRobotDataset, deltas: dict[str, list[float]], episodes: list[int] | None, message: str
) -> None:
    with pytest.raises(IlBenchError, match=message):
        Windows(small, deltas, episodes)


# --- bad replay buffers ---------------------------------------------------------------------------------


def changed(name: str, place: Any, value: float) -> dict[str, np.ndarray]:
    array = arrays_of(make_buffer())[name].copy()
    array[place] = value
    return {name: array}


GOOD = arrays_of(make_buffer())
BAD_ARRAYS: dict[str, tuple[dict[str, Any], str]] = {
    "missing": ({"state": None}, r"no array state \(found: action, episode_ends\)"),
    "nan": (changed("action", (7, 1), np.nan), r"action: nan at frame 7, column 1"),
    "infinite": (changed("state", (2, 4), np.inf), r"state: inf at frame 2, column 4"),
    "wide": ({"state": GOOD["state"][:, :4]}, r"state: shape \(18, 4\), expected \(number of frames, 5\)"),
    "flat": ({"action": GOOD["action"].ravel()}, r"action: shape \(36,\), expected \(number of frames, 2\)"),
    "text": ({"action": GOOD["action"].astype(str)}, r"action: dtype <U32"),
    "complex": ({"state": GOOD["state"].astype(complex)}, r"state: dtype complex128"),
    "pickled": ({"action": np.array([{}], dtype=object)}, r"plain number arrays"),
    "rows": ({"state": GOOD["state"][:-1]}, r"18 rows of action but 17 of state"),
    "falling": (changed("episode_ends", 2, 6), r"episode_ends: entry 2 is 6 after 6; episode ends must rise"),
    "negative": (changed("episode_ends", 0, -5), r"episode_ends: entry 0 is -5 after 0"),
    "short": (changed("episode_ends", 3, 17), r"episode_ends: the last entry is 17, but there are 18 frames"),
    "long": (changed("episode_ends", 3, 99), r"episode_ends: the last entry is 99, but there are 18 frames"),
    "real ends": ({"episode_ends": GOOD["episode_ends"] / 1.0}, r"episode_ends: .* dtype float64, expected"),
    "no ends": ({"episode_ends": GOOD["episode_ends"][:0]}, r"episode_ends: no episodes"),
    "empty": ({k: v[:0] for k, v in GOOD.items()}, r"action: no frames"),
    "above": (changed("action", (4, 0), 512.5), r"action: 512.5 at frame 4, column 0, outside \[0, 512\]"),
    "below": (changed("action", (4, 0), -1), r"action: -1 at frame 4, column 0, outside \[0, 512\]"),
    "normalised": ({"action": GOOD["action"] / 512}, r"action: .*looks normalised.*px"),
    "far": (changed("state", (9, 2), 5000), r"state: 5000 at frame 9, column 2, outside \[-100, 612\]"),
    "degrees": (changed("state", (0, 4), 359), r"angle .*: 359 at frame 0.*rad"),
}


def assert_named(source: str | Path, message: str) -> None:
    with pytest.raises(IlBenchError, match=message) as caught:
        open_dataset(source)
    assert str(source) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("case", BAD_ARRAYS)
def test_a_bad_array_is_named(tmp_path: Path, case: str) -> None:
    arrays, message = BAD_ARRAYS[case]
    assert_named(save_npz(tmp_path, **arrays), message)


def test_a_truncated_npz_is_named(tmp_path: Path) -> None:
    source = save_npz(tmp_path)
    whole = source.read_bytes()
    for size in (0, 1, 100, len(whole) // 2, len(whole) - 1):
        source.write_bytes(whole[:size])
        assert_named(source, r"not a readable \.npz|damaged")


def test_an_npz_with_flipped_bytes_is_named(tmp_path: Path) -> None:
    source = save_npz(tmp_path)
    with zipfile.ZipFile(source) as archive:
        start = archive.getinfo("state.npy").header_offset
    damaged = bytearray(source.read_bytes())
    damaged[start + 60 : start + 90] = bytes(30)
    source.write_bytes(damaged)
    assert_named(source, r"damaged, copy it again|plain number arrays")


def test_a_zarr_with_a_missing_or_damaged_chunk_is_named(tmp_path: Path) -> None:
    source = save_zarr(tmp_path, make_buffer())
    chunk = source / "data" / "state" / "1.0"
    whole = chunk.read_bytes()
    chunk.write_bytes(whole[: len(whole) // 2])
    assert_named(source, r"data/state cannot be decoded")
    chunk.unlink()
    assert_named(source, r"data/state has 2 of its 3 chunks")
    shutil.rmtree(source / "data" / "state")
    assert_named(source, r"no array data/state \(found: data/action, meta/episode_ends\)")
    shutil.rmtree(source)
    source.mkdir()
    assert_named(source, r"zarr")


# --- sources --------------------------------------------------------------------------------------------


def test_a_folder_is_searched_for_its_one_replay_buffer(tmp_path: Path) -> None:
    assert_named(tmp_path, r"no meta/info\.json, \.npz or \.zarr in it")
    npz = save_npz(tmp_path)
    assert open_dataset(tmp_path).num_frames == sum(LENGTHS)
    shutil.copy(npz, tmp_path / "more.npz")
    assert_named(tmp_path, r"holds 2 replay buffers \(demos\.npz, more\.npz\); name the one you mean")
    npz.rename(tmp_path / "human_demos.npz")
    assert open_dataset(str(tmp_path)).num_frames == sum(LENGTHS)


@pytest.mark.parametrize("name", ["demos.csv", "demos.zarr.zip", "demos"])
def test_a_file_of_another_kind_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("x")
    assert_named(tmp_path / name, r"not a kind of file that is read here.*expected a Hub id")


@pytest.mark.parametrize(
    "source", ["nowhere.npz", "/no/such/folder", "data/nowhere.zarr", "demos", 300 * "x", "~nobody-here/x"]
)
def test_a_path_that_is_not_there_is_named(source: str) -> None:
    assert_named(source, r"no such file or folder; expected a Hub id such as lerobot/pusht_keypoints")


def test_a_hub_id_without_network_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset_metadata, "HF_LEROBOT_HOME", tmp_path)
    assert_named(
        "lerobot/pusht_keypoints", r"no such path here.*Hub did not give it.*check.*network, or pass"
    )


def test_a_hub_id_is_lerobots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset_metadata, "HF_LEROBOT_HOME", tmp_path)
    convert.write_dataset(make_buffer(), tmp_path / "lerobot" / "pusht_keypoints")
    assert open_dataset("lerobot/pusht_keypoints").repo_id == "lerobot/pusht_keypoints"


def test_a_local_path_comes_before_a_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    convert.write_dataset(make_buffer(), tmp_path / "lerobot" / "pusht_keypoints")
    monkeypatch.chdir(tmp_path)
    assert open_dataset("lerobot/pusht_keypoints").root == Path("lerobot/pusht_keypoints")


# --- LeRobot folders ------------------------------------------------------------------------------------


def edit_info(root: Path, **changes: Any) -> None:
    path = root / "meta" / "info.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_data(root: Path, change: Callable[[pd.DataFrame], None]) -> None:
    (path,) = root.glob("data/*/*.parquet")
    frames = pd.read_parquet(path)
    change(frames)
    frames.to_parquet(path)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def with_nan(frames: pd.DataFrame) -> None:
    frames.at[7, "action"] = np.array([1, np.nan], dtype=np.float32)


def far_out(frames: pd.DataFrame) -> None:
    frames.at[3, "action"] = np.array([1, 700], dtype=np.float32)


def swapped(frames: pd.DataFrame) -> None:
    frames["episode_index"] = frames["episode_index"][::-1].to_numpy()


def all_one(frames: pd.DataFrame) -> None:
    frames["episode_index"] = 0


def without(root: Path, key: str) -> None:
    info = json.loads((root / "meta" / "info.json").read_text())
    del info["features"][key]
    edit_info(root, features=info["features"])
    edit_data(root, lambda frames: frames.drop(columns=key, inplace=True))


BAD_FOLDERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "info": (lambda root: truncate(root / "meta/info.json"), r"info\.json: not a LeRobot info file"),
    "info shape": (lambda root: edit_info(root, features=3), r"info\.json: not a LeRobot info file"),
    "version": (lambda root: edit_info(root, codebase_version="v2.1"), r"v2\.1, expected v3\.0; convert it"),
    "truncated": (lambda root: truncate(next(root.glob("data/*/*"))), r"file-000\.parquet: damaged parquet"),
    "no data": (
        lambda root: shutil.rmtree(root / "data"),
        r"no data/\*/\*\.parquet; the dataset is empty or",
    ),
    "no tasks": (lambda root: (root / "meta/tasks.parquet").unlink(), r"no meta/tasks\.parquet"),
    "no episodes": (lambda root: shutil.rmtree(root / "meta/episodes"), r"no meta/episodes"),
    "frames": (lambda root: edit_info(root, total_frames=19), r"hold 18 rows but .* total_frames = 19"),
    "fps": (lambda root: edit_info(root, fps=30), r"fps 30, PushT is controlled at 10 Hz"),
    "no action": (lambda root: without(root, "action"), r"no feature action"),
    "blind": (lambda root: without(root, "observation.environment_state"), r"the block would be unseen"),
    "nan": (lambda root: edit_data(root, with_nan), r"action: nan at frame 7, column 1"),
    "range": (lambda root: edit_data(root, far_out), r"action: 700 at frame 3, column 1, outside \[0, 512\]"),
    "lacking": (lambda root: edit_data(root, all_one), r"lack episodes \[1, 2, 3\] of the 4"),
    "episodes": (lambda root: edit_data(root, swapped), r"episode_index at row 0 is not 0"),
}


@pytest.mark.parametrize("case", BAD_FOLDERS)
def test_a_bad_lerobot_folder_is_named(tmp_path: Path, small: LeRobotDataset, case: str) -> None:
    damage, message = BAD_FOLDERS[case]
    root = shutil.copytree(small.root, tmp_path / "dataset")
    assert open_dataset(root).num_frames == sum(LENGTHS)
    damage(root)
    assert_named(root, message)


def test_a_folder_that_is_none_is_not_called_damaged(tmp_path: Path) -> None:
    with pytest.raises(IlBenchError, match=r"nothere: no such folder .* is missing"):
        open_folder(tmp_path / "nothere")
    with pytest.raises(IlBenchError, match=r": no LeRobotDataset in it .*; give the folder that holds meta/"):
        open_folder(tmp_path)


# --- the real thing -------------------------------------------------------------------------------------


@pytest.mark.skipif("IL_BENCH_HUMAN_DATA" not in os.environ, reason="IL_BENCH_HUMAN_DATA names no human data")
def test_the_human_demonstrations(tmp_path: Path) -> None:
    dataset = open_dataset(os.environ["IL_BENCH_HUMAN_DATA"], cache_dir=tmp_path)
    assert (dataset.num_episodes, dataset.num_frames) == (206, 25650)
    frames = frames_of(dataset)
    assert not frames["next.success"].any()  # as in lerobot/pusht_keypoints
    assert 0.8 < frames["next.reward"][frames["next.done"]].min() < 1.0
    chunk = {"observation.state": [-0.1, 0.0], "action": [i / 10 for i in range(-1, 15)]}
    check_windows(dataset, chunk, None, [0, 160, 161, 9000, 25649])
