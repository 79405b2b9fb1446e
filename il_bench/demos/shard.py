"""One episode as a LeRobotDataset of its own, with a camera: what `il-bench demos build` makes one by one."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow.parquet as pq
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.utils.constants import ACTION, OBS_IMAGE, OBS_STATE

from il_bench.data.convert import TASK
from il_bench.data.lerobot_folder import VIDEO_BACKEND
from il_bench.demos.draw import SIZE, Drawer
from il_bench.demos.states import REWARD, SUCCESS, States
from il_bench.pusht import CONTROL_HZ

# What meta/info.json of lerobot/pusht says: https://huggingface.co/datasets/lerobot/pusht
ROBOT_TYPE = "unknown"
_MOTORS = {"motors": ["motor_0", "motor_1"]}
DATA = Path("data") / "chunk-000" / "file-000.parquet"
VIDEO = Path("videos") / OBS_IMAGE / "chunk-000" / "file-000.mp4"


def features(video: bool) -> dict[str, dict[str, Any]]:
    """The features of lerobot/pusht (video) and lerobot/pusht_image, besides LeRobot's own five."""
    names = ["height", "width", "channel"]
    return {
        OBS_IMAGE: {"dtype": "video" if video else "image", "shape": (SIZE, SIZE, 3), "names": names},
        OBS_STATE: {"dtype": "float32", "shape": (2,), "names": _MOTORS},
        ACTION: {"dtype": "float32", "shape": (2,), "names": _MOTORS},
        REWARD: {"dtype": "float32", "shape": (1,), "names": None},
        "next.done": {"dtype": "bool", "shape": (1,), "names": None},
        SUCCESS: {"dtype": "bool", "shape": (1,), "names": None},
    }


def shard_of(folder: Path, episode: int) -> Path:
    """Where the dataset of an episode is kept."""
    return folder / f"episode-{episode:06d}"


def is_finished(folder: Path, episode: int, n_frames: int) -> bool:
    """Whether the dataset of an episode is there, whole."""
    try:
        return bool(pq.read_metadata(shard_of(folder, episode) / DATA).num_rows == n_frames)
    except Exception:  # not there, or somebody damaged it: pyarrow has several types for that
        return False


class ShardWriter:
    """Writes episodes of some states as datasets below a folder."""

    def __init__(self, states: States, folder: Path, video: bool) -> None:
        self._states, self._folder, self._video = states, folder, video
        self._draw = Drawer()

    def write(self, episode: int) -> int:
        """Write the dataset of an episode, which is there when it is whole, and return the episode."""
        place = shard_of(self._folder, episode)
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
        try:
            start, end = self._states.spans[episode]
            for frame in range(start, end):
                dataset.add_frame(self._frame(frame, last=frame == end - 1))
            with _no_bar():
                dataset.save_episode()
        finally:
            dataset.finalize()  # or it writes when it is garbage-collected, into a folder that may be gone
        partial.rename(place)
        return episode

    def _frame(self, frame: int, last: bool) -> dict[str, Any]:
        states = self._states
        return {
            OBS_IMAGE: self._draw(states.agent[frame], states.pose[frame]),
            OBS_STATE: states.agent[frame],
            ACTION: states.action[frame],
            REWARD: states.reward[frame : frame + 1],
            "next.done": np.array([last]),
            SUCCESS: states.success[frame : frame + 1],
            "task": TASK,
        }


@contextmanager
def _no_bar() -> Iterator[None]:
    """Without the bar that `datasets` draws for every episode."""
    if not datasets.is_progress_bar_enabled():
        yield
        return
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        datasets.enable_progress_bars()


def load_writer(states: States, folder: Path, video: bool) -> ShardWriter:
    """What a process starts with."""
    os.environ.setdefault("SVT_LOG", "1")  # errors only: the encoder introduces itself at every episode
    return ShardWriter(states, folder, video)
