"""Shortest ways around the T for the agent, in the T's own frame.

A way goes straight, or turns at some of the T's six outer corners, grown by the agent's radius and clearance.
"""

from functools import cache

import numpy as np
from numpy.typing import NDArray

from il_bench.pusht.geometry import Array, signed_distance
from il_bench.pusht.pushes import pushes
from il_bench.pusht.simulator import AGENT_RADIUS

CLEARANCE = 9.0  # px between the travelling agent and the block
_GROWN = AGENT_RADIUS + CLEARANCE
_SLOPE = 0.05  # nearer than the clearance, a way must lead away from the T at least this steeply
_SLACK = 0.5  # px
_SAMPLES = 24
_OUTER = np.array([(-60, 0), (60, 0), (60, 30), (15, 120), (-15, 120), (-60, 30)], np.float64)
#: (6, 2) the places that a way may turn at.
TURNS = _OUTER + _GROWN * np.array([(-1, -1), (1, -1), (1, 1), (1, 1), (-1, 1), (-1, 1)])


def distances(start: Array, end: Array) -> Array:
    """Lengths of straight ways from `start` (..., 2) to `end` (..., 2), infinite where the T is in the way.

    The ends may lie closer to the T than the clearance; there a way must lead away from it.
    """
    share = np.linspace(0.0, 1.0, _SAMPLES)
    length = np.linalg.norm(end - start, axis=-1)
    room = signed_distance(start[..., None, :] + share[:, None] * (end - start)[..., None, :])
    asked_of_start = room[..., :1] + _SLOPE * share * length[..., None]
    asked_of_end = room[..., -1:] + _SLOPE * (1.0 - share) * length[..., None]
    asked = np.minimum(np.minimum(asked_of_start, asked_of_end), _GROWN) - _SLACK
    return np.where((room >= asked).all(axis=-1), length, np.inf)


def to_gates(start: Array, turns_open: NDArray[np.bool_]) -> Array:
    """Lengths (G,) of the shortest ways from `start` (2,) to every gate via the turns that are open (6,)."""
    to_turns = np.where(turns_open, distances(start, TURNS), np.inf)
    by_turns = _joined(to_turns[None], _joined(_between_turns(turns_open), _turns_to_gates()))[0]
    return np.asarray(np.minimum(distances(start, pushes().gates), by_turns))


@cache
def gate_to_gate() -> Array:
    """Lengths of the shortest ways from gate to gate with every turn open, (G, G)."""
    gates = pushes().gates
    onward = _joined(_between_turns(np.ones(len(TURNS), np.bool_)), _turns_to_gates())
    return np.minimum(distances(gates[:, None], gates), _joined(_turns_to_gates().T, onward))


def way(start: Array, gate: Array, turns_open: NDArray[np.bool_]) -> Array:
    """The shortest way from `start` (2,) to a gate (2,) that can be reached: the points to visit (K, 2)."""
    points = np.concatenate([start[None], TURNS[turns_open], gate[None]])
    lengths = distances(points[:, None], points)
    best, before = lengths[0], np.zeros(len(points), np.int64)
    for _ in points:  # Bellman-Ford
        onward = best[:, None] + lengths
        shorter = onward.min(axis=0) < best - 1e-9
        before[shorter] = onward.argmin(axis=0)[shorter]
        best = np.where(shorter, onward.min(axis=0), best)
    order = [len(points) - 1]
    while before[order[0]] != 0:
        order.insert(0, int(before[order[0]]))
    return np.asarray(points[order])


def _between_turns(turns_open: NDArray[np.bool_]) -> Array:
    """Lengths (6, 6) of the shortest ways between turns via those that are open."""
    lengths = np.where(turns_open & turns_open[:, None], distances(TURNS[:, None], TURNS), np.inf)
    for via in range(len(lengths)):  # Floyd-Warshall
        lengths = np.minimum(lengths, lengths[:, via, None] + lengths[via])
    return lengths


@cache
def _turns_to_gates() -> Array:
    return distances(TURNS[:, None], pushes().gates)


def _joined(first: Array, second: Array) -> Array:
    """Lengths (A, C) of the shortest ways made of a first part (A, B) and a second part (B, C)."""
    return np.asarray((first[:, :, None] + second).min(axis=1))
