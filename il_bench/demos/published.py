"""lerobot/pusht as it is published, and how like it a data set made here is."""

import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from lerobot.utils.constants import ACTION, OBS_STATE
from numpy.typing import NDArray

from il_bench.demos.replay import IMAGE_SIZE
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
#: What share of the pixels of the original camera frames has to be identical, on average. The others lie on
#: edges of block and goal: where an edge crosses a row, pygame rounds down when it fills a polygon, and the
#: pygame of 2022 cut off instead. Filled like that, all 206 frames of the human demonstrations are identical.
IDENTICAL = 0.995
WHY = "edges of block and goal, which pygame rounded otherwise then"
#: Grey levels: a pixel further off than this is seen to be.
FAR = 16
ORIGINALS = "human_frames.npz"


@dataclass(frozen=True)
class Originals:
    """Camera frames of a data set as they were recorded.

    index: (F,) int64, the frame of the data set that each is of
    image: (F, 96, 96, 3) uint8 RGB
    """

    index: NDArray[np.int64]
    image: NDArray[np.uint8]


@dataclass(frozen=True)
class Likeness:
    """How like F original frames others are.

    same: (F,) float64, share of pixels that are identical in all three colours
    far:  (F,) int64, pixels that differ by more than FAR grey levels
    off:  mean of the absolute difference, grey levels
    """

    index: NDArray[np.int64]
    same: NDArray[np.float64]
    far: NDArray[np.int64]
    off: float

    @property
    def enough(self) -> bool:
        """Whether so many pixels are identical as in frames drawn from the recorded states."""
        return bool(self.same.mean() >= IDENTICAL)

    def __str__(self) -> str:
        worst = int(np.argmin(self.same))
        return (
            f"{self.same.mean():.3%} of the pixels of {len(self.same)} frames identical on average, "
            f"{self.same[worst]:.2%} in the worst (frame {self.index[worst]}); {self.far.mean():.1f} of "
            f"{IMAGE_SIZE**2} pixels more than {FAR} grey levels off, {self.off:.3f} grey levels on average"
        )


def read_originals(path: Path, n_frames: int) -> Originals:
    """Read original frames, a `.npz` with the arrays index and image, of a data set of `n_frames` frames.

    Raises:
        IlBenchError: naming the file, the array and what is wrong with it.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            index, image = archive["index"], archive["image"]
    except FileNotFoundError:
        raise IlBenchError(f"{path}: no such file; name a .npz with the arrays index and image") from None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise IlBenchError(
            f"{path}: not a .npz with the arrays index and image ({error}); copy it again"
        ) from None
    if index.ndim != 1 or index.dtype.kind not in "iu" or not len(index):
        raise IlBenchError(f"{path}: index: shape {index.shape} of {index.dtype}, expected (F,) integers")
    shape = (len(index), IMAGE_SIZE, IMAGE_SIZE, 3)
    if image.shape != shape or image.dtype != np.uint8:
        raise IlBenchError(f"{path}: image: shape {image.shape} of {image.dtype}, expected {shape} of uint8")
    outside = index[(index < 0) | (index >= n_frames)]
    if len(outside):
        raise IlBenchError(
            f"{path}: index: {outside[0]} is no frame of this data set, which has {n_frames}; the frames are "
            "of other data"
        )
    return Originals(index.astype(np.int64), image)


def compare(originals: Originals, frame: Callable[[int], Image]) -> Likeness:
    """Compare each original with `frame(index)`, (96, 96, 3) uint8 RGB."""
    ours = np.stack([frame(index) for index in originals.index.tolist()])
    difference = np.abs(ours.astype(np.int16) - originals.image.astype(np.int16))
    worst = difference.max(axis=-1)
    return Likeness(
        index=originals.index,
        same=(worst == 0).mean(axis=(1, 2)),
        far=(worst > FAR).sum(axis=(1, 2)),
        off=float(difference.mean()),
    )


def range_differences(stats: dict[str, dict[str, Any]]) -> list[str]:
    """One text a published range that is not that of these statistics: 'action max [510. 511.], not ..'."""
    return [
        f"{key} {which} {np.asarray(stats[key][which])}, not {values}"
        for key, ranges in RANGES.items()
        for which, values in ranges.items()
        if not np.allclose(np.asarray(stats[key][which]), values, rtol=0, atol=RANGE_TOLERANCE)
    ]
