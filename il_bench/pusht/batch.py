"""Many PushT worlds stepped by one call, observed as LeRobot's policies observe them."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from il_bench.errors import IlBenchError
from il_bench.pusht.geometry import block_keypoints
from il_bench.pusht.simulator import Simulator


class PushTBatch:
    """A batch of independent worlds.

    After `reset` and `step`: `agent` (B, 2) and `pose` (B, 3), float64, the agents' positions and the blocks'
    `[x, y, angle]`; `coverage` (B,) float64.
    """

    agent: NDArray[np.float64]
    pose: NDArray[np.float64]
    coverage: NDArray[np.float64]

    def __init__(self) -> None:
        self._simulators: list[Simulator] = []

    def __len__(self) -> int:
        return len(self._simulators)

    def reset(self, seeds: Sequence[int] | NDArray[np.int64]) -> None:
        """Start one world per seed, at gym-pusht's start state of that seed."""
        self._simulators = self._simulators[: len(seeds)]
        self._simulators += [Simulator() for _ in range(len(seeds) - len(self._simulators))]
        for simulator, seed in zip(self._simulators, seeds, strict=True):
            simulator.reset(int(seed))
        self.agent = np.array([(s.agent_x, s.agent_y) for s in self._simulators]).reshape(-1, 2)
        self.pose = np.array([(s.block_x, s.block_y, s.block_angle) for s in self._simulators]).reshape(-1, 3)
        self.coverage = np.array([s.coverage() for s in self._simulators])

    def step(
        self, actions: NDArray[np.floating], active: NDArray[np.bool_] | None = None
    ) -> NDArray[np.float64]:
        """Step the active worlds and leave the others as they are.

        Args:
            actions: (B, 2) targets of the agents, px. Rows of inactive worlds are ignored.
            active: (B,) bool, default all.

        Returns:
            (B,) the batch's `coverage`; for inactive worlds what it was.

        Raises:
            IlBenchError: `actions` or `active` has another shape, or an active row is not finite.
        """
        n = len(self)
        active = np.ones(n, np.bool_) if active is None else active
        if actions.shape != (n, 2) or active.shape != (n,):
            raise IlBenchError(
                f"a batch of {n} worlds takes actions of shape ({n}, 2) and active of shape ({n},), "
                f"got {actions.shape} and {active.shape}"
            )
        rows = np.flatnonzero(active)
        agents, poses, coverages = [], [], []
        for i, (ax, ay) in zip(rows.tolist(), actions[rows].tolist(), strict=True):
            simulator = self._simulators[i]
            simulator.step(ax, ay)
            agents.append((simulator.agent_x, simulator.agent_y))
            poses.append((simulator.block_x, simulator.block_y, simulator.block_angle))
            coverages.append(simulator.coverage())
        if len(rows):
            self.agent[rows], self.pose[rows], self.coverage[rows] = agents, poses, coverages
        return self.coverage

    def observations(self) -> dict[str, NDArray[np.float32]]:
        """Observe all: `observation.state` (B, 2), `observation.environment_state` (B, 16), float32."""
        return {
            "observation.state": self.agent.astype(np.float32),
            "observation.environment_state": block_keypoints(self.pose).astype(np.float32),
        }
