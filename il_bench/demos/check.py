"""Check a data set by LeRobot's own checks, the original frames and the published numbers."""

import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lerobot.datasets.feature_utils import validate_frame
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.utils.constants import ACTION, DEFAULT_FEATURES, OBS_IMAGE, OBS_STATE
from lerobot.utils.feature_utils import dataset_to_policy_features
from numpy.typing import NDArray

from il_bench.data import statistics
from il_bench.data.lerobot_folder import first_line, open_folder, read_column
from il_bench.demos.replay import IMAGE_SIZE, Drawer
from il_bench.demos.states import States
from il_bench.errors import IlBenchError
from il_bench.pusht.renderer import Image

# meta/info.json and meta/stats.json of https://huggingface.co/datasets/lerobot/pusht
EPISODES, FRAMES, FPS = 206, 25_650, 10
#: Lowest and highest value of each feature, x and y, px.
RANGES = {
    OBS_STATE: {"min": (13.456424, 32.938293), "max": (496.14618, 510.9579)},
    ACTION: {"min": (12.0, 25.0), "max": (511.0, 511.0)},
}
#: Half a unit of the last digit that they are published with.
RANGE_TOLERANCE = 5e-5
#: The share of pixels that has to be identical to the original camera frames, on average. The others lie on
#: edges of block and goal: where an edge crosses a row, pygame rounds down when it fills a polygon, and the
#: pygame of 2022 truncated. Filled that way, all 206 frames of the human demonstrations are identical.
IDENTICAL = 0.995
WHY = "edges of block and goal, which pygame rounded differently then"
#: LeRobot's merging leaves such statistics, and its recomputing leaves them out.
STALE = "not of these data, as after a merge by LeRobot; no policy reads where a frame is"
#: Grey levels: a pixel further off than this is visibly different.
FAR = 16
ORIGINALS = "human_frames.npz"
#: Single precision of the largest timestamp there is, seconds.
_TIMESTAMP_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Originals:
    """Some camera frames of a data set, as recorded."""

    index: NDArray[np.int64]  # (F,), which frame of the data set each is
    image: NDArray[np.uint8]  # (F, 96, 96, 3) RGB


