"""Demonstrations that several files need: a small replay buffer, and the dataset that it becomes."""

import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from lerobot.datasets.lerobot_dataset import LeRobotDataset

from il_bench.data import open_dataset
from il_bench.data.replay_buffer import ReplayBuffer
from il_bench.errors import IlBenchError

LENGTHS = (5, 1, 3, 9)


@pytest.fixture(scope="package", autouse=True)
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


def save_npz(folder: Path, **changed: np.ndarray | None) -> Path:
    arrays = {**vars(make_buffer()), **changed}
    np.savez_compressed(folder / "demos.npz", **{k: v for k, v in arrays.items() if v is not None})
    return folder / "demos.npz"


def save_zarr(folder: Path, buffer: ReplayBuffer, zarr_format: int = 2) -> Path:
    zarr = pytest.importorskip("zarr")
    root = zarr.open_group(folder / "demos.zarr", mode="w", zarr_format=zarr_format)
    for name, place in (("action", "data"), ("state", "data"), ("episode_ends", "meta")):
        array = vars(buffer)[name]
        root.create_array(f"{place}/{name}", data=array, chunks=(7, *array.shape[1:]))
    return folder / "demos.zarr"


def frames_of(dataset: LeRobotDataset) -> dict[str, np.ndarray]:
    table = dataset.hf_dataset.with_format("numpy")[:]
    return {key: np.asarray(table[key]) for key in dataset.features}


def assert_named(source: str | Path, message: str) -> None:
    """Opening the source raises one line that names it and matches the message."""
    with pytest.raises(IlBenchError, match=message) as caught:
        open_dataset(source)
    assert str(source) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.fixture(scope="package")
def small(tmp_path_factory: pytest.TempPathFactory) -> LeRobotDataset:
    return open_dataset(save_npz(tmp_path_factory.mktemp("small")))
