"""PushT's frames, pixel for pixel as gym-pusht 0.1.8 draws them.

For every frame gym-pusht paints goal, block, agent, walls and contacts on a new 512 x 512 pygame surface and
resizes a copy of it. This module makes the same calls of pygame and OpenCV in the same order, but only for
what moves, and pygame paints right into an array that OpenCV can read. Only `Window` needs a screen.
"""

import math
import os
import warnings
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import cast

import numpy as np
import pymunk
from numpy.typing import NDArray
from pymunk.space_debug_draw_options import SpaceDebugColor

from il_bench.errors import IlBenchError
from il_bench.protocol import WORLD_SIZE
from il_bench.pusht import geometry
from il_bench.pusht.simulator import AGENT_RADIUS, Simulator

os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
with warnings.catch_warnings():
    warnings.filterwarnings("ignore", "pkg_resources is deprecated as an API")
    import pygame
_environment = dict(os.environ)
import cv2  # noqa: E402  (it sets variables for windows of Qt's, of which nothing here opens any)

os.environ.clear()
os.environ.update(_environment)

Image = NDArray[np.uint8]
Vector = Sequence[float] | NDArray[np.floating]
Mark = tuple[Sequence[float], Sequence[float]]
_Pixel = tuple[int, int]
_Color = tuple[int, int, int]
_Area = tuple[slice, slice]

SIZE = WORLD_SIZE  # px of the surface that gym-pusht draws on
# pymunk's debug drawing fills a shape with its colour, lightened by a fifth.
_GOAL = (144, 238, 144)
_BLOCK, _BLOCK_FILL = (119, 136, 153), (143, 163, 184)
_AGENT, _AGENT_FILL = (65, 105, 225), (78, 126, 255)
_WALL = (211, 211, 211)
_CONTACT = (231, 76, 60)
_ACTION = (255, 0, 0)

_EDGE_RADIUS = 2
_WALLS = [(5, 5), (506, 5), (506, 506), (5, 506)]
_REACH = 20  # px; no shape is painted further from its corners or centre, no wall further from the border


class Renderer:
    """Draws frames of PushT: the same arguments give the same frame, whatever was drawn before.

    The goal is where gym-pusht has it, at `geometry.GOAL_POSE`. A renderer works for one thread at a time.
    """

    def __init__(self) -> None:
        # The fourth byte is idle: pygame blends lines into surfaces of three bytes wrongly.
        self._canvas: Image = np.full((SIZE, SIZE, 4), 255, np.uint8)
        self._surface = pygame.image.frombuffer(cast(bytes, self._canvas), (SIZE, SIZE), "RGBX")
        self._rgb: Image = np.empty((SIZE, SIZE, 3), np.uint8)
        for box in (geometry.BAR, geometry.STEM):
            pygame.draw.polygon(self._surface, _GOAL, _corners(box, *geometry.GOAL_POSE))
        self._draw_edges(_WALL, _WALLS)
        self._background = self._canvas.copy()
        self._painted: list[_Area] = [(slice(0, SIZE), slice(0, SIZE))]
        self._contacts = _ContactMarks()

    def frame(
        self,
        agent_xy: Vector,
        block_pose: Vector,
        *,
        width: int = 96,
        height: int = 96,
        action: Vector | None = None,
        contacts: Iterable[Mark] = (),
    ) -> Image:
        """Draw agent and block: (height, width, 3) uint8 RGB, a new array.

        Args:
            agent_xy: (2,) the agent's position, px.
            block_pose: (3,) the block's `[x, y, angle]`, px and radians.
            width, height: of the frame, px.
            action: (2,) px, marked by a red cross as in gym-pusht's `render()`.
            contacts: what `contact_marks` reads off a world. gym-pusht draws a short red line wherever the
                block touches something, in observations too: its frames do not depend on the poses alone.

        Raises IlBenchError for wrong or infinite coordinates, and for a frame without pixels.
        """
        if width < 1 or height < 1:
            raise IlBenchError(f"a frame is at least 1 px wide and high, got width={width}, height={height}")
        agent = _pixel(_finite("agent_xy", agent_xy, 2))
        x, y, angle = _finite("block_pose", block_pose, 3)
        boxes = [_corners(box, x, y, angle) for box in (geometry.BAR, geometry.STEM)]
        marks = [[_pixel(_finite("contacts", end, 2)) for end in mark] for mark in contacts]
        target = None if action is None else _finite("action", action, 2)
        self._paint(agent, boxes, marks)
        image = cast(Image, cv2.resize(self._rgb, (width, height)))
        if target is not None:
            _mark_action(image, *target)
        return image

    def view(
        self, world: Simulator, *, width: int = 96, height: int = 96, action: Vector | None = None
    ) -> Image:
        """Draw a world as it is now, contacts included: (height, width, 3) uint8 RGB, a new array."""
        pose = world.block_x, world.block_y, world.block_angle
        agent = world.agent.position  # unlike `agent_x` and `agent_y` also right after `drive`
        marks = self.contact_marks(world.space)
        return self.frame(agent, pose, width=width, height=height, action=action, contacts=marks)

    def contact_marks(self, space: pymunk.Space) -> list[Mark]:
        """Read where bodies touched in a world's last step: `((x0, y0), (x1, y1))` px each, for `frame`."""
        self._contacts.marks = []
        space.debug_draw(self._contacts)
        return self._contacts.marks

    def _paint(self, agent: _Pixel, boxes: list[list[_Pixel]], marks: list[list[_Pixel]]) -> None:
        """Paint the world in gym-pusht's order: later shapes cover earlier ones."""
        surface, before = self._surface, self._painted
        block, circle = boxes[0] + boxes[1], [agent]
        self._painted = [area for points in (block, circle, *marks) if (area := _area(points))]
        for area in before:
            self._canvas[area] = self._background[area]
        if _area(block):
            for corners in boxes:
                pygame.draw.polygon(surface, _BLOCK_FILL, corners)
                self._draw_edges(_BLOCK, corners)
        if _area(circle):
            pygame.draw.circle(surface, _AGENT, agent, round(AGENT_RADIUS))
            pygame.draw.circle(surface, _AGENT_FILL, agent, round(AGENT_RADIUS - 4))
        moving = block + circle
        if min(map(min, moving)) < 2 * _REACH or max(map(max, moving)) > SIZE - 2 * _REACH:
            self._draw_edges(_WALL, _WALLS)
        for mark in filter(_area, marks):
            pygame.draw.aalines(surface, _CONTACT, False, mark)
        for area in before + self._painted:
            cv2.cvtColor(self._canvas[area], cv2.COLOR_RGBA2RGB, dst=self._rgb[area])

    def _draw_edges(self, color: _Color, corners: list[_Pixel]) -> None:
        """Draw a closed line with round corners, as gym-pusht's `draw_fat_segment` does each edge."""
        surface = self._surface
        pygame.draw.lines(surface, color, True, corners, 2 * _EDGE_RADIUS)
        for (ax, ay), (bx, by) in pairwise([*corners, corners[0]]):
            dx, dy = abs(bx - ax), abs(by - ay)
            scale = _EDGE_RADIUS / (dy * dy + dx * dx) ** 0.5
            # Not quite at a right angle to the edge: gym-pusht takes absolute values here.
            ox, oy = round(dy * scale), round(dx * scale)
            around = [(ax - ox, ay - oy), (ax + ox, ay + oy), (bx + ox, by + oy), (bx - ox, by - oy)]
            pygame.draw.polygon(surface, color, around)
            pygame.draw.circle(surface, color, (ax, ay), _EDGE_RADIUS)


