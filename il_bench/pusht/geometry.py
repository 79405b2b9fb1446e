"""The T: its outline, its frame, its keypoints in the world, and how much of the goal it covers.

Lengths are px of gym-pusht's 512 x 512 world (y points down), angles are radians. The block's frame has its
origin in the middle of the bar's outer edge::

    0 ----------- 1        0 (-60, 0)   1 (60, 0)    2 (60, 30)    3 (-60, 30)
    3 -- 4   5 -- 2        4 (-15, 30)  5 (15, 30)   6 (15, 120)   7 (-15, 120)
         |   |
         7 - 6
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

#: The T's two boxes, in gym-pusht's order of vertices.
BAR = ((-60.0, 0.0), (60.0, 0.0), (60.0, 30.0), (-60.0, 30.0))
STEM = ((-15.0, 30.0), (15.0, 30.0), (15.0, 120.0), (-15.0, 120.0))
#: One closed polygon.
OUTLINE = (BAR[0], BAR[1], BAR[2], STEM[1], STEM[2], STEM[3], STEM[0], BAR[3])
GOAL_POSE = (256.0, 256.0, math.pi / 4)
AREA = 120.0 * 30.0 + 30.0 * 90.0

_KEYPOINTS = np.array(BAR + STEM)
_BOXES = ((0.0, 15.0, 60.0, 15.0), (0.0, 75.0, 15.0, 45.0))  # middle x, y, half width, half height: bar, stem
_GOAL_BOXES = ((-60.0, 60.0, 0.0, 30.0), (-15.0, 15.0, 30.0, 120.0))  # x0, x1, y0, y1 in the goal's frame
# Two T's can only meet while the middles of their bounding circles are less than two radii apart.
_MIDDLE_Y = 45.9375  # the point (0, y) as far from (60, 0) as from (15, 120)
_REACH = 2.0 * math.hypot(60.0, _MIDDLE_Y) + 1e-6


def block_keypoints(pose: ArrayLike) -> Array:
    """The T's 8 corners in the world, gym-pusht's `get_keypoints` to the bit.

    Takes block poses (..., 3) `[x, y, angle]`, gives (..., 16) float64 `[x0, y0, x1, y1, ...]`.
    """
    pose = np.asarray(pose, np.float64)
    x, y, angle = pose[..., 0, None], pose[..., 1, None], pose[..., 2]
    # numpy's sin and cos may differ in the last bit from the C library's, and with the length of the array.
    cos = np.array([math.cos(a) for a in angle.ravel().tolist()]).reshape(*angle.shape, 1)
    sin = np.array([math.sin(a) for a in angle.ravel().tolist()]).reshape(*angle.shape, 1)
    keypoints = np.empty((*angle.shape, 16))
    keypoints[..., 0::2] = _KEYPOINTS[:, 0] * cos - _KEYPOINTS[:, 1] * sin + x
    keypoints[..., 1::2] = _KEYPOINTS[:, 0] * sin + _KEYPOINTS[:, 1] * cos + y
    return keypoints


def keypoints_at(x: float, y: float, angle: float) -> Array:
    """Like `block_keypoints` for one pose, several times faster: (16,) float64."""
    cos, sin = math.cos(angle), math.sin(angle)
    flat: list[float] = []
    for u, v in BAR + STEM:
        flat += (u * cos - v * sin + x, u * sin + v * cos + y)
    return np.array(flat)


def into_frame(points: ArrayLike, pose: ArrayLike) -> Array:
    """World points (..., 2) as seen from blocks at `pose` (..., 3) `[x, y, angle]`."""
    points, pose = np.asarray(points, np.float64), np.asarray(pose, np.float64)
    cos, sin = np.cos(pose[..., 2]), np.sin(pose[..., 2])
    x, y = points[..., 0] - pose[..., 0], points[..., 1] - pose[..., 1]
    return np.stack([x * cos + y * sin, y * cos - x * sin], axis=-1)


def out_of_frame(points: ArrayLike, pose: ArrayLike) -> Array:
    """World points (..., 2) of those in the frames of blocks at `pose` (..., 3) `[x, y, angle]`."""
    return np.stack(xy_out_of_frame(points, pose), axis=-1)


def xy_out_of_frame(points: ArrayLike, pose: ArrayLike) -> tuple[Array, Array]:
    """Like `out_of_frame`, x (...) and y (...) apart: numpy is slow along an axis of two."""
    points, pose = np.asarray(points, np.float64), np.asarray(pose, np.float64)
    cos, sin = np.cos(pose[..., 2]), np.sin(pose[..., 2])
    x = points[..., 0] * cos - points[..., 1] * sin + pose[..., 0]
    y = points[..., 0] * sin + points[..., 1] * cos + pose[..., 1]
    return x, y


def signed_distance(points: ArrayLike) -> Array:
    """Distance (...) px from the T of points (..., 2) in the block's frame.

    Inside the T it is negative, and only a bound: the depth in the deeper of the two boxes.
    """
    points = np.asarray(points, np.float64)
    distances = []
    for x, y, half_x, half_y in _BOXES:
        dx = np.abs(points[..., 0] - x) - half_x
        dy = np.abs(points[..., 1] - y) - half_y
        outside = np.hypot(np.maximum(dx, 0.0), np.maximum(dy, 0.0))
        distances.append(outside + np.minimum(np.maximum(dx, dy), 0.0))
    return np.asarray(np.minimum(*distances))


def coverage(x: float, y: float, angle: float, goal: tuple[float, float, float] = GOAL_POSE) -> float:
    """Area that the T at this pose shares with the T at the goal's pose / area of a T, in [0, 1].

    Exact up to rounding (about 1e-15): the overlap is a sum of trapezoids under the T's outline, clipped to
    the goal's two boxes in the goal's frame.
    """
    dx, dy = x - goal[0], y - goal[1]
    goal_cos, goal_sin = math.cos(goal[2]), math.sin(goal[2])
    origin_x = dx * goal_cos + dy * goal_sin
    origin_y = dy * goal_cos - dx * goal_sin
    cos, sin = math.cos(angle - goal[2]), math.sin(angle - goal[2])
    if math.hypot(origin_x - _MIDDLE_Y * sin, origin_y + _MIDDLE_Y * (cos - 1.0)) > _REACH:
        return 0.0
    outline = [(origin_x + u * cos - v * sin, origin_y + u * sin + v * cos) for u, v in OUTLINE]
    area = math.fsum(_area_inside(outline, *box) for box in _GOAL_BOXES)
    return min(max(area / AREA, 0.0), 1.0)


def _area_inside(polygon: Sequence[tuple[float, float]], x0: float, x1: float, y0: float, y1: float) -> float:
    """Area of a polygon (its inside on the left of its edges) inside the box [x0, x1] x [y0, y1]."""
    area = 0.0
    xa, ya = polygon[-1]
    for xb, yb in polygon:
        if xa < xb:
            if xa < x1 and xb > x0 and (ya > y0 or yb > y0):
                area -= _area_under(xa, ya, xb, yb, x0, x1, y0, y1)
        elif xb < xa and xb < x1 and xa > x0 and (ya > y0 or yb > y0):
            area += _area_under(xb, yb, xa, ya, x0, x1, y0, y1)
        xa, ya = xb, yb
    return area


def _area_under(
    xa: float, ya: float, xb: float, yb: float, x0: float, x1: float, y0: float, y1: float
) -> float:
    """Area of the box [x0, x1] x [y0, y1] on the low-y side of an edge with xa < xb that meets [x0, x1]."""
    slope = (yb - ya) / (xb - xa)
    if xb > x1:
        xb, yb = x1, ya + slope * (x1 - xa)
    if xa < x0:
        xa, ya = x0, ya + slope * (x0 - xa)
    if ya > yb:  # mirror, so that the edge rises: the area stays
        xa, ya, xb, yb, slope = -xb, yb, -xa, ya, -slope
    if yb <= y0:
        return 0.0
    height = y1 - y0
    if ya >= y1:
        return height * (xb - xa)
    area = 0.0
    if yb > y1:
        cut = min(max(xa + (y1 - ya) / slope, xa), xb)
        area = height * (xb - cut)
        xb, yb = cut, y1
    if ya < y0:
        xa, ya = min(max(xa + (y0 - ya) / slope, xa), xb), y0
    return area + 0.5 * ((ya - y0) + (yb - y0)) * (xb - xa)
