"""Datasets of one episode become one: LeRobot's own files, no image encoded again.

LeRobot's `aggregate_datasets` reads and writes all that it has joined for every dataset that it adds, and
keeps a copy in its cache each time. This writes every frame once.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from lerobot.configs import rgb_encoder_defaults
from lerobot.datasets.compute_stats import compute_episode_stats
from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata
from lerobot.datasets.feature_utils import get_hf_features_from_features
from lerobot.datasets.io_utils import load_stats
from lerobot.datasets.video_utils import concatenate_video_files, get_video_duration_in_s
from lerobot.utils.constants import OBS_IMAGE

from il_bench.data.convert import TASK
from il_bench.demos.compact import compact
from il_bench.demos.shard import DATA, ROBOT_TYPE, VIDEO, features
from il_bench.pusht import CONTROL_HZ

_MB = 1024 * 1024


def join_shards(shards: Sequence[Path], root: Path, video: bool) -> None:
    """Write the datasets of single episodes, in this order, as one into the new folder `root`."""
    meta = LeRobotDatasetMetadata.create(
        repo_id=f"local/{root.name}",
        fps=CONTROL_HZ,
        features=features(video),
        root=root,
        robot_type=ROBOT_TYPE,
        use_videos=video,
    )
    try:
        meta.save_episode_tasks([TASK])
        places = _join_videos(shards, meta) if video else [{} for _ in shards]
        start = 0
        for episode, (shard, table, place) in enumerate(_join_data(shards, meta)):
            numbers = {"index": table["index"].to_numpy(), "episode_index": table["episode_index"].to_numpy()}
            stats = load_stats(shard) | compute_episode_stats(numbers, meta.features)
            place |= places[episode]
            place |= {"dataset_from_index": start, "dataset_to_index": start + len(table)}
            meta.save_episode(episode, len(table), [TASK], stats, place)
            start += len(table)
    finally:
        meta.finalize()  # or it writes when it is garbage-collected, into a folder that may be gone
    compact(root)


def _join_data(
    shards: Sequence[Path], meta: LeRobotDatasetMetadata
) -> Iterator[tuple[Path, pa.Table, dict[str, Any]]]:
    """Write the frames, one row group an episode; give each shard's, and the file that they are in."""
    # The shards' own schema holds a fingerprint, another in every run.
    schema = get_hf_features_from_features(meta.features).arrow_schema.metadata
    start = episode = 0
    for number, group in enumerate(_groups(shards, DATA, meta.data_files_size_in_mb)):
        chunk, file = divmod(number, meta.chunks_size)
        path = meta.root / meta.data_path.format(chunk_index=chunk, file_index=file)
        path.parent.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            writer: pq.ParquetWriter | None = None
            for shard in group:
                table = _renumbered(pq.read_table(shard / DATA), start, episode)
                table = table.replace_schema_metadata(schema)
                writer = writer or stack.enter_context(pq.ParquetWriter(path, table.schema))
                writer.write_table(table)
                yield shard, table, {"data/chunk_index": chunk, "data/file_index": file}
                start += len(table)
                episode += 1


def _renumbered(table: pa.Table, start: int, episode: int) -> pa.Table:
    numbers = {"index": start + np.arange(len(table)), "episode_index": np.full(len(table), episode)}
    for key, values in numbers.items():
        place = table.schema.get_field_index(key)
        table = table.set_column(place, table.schema.field(key), pa.array(values, pa.int64()))
    return table


def _join_videos(shards: Sequence[Path], meta: LeRobotDatasetMetadata) -> list[dict[str, Any]]:
    """Put the videos one after the other; for each episode the file and the seconds that it is at."""
    places: list[dict[str, Any]] = []
    for number, group in enumerate(_groups(shards, VIDEO, meta.video_files_size_in_mb)):
        chunk, file = divmod(number, meta.chunks_size)
        path = meta.root / meta.video_path.format(video_key=OBS_IMAGE, chunk_index=chunk, file_index=file)
        with _errors_only():
            concatenate_video_files([shard / VIDEO for shard in group], path)
        seconds = 0.0
        for shard in group:
            end = seconds + get_video_duration_in_s(shard / VIDEO)
            where = {"chunk_index": chunk, "file_index": file, "from_timestamp": seconds, "to_timestamp": end}
            places.append({f"videos/{OBS_IMAGE}/{key}": value for key, value in where.items()})
            seconds = end
    meta.update_video_info(OBS_IMAGE, video_encoder=rgb_encoder_defaults())
    return places


@contextmanager
def _errors_only() -> Iterator[None]:
    """Without FFmpeg's lines about what it does."""
    before = av.logging.get_level()
    av.logging.set_level(av.logging.ERROR)
    try:
        yield
    finally:
        av.logging.set_level(before)


def _groups(shards: Iterable[Path], file: Path, limit_mb: int) -> Iterator[list[Path]]:
    """Split shards into runs whose files are together smaller than LeRobot lets a file grow."""
    group: list[Path] = []
    size = 0
    for shard in shards:
        more = (shard / file).stat().st_size
        if group and size + more >= limit_mb * _MB:
            yield group
            group, size = [], 0
        group.append(shard)
        size += more
    if group:
        yield group
