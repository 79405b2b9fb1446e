"""Datasets with a camera, drawn from states: first a dataset for each episode, then all of them in one.

With one dataset an episode, an interrupted run can resume and workers can share the work. `join_episodes`
writes every frame once and encodes no image again. LeRobot's `aggregate_datasets` would read and write all
it has joined again for every dataset it adds, and keep a copy in its cache each time.
"""

import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import av
import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from lerobot.configs import rgb_encoder_defaults
from lerobot.datasets.compute_stats import compute_episode_stats
from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata
from lerobot.datasets.feature_utils import get_hf_features_from_features
from lerobot.datasets.io_utils import load_stats
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.datasets.video_utils import concatenate_video_files, get_video_duration_in_s
from lerobot.utils.constants import ACTION, OBS_IMAGE, OBS_STATE

from il_bench.data.convert import FEATURES, compact, finalized, new_metadata
from il_bench.data.lerobot_folder import VIDEO_BACKEND
from il_bench.demos.replay import IMAGE_SIZE, Drawer
from il_bench.demos.states import REWARD, SUCCESS, States
from il_bench.protocol import TASK
from il_bench.pusht import CONTROL_HZ

# What meta/info.json of lerobot/pusht says: https://huggingface.co/datasets/lerobot/pusht
ROBOT_TYPE = "unknown"
_MOTORS = {"motors": ["motor_0", "motor_1"]}
_DATA = Path("data") / "chunk-000" / "file-000.parquet"
_VIDEO = Path("videos") / OBS_IMAGE / "chunk-000" / "file-000.mp4"
_MB = 1024 * 1024


def features(video: bool) -> dict[str, dict[str, Any]]:
    """The features of lerobot/pusht (video) and lerobot/pusht_image, besides LeRobot's own five."""
    kind, shape = "video" if video else "image", (IMAGE_SIZE, IMAGE_SIZE, 3)
    return {
        OBS_IMAGE: {"dtype": kind, "shape": shape, "names": ["height", "width", "channel"]},
        OBS_STATE: FEATURES[OBS_STATE] | {"names": _MOTORS},
        ACTION: FEATURES[ACTION] | {"names": _MOTORS},
        **{key: FEATURES[key] for key in (REWARD, "next.done", SUCCESS)},
    }


def folder_of(folder: Path, episode: int) -> Path:
    """Where the dataset of an episode is kept."""
    return folder / f"episode-{episode:06d}"


def is_whole(folder: Path, states: States, episode: int) -> bool:
    """Whether the dataset of an episode is finished."""
    start, end = states.spans[episode]
    try:
        return bool(pq.read_metadata(folder_of(folder, episode) / _DATA).num_rows == end - start)
    except Exception:  # missing or damaged: pyarrow has several types for that
        return False


class EpisodeWriter:
    """Writes episodes of some states as datasets below a folder."""

    def __init__(self, states: States, folder: Path, video: bool) -> None:
        os.environ.setdefault("SVT_LOG", "1")  # errors only, no greeting at every episode
        self._states, self._folder, self._video = states, folder, video
        self._draw = Drawer()

    def write(self, episodes: Sequence[int]) -> int:
        """Write the dataset of the only episode given, whole or not at all; return 1."""
        states, (episode,) = self._states, episodes
        place = folder_of(self._folder, episode)
        partial = place.with_suffix(".partial")
        for leftover in (place, partial):
            shutil.rmtree(leftover, ignore_errors=True)
        dataset = LeRobotDataset.create(
            repo_id="local/episode",
            fps=CONTROL_HZ,
            features=features(self._video),
            root=partial,
            robot_type=ROBOT_TYPE,
            use_videos=self._video,
            video_backend=VIDEO_BACKEND,
        )
        with finalized(dataset):
            start, end = states.spans[episode]
            for frame in range(start, end):
                dataset.add_frame(
                    {
                        OBS_IMAGE: self._draw(states.agent[frame], states.pose[frame]),
                        OBS_STATE: states.agent[frame],
                        ACTION: states.action[frame],
                        REWARD: states.reward[frame : frame + 1],
                        "next.done": np.array([frame == end - 1]),
                        SUCCESS: states.success[frame : frame + 1],
                        "task": TASK,
                    }
                )
            with _quiet(), _same_priority():
                dataset.save_episode()
        partial.rename(place)
        return 1


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the bar that `datasets` draws for every episode, and FFmpeg's messages."""
    has_bars, level = datasets.is_progress_bar_enabled(), av.logging.get_level()
    datasets.disable_progress_bars()
    av.logging.set_level(av.logging.ERROR)
    try:
        yield
    finally:
        av.logging.set_level(level)
        if has_bars:
            datasets.enable_progress_bars()


