"""Many PushT worlds stepped by one call, observed as LeRobot's policies observe them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from il_bench.errors import IlBenchError
from il_bench.pusht.geometry import Array, block_keypoints
from il_bench.pusht.simulator import DT, K_P, K_V, N_SUBSTEPS, Simulator, chipmunk_vectors, start_of

if TYPE_CHECKING:  # rollouts on keypoints need no pygame
    from il_bench.pusht.renderer import Renderer


@dataclass(frozen=True)
class Camera:
    """The image that a policy asks for: its key in the observation, and its size in px."""

    key: str
    width: int
    height: int

    def frames(self, renderer: "Renderer", worlds: Iterable[Simulator]) -> NDArray[np.uint8]:
        """gym-pusht's `pixels` observation of some worlds, (B, height, width, 3) uint8."""
        return np.stack([renderer.view(world, width=self.width, height=self.height) for world in worlds])


def as_images(frames: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Frames (B, H, W, 3) as LeRobot's `preprocess_observation` makes them: (B, 3, H, W) in [0, 1]."""
    channels_first = np.ascontiguousarray(frames.transpose(0, 3, 1, 2))
    return channels_first.astype(np.float32) / np.float32(255)


class PushTBatch:
    """A batch of B independent worlds, to be `reset` first.

    damping, friction, k_p: as for `Simulator`; None: gym-pusht's.
    """

    agent: Array  # (B, 2) the agents' positions, px
    pose: Array  # (B, 3) the blocks' `[x, y, angle]`
    coverage: Array  # (B,)

    def __init__(
        self, *, damping: float | None = None, friction: float | None = None, k_p: float | None = None
    ) -> None:
        self._damping, self._friction, self._k_p = damping, friction, k_p
        self._simulators: list[Simulator] = []
        self._renderer: Renderer | None = None

    def __len__(self) -> int:
        return len(self._simulators)

    def reset(self, seeds: Sequence[int] | NDArray[np.int64]) -> None:
        """Start one world per seed, at gym-pusht's start state of that seed."""
        self._simulators = self._simulators[: len(seeds)]
        while len(self._simulators) < len(seeds):
            self._simulators.append(Simulator(damping=self._damping, friction=self._friction))
        for simulator, seed in zip(self._simulators, seeds, strict=True):
            simulator.set_state(self.start_of(int(seed)))
        self.agent = np.array([(s.agent_x, s.agent_y) for s in self._simulators]).reshape(-1, 2)
        self.pose = np.array([(s.block_x, s.block_y, s.block_angle) for s in self._simulators]).reshape(-1, 3)
        self.coverage = np.array([s.coverage() for s in self._simulators])
        self._keypoints = block_keypoints(self.pose)  # (B, 16)
        self._moved = np.ones(len(self), np.bool_)  # since they were drawn last
        self._camera: Camera | None = None  # whose frames are in _drawn
        self._agent_velocity = np.zeros((len(self), 2))
        self._velocities = np.empty((len(self), N_SUBSTEPS, 2))  # of the agents, in the last step
        self._vectors = [chipmunk_vectors(velocities) for velocities in self._velocities]

    def start_of(self, seed: int) -> Sequence[float]:
        """The start state of a seed, as `Simulator.set_state` takes it: gym-pusht's."""
        return start_of(seed)

    def step(self, actions: NDArray[np.floating], active: NDArray[np.bool_] | None = None) -> Array:
        """Step the active worlds and leave the others as they are.

        Args:
            actions: (B, 2) targets of the agents, px. Rows of inactive worlds are ignored.
            active: (B,) bool, default all.

        Returns:
            (B,) the batch's `coverage`; an inactive world keeps its last one.

        Raises IlBenchError if `actions` or `active` has another shape, or an active row is not finite.
        """
        n = len(self)
        active = np.ones(n, np.bool_) if active is None else active
        if actions.shape != (n, 2) or active.shape != (n,):
            raise IlBenchError(
                f"a batch of {n} worlds takes actions of shape ({n}, 2) and active of shape ({n},), "
                f"got {actions.shape} and {active.shape}"
            )
        bad = active & ~np.isfinite(actions).all(axis=1)
        if bad.any():
            ax, ay = actions[np.argmax(bad)].tolist()
            raise IlBenchError(f"action must be finite, got ({ax}, {ay})")
        rows = np.flatnonzero(active)
        if not len(rows):
            return self.coverage
        self._moved[rows] = True
        self._control(rows, actions[rows].astype(np.float64))
        poses = []
        for i in rows.tolist():
            simulator = self._simulators[i]
            simulator.drive(self._vectors[i])
            poses.append((simulator.block_x, simulator.block_y, simulator.block_angle))
        new = np.array(poses)
        moved = (new != self.pose[rows]).any(axis=1)  # a block at rest keeps its pose to the bit
        if moved.any():
            where = rows[moved]
            self.pose[where] = new[moved]
            self.coverage[where] = [self._simulators[i].coverage() for i in where.tolist()]
            self._keypoints[where] = block_keypoints(self.pose[where])
        return self.coverage

    def _control(self, rows: NDArray[np.intp], targets: Array) -> None:
        """Integrate the agents of these rows; every float is rounded as in `Simulator.step`."""
        x, v = self.agent[rows], self._agent_velocity[rows]
        velocities = np.empty((N_SUBSTEPS, len(rows), 2))
        k_p = K_P if self._k_p is None else self._k_p
        for substep in range(N_SUBSTEPS):
            v += (k_p * (targets - x) - K_V * v) * DT
            velocities[substep] = v
            x += v * DT
        self._velocities[rows] = velocities.swapaxes(0, 1)
        self.agent[rows], self._agent_velocity[rows] = x, v

    def observations(self, camera: Camera | None = None) -> dict[str, NDArray[np.float32]]:
        """Observe all worlds, float32: `observation.state` (B, 2), `observation.environment_state` (B, 16).

        With a camera, its image (B, 3, height, width) in [0, 1] replaces the second.
        """
        agents = {"observation.state": self.agent.astype(np.float32)}
        if camera is None:
            return {**agents, "observation.environment_state": self._keypoints.astype(np.float32)}
        return {**agents, camera.key: self._images(camera)}

    def _images(self, camera: Camera) -> NDArray[np.float32]:
        """All images; only the worlds that moved since they were drawn last are drawn again."""
        from il_bench.pusht.renderer import Renderer

        self._renderer = self._renderer or Renderer()
        if self._camera != camera:
            self._camera = camera
            self._drawn = np.zeros((len(self), camera.height, camera.width, 3), np.uint8)
            self._moved[:] = True
        if self._moved.any():
            moved = [self._simulators[i] for i in np.flatnonzero(self._moved).tolist()]
            self._drawn[self._moved] = camera.frames(self._renderer, moved)
            self._moved[:] = False
        return as_images(self._drawn)
