"""The T as an obstacle, for arrays of points: how far away it is, and its frame."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

_BOXES = ((0.0, 15.0, 60.0, 15.0), (0.0, 75.0, 15.0, 45.0))  # middle x, y, half width, half height: bar, stem


def signed_distance(points: ArrayLike) -> NDArray[np.float64]:
    """Distance of points (..., 2) of the block's frame from the T, (...) px.

    Inside the T it is negative, and there only a bound: the depth in the deeper of its two boxes.
    """
    points = np.asarray(points, np.float64)
    distances = []
    for x, y, half_x, half_y in _BOXES:
        dx = np.abs(points[..., 0] - x) - half_x
        dy = np.abs(points[..., 1] - y) - half_y
        outside = np.hypot(np.maximum(dx, 0.0), np.maximum(dy, 0.0))
        distances.append(outside + np.minimum(np.maximum(dx, dy), 0.0))
    return np.asarray(np.minimum(*distances))


def into_frame(points: ArrayLike, pose: ArrayLike) -> NDArray[np.float64]:
    """World points (..., 2) as seen from blocks at `pose` (..., 3) `[x, y, angle]`."""
    points, pose = np.asarray(points, np.float64), np.asarray(pose, np.float64)
    cos, sin = np.cos(pose[..., 2]), np.sin(pose[..., 2])
    x, y = points[..., 0] - pose[..., 0], points[..., 1] - pose[..., 1]
    return np.stack([x * cos + y * sin, y * cos - x * sin], axis=-1)


def out_of_frame(points: ArrayLike, pose: ArrayLike) -> NDArray[np.float64]:
    """Points (..., 2) of the frames of blocks at `pose` (..., 3) `[x, y, angle]`, in the world."""
    points, pose = np.asarray(points, np.float64), np.asarray(pose, np.float64)
    cos, sin = np.cos(pose[..., 2]), np.sin(pose[..., 2])
    x = points[..., 0] * cos - points[..., 1] * sin + pose[..., 0]
    y = points[..., 0] * sin + points[..., 1] * cos + pose[..., 1]
    return np.stack([x, y], axis=-1)