@contextmanager
def _same_priority() -> Iterator[None]:
    """Keep the scheduling of this thread: SVT-AV1, if root runs it, sets its caller to real time for good."""
    if not hasattr(os, "sched_getscheduler"):  # not Linux
        yield
        return
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        if os.sched_getscheduler(0) != policy:
            os.sched_setscheduler(0, policy, parameters)


def join_episodes(folders: Sequence[Path], root: Path, video: bool) -> None:
    """Join the datasets of single episodes, in this order, into one in the new folder `root`."""
    with new_metadata(root, features(video), ROBOT_TYPE, video) as meta:
        places = _join_videos(folders, meta) if video else [{} for _ in folders]
        start = 0
        for episode, (folder, table, place) in enumerate(_join_data(folders, meta)):
            numbers = {key: table[key].to_numpy() for key in ("index", "episode_index")}
            stats = load_stats(folder) | compute_episode_stats(numbers, meta.features)
            place |= places[episode]
            place |= {"dataset_from_index": start, "dataset_to_index": start + len(table)}
            meta.save_episode(episode, len(table), [TASK], stats, place)
            start += len(table)
    compact(root)


def _join_data(
    folders: Sequence[Path], meta: LeRobotDatasetMetadata
) -> Iterator[tuple[Path, pa.Table, dict[str, Any]]]:
    """Write the frames, one row group an episode; yield each folder, its frames and the file they are in."""
    # The schema in each folder holds a fingerprint, another in every run.
    schema = get_hf_features_from_features(meta.features).arrow_schema.metadata
    start = episode = 0
    for number, group in enumerate(_groups(folders, _DATA, meta.data_files_size_in_mb)):
        chunk, file = divmod(number, meta.chunks_size)
        path = meta.root / meta.data_path.format(chunk_index=chunk, file_index=file)
        path.parent.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            writer: pq.ParquetWriter | None = None
            for folder in group:
                table = pq.read_table(folder / _DATA).replace_schema_metadata(schema)
                index = start + np.arange(len(table))
                for key, values in (("index", index), ("episode_index", np.full(len(table), episode))):
                    place = table.schema.get_field_index(key)
                    table = table.set_column(place, table.schema.field(key), pa.array(values, pa.int64()))
                writer = writer or stack.enter_context(pq.ParquetWriter(path, table.schema))
                writer.write_table(table)
                yield folder, table, {"data/chunk_index": chunk, "data/file_index": file}
                start += len(table)
                episode += 1


def _join_videos(folders: Sequence[Path], meta: LeRobotDatasetMetadata) -> list[dict[str, Any]]:
    """Join the videos; return the file and the seconds that each episode is at."""
    places: list[dict[str, Any]] = []
    for number, group in enumerate(_groups(folders, _VIDEO, meta.video_files_size_in_mb)):
        chunk, file = divmod(number, meta.chunks_size)
        path = meta.root / meta.video_path.format(video_key=OBS_IMAGE, chunk_index=chunk, file_index=file)
        with _quiet(), _same_priority():
            concatenate_video_files([folder / _VIDEO for folder in group], path)
        seconds = 0.0
        for folder in group:
            end = seconds + get_video_duration_in_s(folder / _VIDEO)
            where = {"chunk_index": chunk, "file_index": file, "from_timestamp": seconds, "to_timestamp": end}
            places.append({f"videos/{OBS_IMAGE}/{key}": value for key, value in where.items()})
            seconds = end
    meta.update_video_info(OBS_IMAGE, video_encoder=rgb_encoder_defaults())
    return places


def _groups(folders: Iterable[Path], file: Path, limit_mb: int) -> Iterator[list[Path]]:
    """Split folders into runs whose files, joined, stay below LeRobot's limit for one file."""
    group: list[Path] = []
    size = 0
    for folder in folders:
        more = (folder / file).stat().st_size
        if group and size + more >= limit_mb * _MB:
            yield group
            group, size = [], 0
        group.append(folder)
        size += more
    if group:
        yield group
