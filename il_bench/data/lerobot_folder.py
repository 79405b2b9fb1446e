"""Check and open a local LeRobotDataset v3 folder; LeRobot would look on the Hub if one is damaged."""

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.utils.constants import DEFAULT_FEATURES
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from il_bench.data import checks
from il_bench.errors import IlBenchError
from il_bench.files import check_regular, read_json, read_model
from il_bench.protocol import ACTION_HIGH, ACTION_LOW
from il_bench.pusht import CONTROL_HZ

# The features of a PushT dataset and their widths. It has keypoints or an image besides.
COLUMNS = {"observation.state": 2, "action": 2}
KEYPOINTS = {"observation.environment_state": 16}
OBSERVATIONS = (*KEYPOINTS, "observation.image")
#: The kinds of features that are no numbers.
NOT_NUMBERS = ("image", "video", "string", "language")
_COPY_AGAIN = "copy the folder again"
# Keypoints need no video, and LeRobot's first choice complains at length where FFmpeg is not installed.
VIDEO_BACKEND = "pyav"


def open_folder(root: Path) -> LeRobotDataset:
    """Open the LeRobotDataset v3 in the folder ``root``.

    Raises IlBenchError if a file is missing or damaged, the format is not v3, or the data are not PushT's.
    """
    _check_files(root, read_info(root))
    check_statistics_file(root)
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


class _Part(BaseModel):
    """Part of info.json. What it names besides is LeRobot's matter."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)


class FeatureInfo(_Part):
    """One entry of ``features`` in info.json."""

    dtype: str
    shape: list[Annotated[int, Field(gt=0)]]
    names: list[Any] | dict[str, Any] | None = None
    info: dict[str, Any] | None = None


_Count = Annotated[int, Field(ge=0)]
_Positive = Annotated[int, Field(gt=0)]


class DatasetInfo(_Part):
    """``meta/info.json`` of a LeRobotDataset v3, as far as LeRobot reads it."""

    codebase_version: str
    fps: _Positive
    features: dict[str, FeatureInfo]
    total_episodes: _Count
    total_frames: _Count
    total_tasks: _Count = 0
    chunks_size: _Positive = 1000
    data_files_size_in_mb: _Positive = 100
    video_files_size_in_mb: _Positive = 200
    data_path: str = ""
    video_path: str | None = None
    robot_type: str | None = None
    splits: dict[str, str] = {}
    tools: list[dict[str, Any]] | None = None

    @property
    def video_keys(self) -> list[str]:
        """The features that are stored as videos."""
        return [key for key, feature in self.features.items() if feature.dtype == "video"]


def read_info(root: Path) -> DatasetInfo:
    """What a dataset's folder says it holds; IlBenchError names the file and the field that is wrong."""
    path = root / "meta" / "info.json"
    if not path.exists():
        what = "no LeRobotDataset in it" if root.is_dir() else "no such folder"
        raise IlBenchError(f"{root}: {what} ({path} is missing); give the folder that holds meta/")
    info = read_model(DatasetInfo, path, "not a LeRobot info file, copy it again")
    if not info.codebase_version.startswith("v3."):
        raise IlBenchError(
            f"{path}: codebase_version {info.codebase_version}, expected v3.0;"
            " convert it with `python -m lerobot.scripts.convert_dataset_v21_to_v30`"
        )
    return info


def check_statistics_file(root: Path) -> None:
    """Check that meta/stats.json, if there is one, holds numbers by feature and name, as LeRobot reads it."""
    path, way_out = root / "meta" / "stats.json", "remove it to have the statistics computed from the data"
    if not path.exists():
        return
    for key, feature in read_json(path, way_out, allow_nan=True).items():
        values = feature if isinstance(feature, dict) else {"": feature}
        for name, value in values.items():
            try:
                is_numbers = name != "" and np.asarray(value).dtype.kind in "fiub"
            except ValueError:  # of several lengths
                is_numbers = False
            if not is_numbers:
                place = f"{key}.{name}" if name else key
                raise IlBenchError(f"{path}: {place} = {value!r:.60} is not an array of numbers; {way_out}")


