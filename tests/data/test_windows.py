"""Windows give what LeRobotDataset gives with the same delta_timestamps, to the bit."""

import os
import time
import timeit
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from torch.utils.data import default_collate

from il_bench.data import Windows, convert, open_dataset
from il_bench.errors import IlBenchError
from il_bench.machine import one_thread
from tests.data.conftest import frames_of, make_buffer

OBSERVATIONS = ["observation.state", "observation.environment_state"]
KEYS = [*OBSERVATIONS, "action", "next.reward", "next.done", "timestamp", "frame_index", "index"]
OFFSETS = st.lists(st.integers(-12, 12).map(lambda n: n / 10), min_size=1, max_size=6)
DELTAS = st.dictionaries(st.sampled_from(KEYS), OFFSETS, max_size=4)
# A failing case is small as it is; shrinking one that opens datasets takes minutes.
PHASES = (Phase.explicit, Phase.reuse, Phase.generate)
INDICES = st.lists(st.integers(0, 10_000), min_size=1, max_size=8)


def assert_same_batch(got: dict[str, Any], expected: dict[str, Any]) -> None:
    assert list(got) == list(expected)
    for key, value in expected.items():
        if isinstance(value, torch.Tensor):
            torch.testing.assert_close(got[key], value, rtol=0, atol=0, msg=key)
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
    timer = time.process_time  # other programs may take the core
    with one_thread():
        seconds = timeit.repeat(lambda: windows.batch(indices), timer=timer, number=1, repeat=20)
    assert min(seconds) / 256 < 20e-6  # measured: 0.5 us; LeRobotDataset takes 2.4 ms


@pytest.mark.parametrize(
    ("deltas", "episodes", "message"),
    [
        ({"actions": [0.0]}, None, r"delta_timestamps\['actions'\]: no such feature .*action"),
        ({"action": []}, None, r"delta_timestamps\['action'\]: no offsets"),
        ({"action": [0.0, 0.05]}, None, r"delta_timestamps\['action'\]: 0.05 s is not a multiple of 1/10 s"),
        ({"task_index": [0.0]}, None, r"delta_timestamps\['task_index'\]"),
        ({}, [0, 4], r"episodes \[4\] cannot be selected; it has 4 episodes, 0 to 3"),
        ({}, [], r"episodes \[\] cannot be selected"),
    ],
)
def test_impossible_windows_are_named(
    small: LeRobotDataset, deltas: dict[str, list[float]], episodes: list[int] | None, message: str
) -> None:
    with pytest.raises(IlBenchError, match=message):
        Windows(small, deltas, episodes)


@pytest.mark.skipif("IL_BENCH_HUMAN_DATA" not in os.environ, reason="IL_BENCH_HUMAN_DATA names no human data")
def test_the_human_demonstrations(tmp_path: Path) -> None:
    dataset = open_dataset(os.environ["IL_BENCH_HUMAN_DATA"], cache_dir=tmp_path)
    assert (dataset.num_episodes, dataset.num_frames) == (206, 25650)
    frames = frames_of(dataset)
    assert not frames["next.success"].any()  # as in lerobot/pusht_keypoints
    assert 0.8 < frames["next.reward"][frames["next.done"]].min() < 1.0
    chunk = {"observation.state": [-0.1, 0.0], "action": [i / 10 for i in range(-1, 15)]}
    check_windows(dataset, chunk, None, [0, 160, 161, 9000, 25649])
