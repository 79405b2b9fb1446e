"""Write LeRobotDatasets of keypoints, like ``lerobot/pusht_keypoints``, and convert replay buffers to them.

A converted buffer is kept in a cache folder named after its content, so the conversion runs once.
"""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from datasets import Dataset
from filelock import FileLock
from lerobot.datasets.compute_stats import compute_episode_stats
from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata
from lerobot.datasets.feature_utils import get_hf_features_from_features
from lerobot.datasets.io_utils import write_table_one_row_group_per_episode
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from il_bench.data.lerobot_folder import open_folder
from il_bench.data.replay_buffer import ReplayBuffer
from il_bench.errors import IlBenchError
from il_bench.files import given_path, write_whole, writing
from il_bench.protocol import TASK
from il_bench.pusht import CONTROL_HZ, SUCCESS_COVERAGE
from il_bench.pusht.geometry import block_keypoints, coverage

# Part of a name in the cache. Raise it whenever the same source gives other frames.
CONVERTER_VERSION = 1
_ZSTD_LEVEL = 12  # higher levels save another 1 %

_XY = {"axes": ["x", "y"]}
FEATURES: dict[str, dict[str, Any]] = {
    "observation.state": {"dtype": "float32", "shape": (2,), "names": _XY},
    "observation.environment_state": {"dtype": "float32", "shape": (16,), "names": ["keypoints"]},
    "action": {"dtype": "float32", "shape": (2,), "names": _XY},
    "next.reward": {"dtype": "float32", "shape": (1,), "names": None},
    "next.done": {"dtype": "bool", "shape": (1,), "names": None},
    "next.success": {"dtype": "bool", "shape": (1,), "names": None},
}


def convert_cached(buffer: ReplayBuffer, cache_dir: Path | None = None) -> LeRobotDataset:
    """Open `buffer` as a LeRobotDataset; convert it unless the cache holds it already.

    Two processes never convert the same buffer at once, and a later call never takes an interrupted
    conversion for a dataset. cache_dir: default is $IL_BENCH_CACHE, or il_bench in $XDG_CACHE_HOME or
    ~/.cache. Raises IlBenchError if it cannot be written.
    """
    if cache_dir is None:
        default = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "il_bench"
        cache_dir = given_path(os.environ.get("IL_BENCH_CACHE") or default)
    folder = cache_dir / "datasets"
    name = f"v{CONVERTER_VERSION}-{buffer.content_hash()[:20]}"
    final, partial = folder / name, folder / f"{name}.partial"
    if (dataset := _open_if_sound(final)) is not None:
        return dataset
    with writing(folder, "set IL_BENCH_CACHE or cache_dir to a folder that can be written and has room"):
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f"{name}.lock"):
            if (dataset := _open_if_sound(final)) is not None:  # another process was faster
                return dataset
            for leftover in (final, partial):  # damaged, or of a conversion that was killed
                shutil.rmtree(leftover, ignore_errors=True)
            try:
                write_dataset(buffer, partial)
                partial.rename(final)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
    return open_folder(final)


def _open_if_sound(folder: Path) -> LeRobotDataset | None:
    try:
        return open_folder(folder) if folder.exists() else None
    except IlBenchError:  # the buffer is at hand, so convert it again
        return None


def write_dataset(buffer: ReplayBuffer, root: Path) -> None:
    """Write `buffer` into the new folder `root` as a LeRobotDataset v3, see `write_columns`."""
    write_columns(frame_columns(buffer), buffer.episode_ends, root)


def write_columns(columns: dict[str, NDArray[Any]], episode_ends: NDArray[np.int64], root: Path) -> None:
    """Write frames into the new folder `root` as a LeRobotDataset v3, statistics included.

    The files are those of `LeRobotDataset.create`, `add_frame` and `save_episode`, made by the same parts of
    LeRobot, eight times as fast: `save_episode` looks for images to embed row by row.

    columns: FEATURES and those of `place_columns`, (N, ...) each. episode_ends: (E,) one past the last frame
    of each episode.
    """
    spans = list(pairwise([0, *episode_ends.tolist()]))
    console = Console(stderr=True)
    bar: dict[str, Any] = {"console": console, "transient": True, "disable": not console.is_terminal}
    with new_metadata(root, FEATURES, "2d pointer") as meta:
        for episode, (start, end) in enumerate(track(spans, "Converting demonstrations", **bar)):
            frames = {key: column[start:end] for key, column in columns.items()}
            place = {"data/chunk_index": 0, "data/file_index": 0}
            place |= {"dataset_from_index": start, "dataset_to_index": end}
            stats = compute_episode_stats(frames, meta.features)
            meta.save_episode(episode, end - start, [TASK], stats, place)
    path = root / meta.get_data_file_path(0)
    path.parent.mkdir(parents=True)
    table = Dataset.from_dict(columns, features=get_hf_features_from_features(meta.features))
    write_table_one_row_group_per_episode(table.with_format("arrow")[:], path)


