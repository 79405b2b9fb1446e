"""Every straight push the expert may try, with what it does to the block: a table in the block's own frame.

The block stops when nobody pushes it (its damping is 0), and contacts have no friction. So what a push does
depends only on where the agent stands on the block, in which direction it moves and how far, and away from
walls one table in the block's frame, measured in the exact simulator, holds everywhere. All pushes go
straight along an edge's inward normal: others save few steps and make the expert's answers harder to copy.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from il_bench.pusht.geometry import OUTLINE, Array, into_frame, out_of_frame, signed_distance
from il_bench.pusht.simulator import AGENT_RADIUS, Simulator

GAP = 6.0  # px between agent and block where a push starts
CORNERS = np.array(OUTLINE)  # (8, 2) the T's, in its own frame

_SPACING = 6.0  # between neighbouring contact points, px
_CORNER = 5.0  # contact points keep this far from a corner, px
_LENGTHS = np.arange(2.0, 126.0, 3.0) + GAP
_LOOKAHEAD = 5.0  # px; a slow push, so that many states lie along the way
_MIN_MOTION = 4.0  # RMS px of the corners; a shorter push is lost in the agent's own inaccuracy


@dataclass(frozen=True)
class Pushes:
    """G places to push from ("gates") and N pushes, all in the frame of the block before the push."""

    gates: Array  # (G, 2) where the agent's centre starts, `GAP` short of touching, px
    directions: Array  # (G, 2) unit vectors
    gate: NDArray[np.int64]  # (N,) index of the gate that each push starts at
    length: Array  # (N,) how far the agent moves from its gate, px
    motion: Array  # (N, 3) the block's `[x, y, angle]` afterwards
    end: Array  # (N, 2) where the agent stands afterwards, in the frame of the block afterwards


@cache
def pushes() -> Pushes:
    """Measure the table: two tenths of a second, once a process."""
    gates, directions = _gates()
    simulator = Simulator()
    gate, length, motion, end = [], [], [], []
    for index, (start, direction) in enumerate(zip(gates, directions, strict=True)):
        block, agent = _measure(simulator, start, direction)
        moved = out_of_frame(CORNERS, block[:, None]) - CORNERS
        keep = np.flatnonzero(np.sqrt((moved**2).sum(axis=-1).mean(axis=-1)) >= _MIN_MOTION)
        gate.append(np.full(len(keep), index))
        length.append(_LENGTHS[keep])
        motion.append(block[keep])
        end.append(into_frame(agent[keep], block[keep]))
    columns = [np.concatenate(parts) for parts in (length, motion, end)]
    return Pushes(gates, directions, np.concatenate(gate), *columns)


def _gates() -> tuple[Array, Array]:
    """Places and directions of all pushes: points along the outline that the agent has room to stand at."""
    gates, directions = [], []
    for a, b in zip(CORNERS, np.roll(CORNERS, -1, axis=0), strict=True):
        length = float(np.linalg.norm(b - a))
        along = (b - a) / length
        inward = np.array([-along[1], along[0]])  # the inside lies on the left of the outline's edges
        n = max(round((length - 2 * _CORNER) / _SPACING) + 1, 2)
        for place in np.linspace(_CORNER, length - _CORNER, n):
            gate = a + place * along - inward * (AGENT_RADIUS + GAP)
            if signed_distance(gate) > AGENT_RADIUS + 0.5 * GAP:
                gates.append(gate)
                directions.append(inward)
    return np.array(gates), np.array(directions)


def _measure(simulator: Simulator, gate: Array, direction: Array) -> tuple[Array, Array]:
    """Push once, as far as the longest push goes: the block (L, 3) and the agent (L, 2) at each length."""
    # Clear of the walls all the way: the push goes through the middle of the world.
    origin = np.array([256.0, 210.0]) - direction * 0.5 * _LENGTHS[-1]
    start = origin + gate
    simulator.set_state([*start.tolist(), *origin.tolist(), 0.0])
    travelled = 0.0
    rows: list[tuple[float, ...]] = []
    while travelled < _LENGTHS[-1]:
        agent = np.array([simulator.agent_x, simulator.agent_y])
        block = np.array([simulator.block_x, simulator.block_y])
        travelled = float((agent - start) @ direction)
        rows.append((travelled, *(block - origin), simulator.block_angle, *(agent - origin)))
        simulator.step(*(start + direction * (travelled + _LOOKAHEAD)).tolist())
    distance, *columns = np.array(rows).T
    at_lengths = np.stack([np.interp(_LENGTHS, distance, column) for column in columns], axis=1)
    return at_lengths[:, :3], at_lengths[:, 3:]