def _check_files(root: Path, info: DatasetInfo) -> None:
    if not (root / "meta" / "tasks.parquet").exists():
        raise IlBenchError(f"{root}: no meta/tasks.parquet; the dataset is incomplete, copy it again")
    totals = {"total_episodes": info.total_episodes, "total_frames": info.total_frames}
    n_episodes = len(_episode_indices(root, "meta/episodes/*/*.parquet", "total_episodes", totals))
    found = _episode_indices(root, "data/*/*.parquet", "total_frames", totals)
    if absent := sorted(set(range(n_episodes)) - set(found)):  # LeRobot would look for them on the Hub
        raise IlBenchError(
            f"{root}: data/*/*.parquet lack episodes {absent[:5]} of the {n_episodes} in meta/episodes;"
            " a file is missing or belongs to another dataset, copy the folder again"
        )
    _check_columns(root, info)
    for key in info.video_keys:
        if not (videos := sorted(root.glob(f"videos/{key}/*/*.mp4"))):
            raise IlBenchError(f"{root}: no videos/{key}/*/*.mp4 for the video feature {key}")
        for path in videos:
            check_regular(path, _COPY_AGAIN)
    _check_content(root)


def _check_columns(root: Path, info: DatasetInfo) -> None:
    """Check that the columns are the features: LeRobot would make whole numbers of fractions, unasked."""
    stored = {key: feature.dtype for key, feature in info.features.items() if feature.dtype != "video"}
    for path in sorted(root.glob("data/*/*.parquet")):
        with _parquet(path):
            schema = pq.read_schema(path)
        if absent := sorted(stored.keys() ^ set(schema.names)):
            which = "no feature" if absent[0] in schema.names else "a feature"
            raise IlBenchError(
                f"{path}: column {absent[0]} is {'' if which == 'no feature' else 'not '}there, and"
                f" meta/info.json has {which} of that name; copy the folder again, or correct features there"
            )
        for key, dtype in stored.items():
            leaf = schema.field(key).type
            while pa.types.is_list(leaf) or pa.types.is_fixed_size_list(leaf) or pa.types.is_large_list(leaf):
                leaf = leaf.value_type
            if dtype not in NOT_NUMBERS and _kind(dtype) != _kind(str(leaf)):
                raise IlBenchError(
                    f"{path}: column {key} holds {leaf}, and meta/info.json says features.{key}.dtype ="
                    f" {dtype!r}; correct it there"
                )


def _kind(dtype: str) -> str:
    """What numbers of a type are: float, int, bool; the name of any other type."""
    return re.sub(r"^u?(int)\d+$|^(half|double|float\d*)$", lambda m: m[1] or "float", dtype)


def _episode_indices(root: Path, pattern: str, total: str, totals: dict[str, int]) -> list[int]:
    """The episode of each row in files of one kind, as many as the field `total` of info.json says."""
    rows: list[int] = []
    if not (paths := sorted(root.glob(pattern))):
        raise IlBenchError(f"{root}: no {pattern}; the dataset is empty or incomplete, copy it again")
    for path in paths:
        check_regular(path, _COPY_AGAIN)
        with _parquet(path):
            rows += list(pd.read_parquet(path, columns=["episode_index"])["episode_index"])
    if len(rows) != totals[total]:
        raise IlBenchError(
            f"{root}: {pattern} hold {len(rows)} rows but meta/info.json says {total} = {totals[total]};"
            " a file is missing, copy the folder again"
        )
    return rows


def content_sha256(root: Path) -> dict[str, str]:
    """Hashes of what the folder of a dataset holds: of each feature's values, and of each video.

    They do not depend on how parquet packs the values, nor on LeRobot's own columns or any beside them.
    """
    features = [key for key in read_info(root).features if key not in DEFAULT_FEATURES]
    videos = {str(path.relative_to(root)): path for path in root.glob("videos/*/*/*.mp4")}
    return _columns_sha256(root, features) | {
        name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in sorted(videos.items())
    }


