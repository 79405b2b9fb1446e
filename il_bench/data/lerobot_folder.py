"""Check and open a local LeRobotDataset v3 folder; LeRobot would look on the Hub if one is damaged."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from numpy.typing import NDArray

from il_bench.data import checks
from il_bench.errors import IlBenchError
from il_bench.protocol import ACTION_HIGH, ACTION_LOW
from il_bench.pusht import CONTROL_HZ

# The features of a PushT dataset and their widths. It has keypoints or an image besides.
COLUMNS = {"observation.state": 2, "action": 2}
KEYPOINTS = {"observation.environment_state": 16}
OBSERVATIONS = (*KEYPOINTS, "observation.image")
# Keypoints need no video, and LeRobot's first choice complains at length where FFmpeg is not installed.
VIDEO_BACKEND = "pyav"


def open_folder(root: Path) -> LeRobotDataset:
    """Open the LeRobotDataset v3 in the folder ``root``.

    Raises IlBenchError if a file is missing or damaged, the format is not v3, or the data are not PushT's.
    """
    info = _read_info(root)
    _check_files(root, info)
    try:
        dataset = LeRobotDataset(f"local/{root.resolve().name}", root=root, video_backend=VIDEO_BACKEND)
    except Exception as error:  # LeRobot, datasets, pandas and pyarrow have a dozen types for "damaged"
        raise IlBenchError(f"{root}: LeRobot cannot read this dataset ({first_line(error)})") from error
    check_dataset(str(root), dataset)
    return dataset


def check_dataset(where: str, dataset: LeRobotDataset) -> None:
    """Check that an opened LeRobotDataset holds PushT demonstrations.

    Raises IlBenchError, naming ``where`` (folder or Hub id), the feature and the value.
    """
    _check_features(where, dataset)
    places, actions = (checks.POSITION_LOW, checks.POSITION_HIGH), (ACTION_LOW, ACTION_HIGH)
    for key, width in (COLUMNS | KEYPOINTS).items():
        if key in dataset.features:
            values = read_column(dataset, key)
            checks.check_numbers(f"{where}: {key}", values, width)
            checks.check_pixels(f"{where}: {key}", values, *(actions if key == "action" else places))
    _check_episodes(where, dataset)


def read_column(dataset: LeRobotDataset, key: str, dtype: Any = None) -> NDArray[Any]:
    """Read one whole column of a dataset that holds numbers, (N,) or (N, ...)."""
    table = dataset.hf_dataset.with_format("numpy").select_columns([key])
    return np.asarray(table[:][key], dtype)


def episode_ends(dataset: LeRobotDataset) -> NDArray[np.int64]:
    """Return one past the last frame of each episode, (E,)."""
    return np.asarray(dataset.meta.episodes["dataset_to_index"], np.int64)


def _read_info(root: Path) -> dict[str, Any]:
    path = root / "meta" / "info.json"
    if not path.exists():
        what = "no LeRobotDataset in it" if root.is_dir() else "no such folder"
        raise IlBenchError(f"{root}: {what} ({path} is missing); give the folder that holds meta/")
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
        version = str(info["codebase_version"])
        info["video_keys"] = [key for key, feature in info["features"].items() if feature["dtype"] == "video"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = first_line(error)
        raise IlBenchError(f"{path}: not a LeRobot info file, copy it again ({reason})") from error
    if not version.startswith("v3."):
        raise IlBenchError(
            f"{path}: codebase_version {version}, expected v3.0;"
            " convert it with `python -m lerobot.scripts.convert_dataset_v21_to_v30`"
        )
    return dict(info)


def _check_files(root: Path, info: dict[str, Any]) -> None:
    if not (root / "meta" / "tasks.parquet").exists():
        raise IlBenchError(f"{root}: no meta/tasks.parquet; the dataset is incomplete, copy it again")
    n_episodes = len(_episode_indices(root, "meta/episodes/*/*.parquet", "total_episodes", info))
    found = _episode_indices(root, "data/*/*.parquet", "total_frames", info)
    if absent := sorted(set(range(n_episodes)) - set(found)):  # LeRobot would look for them on the Hub
        raise IlBenchError(
            f"{root}: data/*/*.parquet lack episodes {absent[:5]} of the {n_episodes} in meta/episodes;"
            " a file is missing or belongs to another dataset, copy the folder again"
        )
    for key in info["video_keys"]:
        if not any(root.glob(f"videos/{key}/*/*.mp4")):
            raise IlBenchError(f"{root}: no videos/{key}/*/*.mp4 for the video feature {key}")


def _episode_indices(root: Path, pattern: str, total: str, info: dict[str, Any]) -> list[int]:
    """The episode of each row in files of one kind, as many as the field `total` of info.json says."""
    rows: list[int] = []
    if not (paths := sorted(root.glob(pattern))):
        raise IlBenchError(f"{root}: no {pattern}; the dataset is empty or incomplete, copy it again")
    for path in paths:
        try:
            rows += list(pd.read_parquet(path, columns=["episode_index"])["episode_index"])
        except Exception as error:  # pyarrow's own types, OSError
            raise IlBenchError(f"{path}: damaged parquet, copy it again ({first_line(error)})") from error
    if len(rows) != info.get(total):
        raise IlBenchError(
            f"{root}: {pattern} hold {len(rows)} rows but meta/info.json says {total} = {info.get(total)};"
            " a file is missing, copy the folder again"
        )
    return rows


def _check_features(where: str, dataset: LeRobotDataset) -> None:
    if missing := [key for key in COLUMNS if key not in dataset.features]:
        raise IlBenchError(
            f"{where}: no feature {', '.join(missing)} (found: {', '.join(sorted(dataset.features))});"
            f" PushT data have {' and '.join(COLUMNS)}"
        )
    if not any(key in dataset.features for key in OBSERVATIONS):
        raise IlBenchError(f"{where}: neither {' nor '.join(OBSERVATIONS)}; the block would be unseen")
    if dataset.fps != CONTROL_HZ:
        raise IlBenchError(
            f"{where}: fps {dataset.fps}, PushT is controlled at {CONTROL_HZ} Hz; resample the data"
        )


def _check_episodes(where: str, dataset: LeRobotDataset) -> None:
    ends = episode_ends(dataset)
    checks.check_episode_ends(f"{where}: dataset_to_index of meta/episodes", ends, len(dataset.hf_dataset))
    expected = np.repeat(np.arange(len(ends)), np.diff(ends, prepend=0))
    for key, values in (("episode_index", expected), ("index", np.arange(len(expected)))):
        wrong = np.flatnonzero(read_column(dataset, key) != values)
        if len(wrong):
            raise IlBenchError(
                f"{where}: {key} at row {wrong[0]} is not {values[wrong[0]]}, as meta/episodes says;"
                " the data files and meta/ come from different datasets"
            )


def first_line(error: BaseException) -> str:
    """Name of an exception and the first line of what it says, for use inside a one-line message."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0].strip()}" if lines else type(error).__name__
