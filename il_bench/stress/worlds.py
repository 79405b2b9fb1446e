"""Worlds in which one thing is other than in PushT. What is random depends on the seed and the arm alone.

Draws are made for a whole episode at its start and do not depend on the level, so that a stronger
disturbance is the same one, only stronger. Physics with another constant needs no class: see `PushTBatch`.
"""

from collections import deque
from collections.abc import Sequence
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from il_bench.protocol import MAX_STEPS
from il_bench.pusht.batch import Camera, PushTBatch
from il_bench.pusht.geometry import Array
from il_bench.stress.images import Change

Seeds = Sequence[int] | NDArray[np.int64]

#: Steps before which a block is not pushed, and by which it has been.
FIRST_PUSH, LAST_PUSH = 20, 60
#: Where a block's centre of mass may lie whatever its angle: no corner reaches a wall.
_NEAREST, _FARTHEST = 95.0, 416.0
_START_Y = 100.0  # px; gym-pusht's blocks start at this y or a larger one


def generators(arm: str, seeds: Seeds) -> list[np.random.Generator]:
    """A generator for each seed, of this arm alone."""
    return [np.random.default_rng([int(seed), crc32(arm.encode())]) for seed in seeds]


class LateActions(PushTBatch):
    """Every action is carried out `n_steps` later; until the first, the agent stays."""

    def __init__(self, n_steps: float) -> None:
        super().__init__()
        self._late = int(n_steps)

    def reset(self, seeds: Seeds) -> None:
        """See `PushTBatch.reset`."""
        super().reset(seeds)
        self._coming = deque([self.agent.copy()] * self._late)

    def step(self, actions: NDArray[np.floating], active: NDArray[np.bool_] | None = None) -> Array:
        """See `PushTBatch.step`."""
        self._coming.append(np.array(actions, np.float64))
        return super().step(self._coming.popleft(), active)


class LostActions(PushTBatch):
    """A share of the actions is lost: then the last target holds, or, if `stops`, the agent's own place."""

    def __init__(self, share: float, *, stops: bool) -> None:
        super().__init__()
        self._share, self._stops = share, stops

    def reset(self, seeds: Seeds) -> None:
        """See `PushTBatch.reset`."""
        super().reset(seeds)
        name = "drop" if self._stops else "hold"
        self._draws = np.array([rng.random(MAX_STEPS) for rng in generators(name, seeds)]).T  # (T, B)
        self._last, self._n = self.agent.copy(), 0

    def step(self, actions: NDArray[np.floating], active: NDArray[np.bool_] | None = None) -> Array:
        """See `PushTBatch.step`."""
        lost = (self._draws[self._n] < self._share)[:, None]
        self._last = np.where(lost, self.agent if self._stops else self._last, actions)
        self._n += 1
        return super().step(self._last, active)


class NoisyObservations(PushTBatch):
    """Normal noise on every number that a policy is told: agent and keypoints, anew at each step."""

    def __init__(self, px: float) -> None:
        super().__init__()
        self._px = px

    def reset(self, seeds: Seeds) -> None:
        """See `PushTBatch.reset`."""
        super().reset(seeds)
        drawn = [rng.standard_normal((MAX_STEPS, 18)) for rng in generators("noise", seeds)]
        self._noise = self._px * np.array(drawn).swapaxes(0, 1)  # (T, B, 18)
        self._n = 0

    def observations(self, camera: Camera | None = None) -> dict[str, NDArray[np.float32]]:
        """See `PushTBatch.observations`."""
        seen = super().observations(camera)
        noise = self._noise[self._n].astype(np.float32)
        self._n += 1
        added = {"observation.state": noise[:, :2], "observation.environment_state": noise[:, 2:]}
        return {key: value + added[key] if key in added else value for key, value in seen.items()}


class PushedBlocks(PushTBatch):
    """Once, before a random step, the block is moved by `px` in a random direction, away from the walls."""

    def __init__(self, px: float) -> None:
        super().__init__()
        self._px = px

    def reset(self, seeds: Seeds) -> None:
        """See `PushTBatch.reset`."""
        super().reset(seeds)
        drawn = generators("push", seeds)
        self._at = np.array([rng.integers(FIRST_PUSH, LAST_PUSH) for rng in drawn])
        angles = np.array([rng.uniform(-np.pi, np.pi) for rng in drawn])
        self._by = self._px * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        self._n = 0

    def step(self, actions: NDArray[np.floating], active: NDArray[np.bool_] | None = None) -> Array:
        """See `PushTBatch.step`."""
        pushed = self._at == self._n if active is None else active & (self._at == self._n)
        for row in np.flatnonzero(pushed).tolist():
            block = self._simulators[row].block
            middle = np.array(block.local_to_world(block.center_of_gravity))
            by = away_from_walls(middle, self._by[row])
            block.position = (block.position.x + by[0].item(), block.position.y + by[1].item())
        self._n += 1
        return super().step(actions, active)


def away_from_walls(middle: Array, by: Array) -> Array:
    """A move (2,) of a block whose centre of mass is at `middle` (2,): mirrored where it would hit a wall."""
    after = middle + by
    return np.where((after < _NEAREST) | (after > _FARTHEST), -by, by)


class StartsAbove(PushTBatch):
    """The block starts `px` above the strip in which gym-pusht's blocks start; all else is the seed's."""

    def __init__(self, px: float) -> None:
        super().__init__()
        self._px = px

    def start_of(self, seed: int) -> Sequence[float]:
        """See `PushTBatch.start_of`."""
        agent_x, agent_y, block_x, _, angle = super().start_of(seed)
        return agent_x, agent_y, block_x, _START_Y - self._px, angle


class ChangedImages(PushTBatch):
    """A policy's camera image is changed; where that takes a place, it is drawn once for each episode."""

    def __init__(self, level: float, *, change: Change) -> None:
        super().__init__()
        self._level, self._change = level, change

    def reset(self, seeds: Seeds) -> None:
        """See `PushTBatch.reset`."""
        super().reset(seeds)
        self._places = np.array([rng.random(2) for rng in generators("image", seeds)])

    def observations(self, camera: Camera | None = None) -> dict[str, NDArray[np.float32]]:
        """See `PushTBatch.observations`."""
        seen = super().observations(camera)
        if camera is not None:
            seen[camera.key] = self._change(seen[camera.key], self._level, self._places)
        return seen