@contextmanager
def new_metadata(
    root: Path, features: dict[str, dict[str, Any]], robot_type: str, use_videos: bool = False
) -> Iterator[LeRobotDatasetMetadata]:
    """Begin a dataset of TASK in the new folder `root`; give its metadata, and finalize it at the end."""
    meta = LeRobotDatasetMetadata.create(
        repo_id=f"local/{root.name}",
        fps=CONTROL_HZ,
        features={key: dict(feature) for key, feature in features.items()},
        root=root,
        robot_type=robot_type,
        use_videos=use_videos,
    )
    with finalized(meta):
        meta.save_episode_tasks([TASK])
        yield meta


@contextmanager
def finalized(written: Any) -> Iterator[None]:
    """Finalize metadata or a dataset of LeRobot's at the end, or once writing has failed.

    Otherwise it writes when it is garbage-collected, into a folder that may be gone.
    """
    try:
        yield
    except BaseException:
        with suppress(Exception):  # the disk may be full
            written.finalize()
        raise
    else:
        written.finalize()
    finally:
        for each in (written, getattr(written, "meta", written)):
            each._finalized = True  # or it tries again, and Arrow aborts the process


def frame_columns(buffer: ReplayBuffer) -> dict[str, NDArray[Any]]:
    """Compute the columns of ``lerobot/pusht_keypoints``, one row a frame."""
    pose = buffer.state[:, 2:5].astype(np.float64)
    return {
        "observation.state": buffer.state[:, :2],
        "observation.environment_state": block_keypoints(pose).astype(np.float32),
        "action": buffer.action,
        **outcome_columns(coverage_after(pose, buffer.episode_ends), buffer.episode_ends),
        **place_columns(buffer.episode_ends),
    }


def coverage_after(pose: NDArray[np.float64], episode_ends: NDArray[np.int64]) -> NDArray[np.float64]:
    """Coverage in the state after each frame, (N,); pose: (N, 3), the block's `[x, y, angle]` in each frame.

    The state after an episode's last frame was never recorded. As in LeRobot's own conversion, that frame
    gets the coverage of its own state.
    """
    covered = np.array([coverage(x, y, angle) for x, y, angle in pose.tolist()])
    following = np.arange(1, len(pose) + 1)
    following[episode_ends - 1] = episode_ends - 1
    return np.asarray(covered[following])


def outcome_columns(covered: NDArray[np.float64], episode_ends: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
    """Compute the ``next.*`` columns from the coverage after each frame's action, (N,)."""
    done = np.zeros(len(covered), dtype=bool)
    done[episode_ends - 1] = True
    return {
        "next.reward": np.clip(covered / SUCCESS_COVERAGE, 0.0, 1.0).astype(np.float32),
        "next.done": done,
        "next.success": covered > SUCCESS_COVERAGE,
    }


def place_columns(episode_ends: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
    """Compute LeRobot's columns that say which frame of which episode a row is, (N,) each."""
    n_frames = int(episode_ends[-1])
    lengths = np.diff(episode_ends, prepend=0)
    frame_index = np.arange(n_frames) - np.repeat(episode_ends - lengths, lengths)
    return {
        "timestamp": frame_index / CONTROL_HZ,
        "frame_index": frame_index,
        "episode_index": np.repeat(np.arange(len(lengths)), lengths),
        "index": np.arange(n_frames),
        "task_index": np.zeros(n_frames, dtype=np.int64),
    }


def compact(root: Path) -> None:
    """Rewrite the files of a dataset in the new folder `root`, half as large as LeRobot writes them.

    Coordinates hardly ever repeat, so the dictionaries that LeRobot writes cost more than they save. Data
    keep one row group an episode, as LeRobot wants them. LeRobot writes the features in stats.json in the
    order of a Python set, which varies; here they are sorted.
    """
    for path in sorted([*root.glob("data/*/*.parquet"), *root.glob("meta/episodes/*/*.parquet")]):
        with pq.ParquetFile(path) as file:
            if path.is_relative_to(root / "data"):
                tables = [file.read_row_group(i) for i in range(file.num_row_groups)]
            else:
                tables = [file.read()]
        smaller = path.with_suffix(".smaller")
        options = {"compression": "zstd", "compression_level": _ZSTD_LEVEL}
        options |= {"use_dictionary": False, "write_statistics": False}
        with pq.ParquetWriter(smaller, tables[0].schema, **options) as writer:
            for table in tables:
                writer.write_table(table)
        smaller.replace(path)
    stats = root / "meta" / "stats.json"
    write_whole(stats, json.dumps(json.loads(stats.read_bytes()), indent=4, sort_keys=True).encode())
