"""Changes of camera images (B, C, H, W) in [0, 1], float32. None changes its input.

`places` (B, 2) in [0, 1): a place in each image, as shares of what its height and width leave free.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Images = NDArray[np.float32]
Places = NDArray[np.float64]
Change = Callable[[Images, float, Places], Images]

_GREY = np.float32(0.5)


def darker(images: Images, share: float, places: Places) -> Images:
    """Every value times `1 - share`."""
    return images * np.float32(1.0 - share)


def blurred(images: Images, px: float, places: Places) -> Images:
    """A Gaussian of standard deviation `px`; the edges are repeated."""
    found: Images = ndimage.gaussian_filter(images, px, mode="nearest", axes=(2, 3))
    return found


def shifted(images: Images, px: float, places: Places) -> Images:
    """The scene moved right and down by `px` pixels, as by a knocked camera; the edges are repeated."""
    by = int(px)
    rows, columns = (np.maximum(np.arange(n) - by, 0) for n in images.shape[2:])
    return images[:, :, rows[:, None], columns]


def occluded(images: Images, px: float, places: Places) -> Images:
    """A grey square of `px` a side at each image's place."""
    found, side = images.copy(), int(px)
    free = np.maximum(np.array(images.shape[2:]) - side, 0)
    for image, (y, x) in zip(found, (places * (free + 1)).astype(int), strict=True):
        image[:, y : y + side, x : x + side] = _GREY
    return found