def read_originals(path: Path, n_frames: int) -> Originals:
    """Read original frames, a `.npz` with the arrays index and image, of a data set of `n_frames` frames.

    Raises IlBenchError, naming the file, the array and what is wrong with it.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            index, image = archive["index"], archive["image"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise IlBenchError(
            f"{path}: not a .npz with the arrays index and image ({error}); name another, or copy it again"
        ) from None
    if index.ndim != 1 or index.dtype.kind not in "iu" or not len(index):
        raise IlBenchError(f"{path}: index: shape {index.shape} of {index.dtype}, expected (F,) integers")
    shape = (len(index), IMAGE_SIZE, IMAGE_SIZE, 3)
    if image.shape != shape or image.dtype != np.uint8:
        raise IlBenchError(f"{path}: image: shape {image.shape} of {image.dtype}, expected {shape} of uint8")
    outside = index[(index < 0) | (index >= n_frames)]
    if len(outside):
        raise IlBenchError(
            f"{path}: index: {outside[0]} is not a frame of this data set, which has {n_frames}; the "
            "frames are "
            "of other data"
        )
    return Originals(index.astype(np.int64), image)


@dataclass(frozen=True)
class Finding:
    """One line of a check."""

    what: str
    detail: str
    passed: bool | None  # None where nothing is demanded


def check_dataset(
    root: str | Path, originals: Originals | None = None, states: States | None = None
) -> list[Finding]:
    """Check the data set in the folder `root`, a LeRobotDataset v3 of PushT.

    originals: camera frames to compare its images with. states: what a video, which is lossy, was drawn from:
    the frames as drawn are compared too. Raises IlBenchError if it is no such folder, or damaged.
    """
    dataset = open_folder(Path(root))
    questions = {
        "LeRobot opens it": _opened,
        "LeRobot's check of frames": _frames,
        "LeRobot's check of statistics": _statistics,
        "timestamps": _timestamps,
    }
    if (dataset.num_episodes, dataset.num_frames) == (EPISODES, FRAMES):
        questions["numbers of lerobot/pusht"] = _published
    findings = [_ask(what, question, dataset) for what, question in questions.items()]
    if originals is not None and OBS_IMAGE in dataset.features:
        findings += _original_frames(dataset, originals, states)
    return findings


def _ask(what: str, question: Callable[[LeRobotDataset], str], dataset: LeRobotDataset) -> Finding:
    try:
        return Finding(what, question(dataset), True)
    except Exception as error:  # LeRobot's checks raise whatever they like, and so do its decoders
        return Finding(what, first_line(error), False)


def _opened(dataset: LeRobotDataset) -> str:
    policy_features = dataset_to_policy_features(dataset.meta.features)
    kinds = ", ".join(f"{key} {feature.shape}" for key, feature in policy_features.items())
    return f"{dataset.num_episodes} episodes, {dataset.num_frames} frames, {dataset.fps} fps; {kinds}"


def _frames(dataset: LeRobotDataset) -> str:
    """Check what `add_frame` demands, for the first, middle and last frame of every episode."""
    episodes = dataset.meta.episodes
    spans = zip(episodes["dataset_from_index"], episodes["dataset_to_index"], strict=True)
    frames = {index for start, end in spans for index in (start, (start + end) // 2, end - 1)}
    for index in sorted(frames):
        validate_frame(_as_recorded(dataset[index], dataset.meta.features), dataset.meta.features)
    return f"{len(frames)} frames of {dataset.num_episodes} episodes"


def _as_recorded(item: dict[str, Any], features: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """A dataset's item as `add_frame` takes it: arrays of the features' shapes, images height first."""
    frame: dict[str, Any] = {"task": item["task"]}
    for key in features.keys() - DEFAULT_FEATURES.keys():
        is_image = features[key]["dtype"] in ("image", "video")
        frame[key] = np.atleast_1d((item[key].permute(1, 2, 0) if is_image else item[key]).numpy())
    return frame


def _statistics(dataset: LeRobotDataset) -> str:
    """Check that the statistics are those of these data; text has none."""
    places = statistics.place_features(dataset)
    stale = []
    for key, feature in dataset.features.items():
        if feature["dtype"] in ("string", "language"):
            continue
        if fault := statistics.problem(dataset, key, exact=True):
            if key not in places:
                raise ValueError(fault)
            stale.append(key)
    found = f"{len(dataset.meta.stats)} features"
    return f"{found}; {', '.join(stale)}: {STALE}" if stale else found


def _timestamps(dataset: LeRobotDataset) -> str:
    expected = read_column(dataset, "frame_index") / dataset.fps
    off = float(np.abs(read_column(dataset, "timestamp") - expected).max())
    if off > _TIMESTAMP_TOLERANCE:
        raise ValueError(f"up to {off:g} s off frame_index / {dataset.fps}")
    return f"a frame every {1 / dataset.fps:g} s"


def _published(dataset: LeRobotDataset) -> str:
    stats = dataset.meta.stats
    differences = [
        f"{key} {which} {stats[key][which]}, not {values}"
        for key, ranges in RANGES.items()
        for which, values in ranges.items()
        if not np.allclose(stats[key][which], values, rtol=0, atol=RANGE_TOLERANCE)
    ]
    if dataset.fps != FPS:
        differences.append(f"{dataset.fps} fps, not {FPS}")
    if differences:
        raise ValueError("; ".join(differences))
    return f"{EPISODES} episodes, {FRAMES} frames, {FPS} fps, lowest and highest state and action"


def _original_frames(
    dataset: LeRobotDataset, originals: Originals, states: States | None
) -> Iterator[Finding]:
    def stored(index: int) -> Image:
        image: torch.Tensor = dataset[index][OBS_IMAGE]
        levels: Image = (image * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
        return levels

    if states is not None:
        draw = Drawer()
        yield _compared("frames as drawn", originals, lambda i: draw(states.agent[i], states.pose[i]))
    if dataset.features[OBS_IMAGE]["dtype"] == "video":
        yield replace(_compared("frames as stored, a lossy video", originals, stored), passed=None)
    else:
        yield _compared("frames as stored", originals, stored)


def _compared(what: str, originals: Originals, frame: Callable[[int], Image]) -> Finding:
    """Compare each original with `frame(index)`, (96, 96, 3) uint8 RGB."""
    ours = np.stack([frame(index) for index in originals.index.tolist()])
    difference = np.abs(ours.astype(np.int16) - originals.image)
    worst = difference.max(axis=-1)  # of the three colours
    same, far = (worst == 0).mean(axis=(1, 2)), (worst > FAR).sum(axis=(1, 2))
    which, passed = int(np.argmin(same)), bool(same.mean() >= IDENTICAL)
    detail = (
        f"{same.mean():.3%} of the pixels of {len(same)} frames identical on average, {same[which]:.2%} in "
        f"the worst (frame {originals.index[which]}); {far.mean():.1f} of {IMAGE_SIZE**2} pixels more than "
        f"{FAR} grey levels off, {difference.mean():.3f} grey levels on average"
    )
    return Finding(what, f"{detail} ({WHY})" if passed and same.min() < 1.0 else detail, passed)
