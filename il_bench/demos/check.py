"""Is this the data set it should be: by LeRobot's own checks, the original frames, the published numbers."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lerobot.datasets.compute_stats import aggregate_stats
from lerobot.datasets.feature_utils import validate_frame
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.utils.constants import DEFAULT_FEATURES, OBS_IMAGE
from lerobot.utils.feature_utils import dataset_to_policy_features

from il_bench.data.lerobot_folder import first_line, open_folder, read_column
from il_bench.demos import published
from il_bench.demos.published import Likeness, Originals
from il_bench.demos.replay import Drawer
from il_bench.demos.states import States
from il_bench.pusht.renderer import Image

#: Single precision of the largest timestamp there is, seconds.
_TIMESTAMP_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Finding:
    """One line of a check. passed: None where there is nothing to hold it against."""

    what: str
    said: str
    passed: bool | None


def check_dataset(
    root: str | Path, originals: Originals | None = None, states: States | None = None
) -> list[Finding]:
    """Check the data set in the folder `root`.

    Args:
        root: a folder with a LeRobotDataset v3 of PushT.
        originals: camera frames to compare its images with.
        states: what it was drawn from. A video is lossy, and then what went into it is compared as well.

    Raises:
        IlBenchError: it is no such folder, or damaged.
    """
    dataset = open_folder(Path(root))
    findings = [
        _ask("LeRobot opens it", lambda: _opened(dataset)),
        _ask("LeRobot's check of frames", lambda: _frames(dataset)),
        _ask("LeRobot's check of statistics", lambda: _statistics(dataset)),
        _ask("timestamps", lambda: _timestamps(dataset)),
    ]
    if (dataset.num_episodes, dataset.num_frames) == (published.EPISODES, published.FRAMES):
        findings.append(_ask("numbers of lerobot/pusht", lambda: _published(dataset)))
    if originals is not None and OBS_IMAGE in dataset.features:
        findings += _original_frames(dataset, originals, states)
    return findings


def _ask(what: str, question: Callable[[], str]) -> Finding:
    try:
        return Finding(what, question(), True)
    except Exception as error:  # LeRobot's checks raise whatever they like, and so do its decoders
        return Finding(what, first_line(error), False)


def _opened(dataset: LeRobotDataset) -> str:
    policy_features = dataset_to_policy_features(dataset.meta.features)
    kinds = ", ".join(f"{key} {feature.shape}" for key, feature in policy_features.items())
    return f"{dataset.num_episodes} episodes, {dataset.num_frames} frames, {dataset.fps} fps; {kinds}"


def _frames(dataset: LeRobotDataset) -> str:
    """What `add_frame` demands of a frame, of the first, middle and last frame of every episode."""
    frames = list(_some_frames(dataset))
    for index in frames:
        validate_frame(_as_recorded(dataset[index], dataset.meta.features), dataset.meta.features)
    return f"{len(frames)} frames of {dataset.num_episodes} episodes"


def _some_frames(dataset: LeRobotDataset) -> Iterator[int]:
    episodes = dataset.meta.episodes
    for start, end in zip(episodes["dataset_from_index"], episodes["dataset_to_index"], strict=True):
        yield from sorted({start, (start + end) // 2, end - 1})


def _as_recorded(item: dict[str, Any], features: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """An item of a dataset as `add_frame` takes it: arrays of the features' shapes, images height first."""
    frame: dict[str, Any] = {"task": item["task"]}
    for key in features.keys() - DEFAULT_FEATURES.keys():
        value = item[key]
        if features[key]["dtype"] in ("image", "video"):
            frame[key] = value.permute(1, 2, 0).numpy()
        else:
            frame[key] = value.numpy().reshape(1) if value.ndim == 0 else value.numpy()
    return frame


def _statistics(dataset: LeRobotDataset) -> str:
    """The check before datasets are merged, and that they are of these data."""
    stats = dataset.meta.stats
    aggregate_stats([stats])
    if missing := sorted(set(dataset.features) - set(stats)):
        raise ValueError(f"no statistics of {', '.join(missing)}")
    columns = dataset.hf_dataset.with_format("numpy")
    for key, feature in dataset.features.items():
        if feature["dtype"] in ("image", "video"):
            low, high = stats[key]["min"], stats[key]["max"]
            if low.shape != (3, 1, 1) or low.min() < 0 or high.max() > 1 or not stats[key]["std"].all():
                raise ValueError(f"{key}: statistics of images are of each colour, between 0 and 1")
            continue
        values = read_column(columns, key).reshape(dataset.num_frames, -1).astype(np.float64)
        for name, found in (("min", values.min(axis=0)), ("max", values.max(axis=0))):
            if not np.allclose(stats[key][name], found, rtol=1e-6, atol=1e-6):
                raise ValueError(
                    f"{key}: {name} is {found} in the data and {stats[key][name]} in meta/stats.json"
                )
    return f"{len(stats)} features"


def _timestamps(dataset: LeRobotDataset) -> str:
    columns = dataset.hf_dataset.with_format("numpy")
    expected = read_column(columns, "frame_index") / dataset.fps
    off = float(np.abs(read_column(columns, "timestamp") - expected).max())
    if off > _TIMESTAMP_TOLERANCE:
        raise ValueError(f"up to {off:g} s off frame_index / {dataset.fps}")
    return f"a frame every {1 / dataset.fps:g} s"


def _published(dataset: LeRobotDataset) -> str:
    differences = published.range_differences(dataset.meta.stats)
    if dataset.fps != published.FPS:
        differences.append(f"{dataset.fps} fps, not {published.FPS}")
    if differences:
        raise ValueError("; ".join(differences))
    return (
        f"{published.EPISODES} episodes, {published.FRAMES} frames, {published.FPS} fps, lowest and highest "
        "state and action"
    )


def _original_frames(
    dataset: LeRobotDataset, originals: Originals, states: States | None
) -> Iterator[Finding]:
    if states is not None:
        draw = Drawer()
        likeness = published.compare(originals, lambda i: draw(states.agent[i], states.pose[i]))
        yield Finding("frames as drawn", _said(likeness), likeness.enough)
    likeness = published.compare(originals, lambda i: _image(dataset, i))
    if dataset.features[OBS_IMAGE]["dtype"] == "video":
        yield Finding("frames as stored, a lossy video", str(likeness), None)
    else:
        yield Finding("frames as stored", _said(likeness), likeness.enough)


def _said(likeness: Likeness) -> str:
    differ = likeness.enough and likeness.same.min() < 1.0
    return f"{likeness}{f' ({published.WHY})' if differ else ''}"


def _image(dataset: LeRobotDataset, index: int) -> Image:
    """An image of a dataset, (96, 96, 3) uint8."""
    image: torch.Tensor = dataset[index][OBS_IMAGE]
    levels: Image = (image * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    return levels
