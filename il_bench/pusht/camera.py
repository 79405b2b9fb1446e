"""PushT as a policy on images sees it."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # loading a policy needs no pygame
    from il_bench.pusht.renderer import Renderer
    from il_bench.pusht.simulator import Simulator


@dataclass(frozen=True)
class Camera:
    """The image that a policy asks for: the key it expects it under, and its size in px."""

    key: str
    width: int
    height: int


def view_of_each(renderer: "Renderer", worlds: Iterable["Simulator"], camera: Camera) -> NDArray[np.uint8]:
    """gym-pusht's `pixels` observation of some worlds, (B, height, width, 3) uint8."""
    return np.stack([renderer.view(world, width=camera.width, height=camera.height) for world in worlds])


def as_images(frames: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Frames (B, H, W, 3) as LeRobot's `preprocess_observation` makes them: (B, 3, H, W) in [0, 1]."""
    channels_first = np.ascontiguousarray(frames.transpose(0, 3, 1, 2))
    return channels_first.astype(np.float32) / np.float32(255)
