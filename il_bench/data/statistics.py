"""The statistics of a data set, which normalise what a policy reads: checked against the data they are of.

One place for all who use them: training, merging and `il-bench demos check`. LeRobot's own rules come first.
"""

from collections.abc import Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from lerobot.datasets.compute_stats import aggregate_stats, compute_episode_stats
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.utils.constants import DEFAULT_FEATURES
from numpy.typing import NDArray

from il_bench.data.lerobot_folder import NOT_NUMBERS, episode_ends, read_column
from il_bench.errors import IlBenchError

FILE = Path("meta") / "stats.json"
#: What LeRobot keeps of each feature, besides quantiles.
NAMES = ("min", "max", "mean", "std", "count")
#: How far statistics may be from the data, as a share of the range: LeRobot sums up in single precision.
_TOLERANCE = 1e-2

Stats = Mapping[str, NDArray[Any]]


def numeric_features(dataset: LeRobotDataset) -> list[str]:
    """The features of a dataset that are numbers: no images, no text."""
    return [key for key, feature in dataset.features.items() if feature["dtype"] not in NOT_NUMBERS]


def place_features(dataset: LeRobotDataset) -> list[str]:
    """LeRobot's own columns, which say where a frame is; no policy reads them."""
    return [key for key in dataset.features if key in DEFAULT_FEATURES]


def prepare(where: str, dataset: LeRobotDataset, keys: Iterable[str]) -> list[str]:
    """Put the statistics of ``keys`` that are missing into ``dataset.meta.stats``; return their names.

    The others are checked. Raises IlBenchError that names ``where``, the feature and what is wrong.
    """
    stats = dict(dataset.meta.stats or {})
    keys = list(keys)
    missing = [key for key in keys if not set(NAMES) <= set(stats.get(key, ()))]
    if missing:
        stats |= compute(dataset, missing)
        dataset.meta.stats = stats
    for key in keys:
        if fault := problem(dataset, key):
            raise IlBenchError(
                f"{where}: {FILE}: {fault}; remove that file to have the statistics computed from the data"
            )
    return missing


def compute(dataset: LeRobotDataset, keys: Iterable[str]) -> dict[str, dict[str, NDArray[Any]]]:
    """The statistics of features that are numbers, as LeRobot makes them: of each episode, then joined."""
    computed: dict[str, dict[str, NDArray[Any]]] = aggregate_stats(of_episodes(dataset, keys))
    return computed


def of_episodes(dataset: LeRobotDataset, keys: Iterable[str]) -> list[dict[str, dict[str, NDArray[Any]]]]:
    """The statistics of features that are numbers, for each episode."""
    columns, ends = {key: read_column(dataset, key) for key in keys}, episode_ends(dataset).tolist()
    return [
        compute_episode_stats({key: column[start:end] for key, column in columns.items()}, dataset.features)
        for start, end in pairwise([0, *ends])
    ]


def problem(dataset: LeRobotDataset, key: str, *, exact: bool = False) -> str:
    """What is wrong with the statistics of a feature, for a sentence; nothing is: "".

    exact: lowest and highest have to be those of the data; else they may be of more data than these.
    """
    stats = (dataset.meta.stats or {}).get(key, {})
    fault = broken_rule(key, dataset.features[key], stats)
    if fault or dataset.features[key]["dtype"] in NOT_NUMBERS:
        return fault
    return _of_numbers(key, stats, read_column(dataset, key, np.float64), exact)


def broken_rule(key: str, feature: Mapping[str, Any], stats: Stats) -> str:
    """What is wrong with statistics whatever the data are: names, shapes, numbers; nothing is: ""."""
    if absent := [name for name in NAMES if name not in stats]:
        return f"no statistics of {key}" if len(absent) == len(NAMES) else f"{key} lacks {', '.join(absent)}"
    if wrong := [name for name in NAMES if not _is_finite(stats[name])]:
        return f"{key}: {wrong[0]} is {_shown(stats[wrong[0]])}, not finite numbers"
    try:
        aggregate_stats([{key: dict(stats)}])  # LeRobot's own check, before it joins them
    except Exception as error:  # whatever arrays that do not fit one another raise
        return f"{key}: {error}"
    if feature["dtype"] in ("image", "video"):
        return _of_images(key, stats)
    width = tuple(feature["shape"])[-1:]
    if shapes := [name for name in NAMES[:-1] if stats[name].shape != width]:
        return f"{key}: {shapes[0]} has shape {stats[shapes[0]].shape}, and the data {width}"
    return ""


def _of_images(key: str, stats: Stats) -> str:
    low, high = stats["min"], stats["max"]
    if low.shape != (3, 1, 1) or low.min() < 0 or high.max() > 1 or not stats["std"].all():
        return f"{key}: statistics of images are of each colour, between 0 and 1"
    return ""


def _of_numbers(key: str, stats: Stats, column: NDArray[np.float64], exact: bool) -> str:
    values = column.reshape(-1, column.shape[-1] if column.ndim > 1 else 1)
    low, high, least, most = values.min(axis=0), values.max(axis=0), stats["min"], stats["max"]
    mean, std = stats["mean"], stats["std"]
    near = 1e-6 * (1 + np.abs(values).max(axis=0))  # of texts with fewer digits than the data
    for name, found, given in (("min", low, least), ("max", high, most)):
        is_outside = found < given - near if name == "min" else found > given + near
        if is_outside.any() or (exact and (np.abs(found - given) > near).any()):
            return f"{key}: {name} is {_shown(given)}, and {_shown(found)} in the data"
    room = _TOLERANCE * (most - least) + near
    if ((mean < least - room) | (mean > most + room)).any():
        return f"{key}: mean is {_shown(mean)}, outside min and max"
    if ((std < 0) | (std > most - least + room)).any():
        return f"{key}: std is {_shown(std)}, which no values between min and max have"
    count = float(stats["count"][0])
    if count == len(column):  # they say that they are of just these data
        for name, found, given in (("mean", values.mean(axis=0), mean), ("std", values.std(axis=0), std)):
            if (np.abs(found - given) > room).any():
                return f"{key}: {name} is {_shown(given)}, and {_shown(found)} in the data"
    # No value of n lies further from their mean than sqrt(n) standard deviations (Samuelson's inequality).
    reach = np.sqrt(max(count, len(column))) * std + room
    if (np.abs(values - mean) > reach).any():
        return f"{key}: std is {_shown(std)}, too little for data from {_shown(low)} to {_shown(high)}"
    return ""


def _is_finite(value: Any) -> bool:
    array = np.asarray(value)
    return array.dtype.kind in "fiub" and array.size > 0 and bool(np.isfinite(array).all())


def _shown(value: Any) -> str:
    return np.array2string(np.asarray(value).ravel(), precision=6, threshold=4, edgeitems=2)


def told(missing: list[str]) -> str:
    """A sentence about features whose statistics were missing."""
    return f"{FILE} holds no statistics of {', '.join(missing)}; they are computed from the data"
