"""Camera frames of recorded states, as gym-pusht showed them when they were recorded."""

import numpy as np
from numpy.typing import NDArray

from il_bench.demos.ending import put
from il_bench.pusht.renderer import Image, Renderer
from il_bench.pusht.simulator import Simulator

SIZE = 96  # px, of lerobot/pusht
#: Seconds that nothing moves in: Chipmunk looks for contacts in a step only, and in none of length 0.
_INSTANT = 1e-9


class Drawer:
    """Draws states one by one; for one thread at a time.

    gym-pusht marks every contact of agent, block and walls in red. Chipmunk finds contacts after it has moved
    the bodies, so a recorded state is the one that its contacts were found in: they are found again.
    """

    def __init__(self) -> None:
        self._renderer, self._world = Renderer(), Simulator()

    def __call__(self, agent: NDArray[np.floating], pose: NDArray[np.floating]) -> Image:
        """Draw the agent at (2,) px and the block at `[x, y, angle]`: (96, 96, 3) uint8 RGB.

        Raises:
            IlBenchError: a number is not finite.
        """
        put(self._world, np.asarray(agent, np.float64), np.zeros(2), np.asarray(pose, np.float64))
        self._world.space.step(_INSTANT)
        marks = self._renderer.contact_marks(self._world.space)
        return self._renderer.frame(agent, pose, width=SIZE, height=SIZE, contacts=marks)