@contextmanager
def _parquet(path: Path) -> Iterator[None]:
    """Turn what pandas and pyarrow raise for a damaged file into an IlBenchError that names it."""
    try:
        yield
    except Exception as error:  # pyarrow's own types, OSError
        raise IlBenchError(f"{path}: damaged parquet, copy it again ({first_line(error)})") from error


def _columns_sha256(root: Path, keys: Iterable[str]) -> dict[str, str]:
    digests: dict[str, Any] = defaultdict(hashlib.sha256)
    for path in sorted(root.glob("data/*/*.parquet")):
        with _parquet(path), pq.ParquetFile(path) as file:
            present = [key for key in keys if key in file.schema_arrow.names]
            for batch in file.iter_batches(columns=present):
                for key in present:
                    for part in _plain(batch.column(key)):
                        digests[key].update(part)
    return {key: digest.hexdigest() for key, digest in digests.items()}


def _plain(array: Any) -> Iterable[bytes]:
    """The values of a column as bytes, however it is packed."""
    if isinstance(array, pa.StructArray):  # an image: its bytes, and the path of a file that is none
        array = array.field("bytes")
    while isinstance(array, pa.ListArray | pa.FixedSizeListArray | pa.LargeListArray):
        array = array.flatten()
    if pa.types.is_floating(array.type) or pa.types.is_integer(array.type):  # of whatever width
        kind = np.float64 if pa.types.is_floating(array.type) else np.int64
        return [array.to_numpy(zero_copy_only=False).astype(kind).tobytes()]
    return [repr(value).encode() for value in array.to_pylist()]


def _check_content(root: Path) -> None:
    """Check that data of our own are what was written, by the hashes in meta/il_bench.json."""
    path = root / "meta" / "il_bench.json"
    if not path.exists():
        return
    noted = read_json(path, "make the data again, or remove this file to do without it").get("sha256")
    for key, sha256 in noted.items() if isinstance(noted, dict) else ():
        if (root / key).is_file():
            found = hashlib.sha256((root / key).read_bytes()).hexdigest()
        else:
            found = _columns_sha256(root, [key]).get(key, "nothing")
        if found != sha256:
            raise IlBenchError(
                f"{root}: {key} is not what il_bench wrote there, by its hash in {path.relative_to(root)};"
                " copy the folder again, or remove that file if the change is yours"
            )


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
    places = np.arange(len(expected))
    of_episode = places - np.repeat(ends - np.diff(ends, prepend=0), np.diff(ends, prepend=0))
    for key, values in (("episode_index", expected), ("index", places), ("frame_index", of_episode)):
        wrong = np.flatnonzero(read_column(dataset, key) != values)
        if len(wrong):
            raise IlBenchError(
                f"{where}: {key} at row {wrong[0]} is not {values[wrong[0]]}, as meta/episodes says;"
                " the data files and meta/ come from different datasets"
            )
    _check_times(where, dataset, of_episode)


def _check_times(where: str, dataset: LeRobotDataset, of_episode: NDArray[np.int64]) -> None:
    """Check that no frame's time is nearer to another frame's than to its own."""
    times = read_column(dataset, "timestamp", np.float64).reshape(-1)
    times = times - np.repeat(times[of_episode == 0], np.diff(np.flatnonzero([*(of_episode == 0), True])))
    wrong = np.flatnonzero(~(np.abs(times - of_episode / dataset.fps) < 0.5 / dataset.fps))  # so that NaN is
    if len(wrong):
        row = wrong[0]
        raise IlBenchError(
            f"{where}: timestamp at row {row} is {times[row]:.3f} s after its episode's first, but frame"
            f" {of_episode[row]} at fps {dataset.fps} is {of_episode[row] / dataset.fps:.3f} s after it; the"
            " data were recorded at another rate, or frames are missing: resample them"
        )


def first_line(error: BaseException) -> str:
    """Name of an exception and the first line of what it says, for use inside a one-line message."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0].strip()}" if lines else type(error).__name__
