"""Checks on PushT demonstrations. Each failure is an IlBenchError: the place, the value and the way out.

`where` names the place: a file or folder, and the array in it.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from il_bench.errors import IlBenchError

# The walls stand at 5 and 506 px, but they do not stop the agent, so allow some room.
POSITION_LOW, POSITION_HIGH = -100.0, 612.0
# Four turns: real demonstrations keep the block's angle in [0, 2 pi), an unwrapped angle may go beyond.
ANGLE_LIMIT = 8 * np.pi


def check_numbers(where: str, array: NDArray[Any], columns: int) -> None:
    """Check that `array` is (N, columns) with N > 0, real numbers, all of them finite."""
    if array.dtype.kind not in "fiu":
        raise IlBenchError(f"{where}: dtype {array.dtype}, expected real numbers such as float32")
    if array.ndim != 2 or array.shape[1] != columns:
        raise IlBenchError(f"{where}: shape {array.shape}, expected (number of frames, {columns})")
    if len(array) == 0:
        raise IlBenchError(f"{where}: no frames; a dataset needs at least one episode with one frame")
    _refuse(where, array, ~np.isfinite(array), "", "remove or repair those episodes")


def check_range(where: str, array: NDArray[Any], low: float, high: float, unit: str) -> None:
    """Check that every value of a (N, columns) array lies in [low, high]."""
    bad = (array < low) | (array > high)
    _refuse(where, array, bad, f", outside [{low:g}, {high:g}]", f"expected {unit}")


def _refuse(where: str, array: NDArray[Any], bad: NDArray[np.bool_], what: str, way_out: str) -> None:
    """Raise for the first bad value of an (N, columns) array, if there is one."""
    if bad.any():
        row, column = np.argwhere(bad)[0]
        raise IlBenchError(
            f"{where}: {array[row, column]:g} at frame {row}, column {column}{what}"
            f" ({bad.sum()} such values); {way_out}"
        )


def check_pixels(where: str, array: NDArray[Any], low: float, high: float) -> None:
    """Check positions in px, (N, columns), and catch data that were normalised to [0, 1] or [-1, 1]."""
    check_range(where, array, low, high, "px, as in PushT's 512 x 512 px world")
    if np.abs(array).max() <= 1.0:
        raise IlBenchError(
            f"{where}: all values within [{array.min():g}, {array.max():g}], which looks normalised;"
            " give positions in px, 0 to 512"
        )


def check_episode_ends(where: str, ends: NDArray[Any], n_frames: int) -> None:
    """Check that `ends` (episodes,) are rising integers > 0 and that the last one is `n_frames`."""
    if ends.dtype.kind not in "iu" or ends.ndim != 1:
        raise IlBenchError(
            f"{where}: shape {ends.shape} and dtype {ends.dtype}, expected (number of episodes,) integers"
        )
    if len(ends) == 0:
        raise IlBenchError(f"{where}: no episodes; each entry is one past the last frame of an episode")
    steps = np.diff(ends.astype(np.int64), prepend=0)
    if (steps <= 0).any():
        episode = int(np.argmax(steps <= 0))
        raise IlBenchError(
            f"{where}: entry {episode} is {ends[episode]} after {ends[episode] - steps[episode]}; episode"
            " ends must rise, each is one past the last frame of its episode"
        )
    if ends[-1] != n_frames:
        raise IlBenchError(
            f"{where}: the last entry is {ends[-1]}, but there are {n_frames} frames;"
            " the file is incomplete or the arrays come from different datasets"
        )