class Window:
    """A window on the screen; with `SDL_VIDEODRIVER=dummy` nothing is shown."""

    def __init__(self) -> None:
        pygame.display.init()
        self._window = pygame.display.set_mode((SIZE, SIZE))
        self._clock = pygame.time.Clock()

    def show(self, image: Image) -> None:
        """Show a (512, 512, 3) frame; wait so that there are at most 100 a second, gym-pusht's limit."""
        self._window.blit(pygame.image.frombuffer(cast(bytes, image), (SIZE, SIZE), "RGB"), (0, 0))
        pygame.event.pump()
        self._clock.tick(100)
        pygame.display.update()

    def close(self) -> None:
        """Close the window; nothing can be shown afterwards."""
        pygame.display.quit()


class _ContactMarks(pymunk.SpaceDebugDrawOptions):
    """Collects the marks that pymunk's debug drawing would draw at contacts."""

    def __init__(self) -> None:
        super().__init__()
        self.flags = pymunk.SpaceDebugDrawOptions.DRAW_COLLISION_POINTS
        self.marks: list[Mark] = []

    def draw_segment(self, a: pymunk.Vec2d, b: pymunk.Vec2d, color: SpaceDebugColor) -> None:
        self.marks.append((a, b))


def _mark_action(image: Image, x: float, y: float) -> None:
    """Draw gym-pusht's marker of an action (px of the world) into a frame."""
    height, width, _ = image.shape
    # gym-pusht scales x by the height and y by the width; frames are usually square.
    # A place far out of sight is moved to where OpenCV's integers reach.
    center = [int(min(max(place, -1e6), 1e6)) for place in (x / SIZE * height, y / SIZE * width)]
    size, thickness = int(8 / 96 * min(height, width)), max(int(1 / 96 * min(height, width)), 1)
    cv2.drawMarker(image, center, _ACTION, cv2.MARKER_CROSS, markerSize=size, thickness=thickness)


def _finite(name: str, values: Vector, count: int) -> list[float]:
    try:
        numbers = [float(value) for value in values]
    except (TypeError, ValueError):
        numbers = []
    if len(numbers) != count or not all(map(math.isfinite, numbers)):
        raise IlBenchError(f"{name} must be {count} finite numbers, got {values!r}")
    return numbers


def _corners(box: Iterable[tuple[float, float]], x: float, y: float, angle: float) -> list[_Pixel]:
    """Pixels of a box of the T at this pose, added up in pymunk's order so that they round alike."""
    cos, sin = math.cos(angle), math.sin(angle)
    return [(round(u * cos - v * sin + x), round(u * sin + v * cos + y)) for u, v in box]


def _pixel(point: Sequence[float]) -> _Pixel:
    return round(point[0]), round(point[1])


def _area(points: Sequence[_Pixel]) -> _Area | None:
    """The part of the canvas that a shape may touch, or None: pygame cannot take coordinates far outside."""
    xs, ys = [x for x, _ in points], [y for _, y in points]
    left, right = max(min(xs) - _REACH, 0), min(max(xs) + _REACH, SIZE)
    top, bottom = max(min(ys) - _REACH, 0), min(max(ys) + _REACH, SIZE)
    return (slice(top, bottom), slice(left, right)) if left < right and top < bottom else None
