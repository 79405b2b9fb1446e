"""Which push brings the block home soonest: a beam search over the table of pushes.

Costs are control steps at nominal speeds, so a plan does not depend on how fast it is executed.
"""

from dataclasses import dataclass
from functools import cache
from operator import itemgetter

import numpy as np
from numpy.typing import NDArray

from il_bench.pusht import travel
from il_bench.pusht.geometry import AREA, GOAL_POSE, Array, into_frame, xy_out_of_frame
from il_bench.pusht.pushes import CORNERS, pushes

BEAM = 32
DEPTH = 3
SOLVED = 0.967  # coverage that a plan must end with: more than the 0.95 asked, since a push is a little off

_TRAVEL_SPEED, _PUSH_SPEED = 18.0, 12.0  # px a step
_PUSH_COST = 7.0  # steps: coming to rest before and after
_HOME_COST, _HOME_SLOPE = 18.0, 0.75  # steps to expect from an unsolved pose: 18 + 0.75 a px of distance
_ROOM = (14.0, 498.0)  # px; a block beyond it leaves the agent too little room to push it back
_WALL_COST = 1.5  # steps a px beyond that
_REACH = (4.0, 508.0)  # px; where the agent may be sent
_BIN = np.array([20.0, 20.0, 0.25])  # poses closer to each other than this count as one
_NEAR = 14.0  # px; a block further off than this does not cover the goal
_LONGEST = float(np.linalg.norm(CORNERS, axis=1).max())
_HULL = CORNERS[[0, 1, 2, 4, 5, 7]]  # the others lie within
_CENTRE = CORNERS.mean(axis=0)
_SPREAD = float(((CORNERS - _CENTRE) ** 2).sum(axis=1).mean())


@dataclass(frozen=True)
class _Leaves:
    """N partial plans."""

    pose: Array  # (N, 3) the block after the last push
    cost: Array  # (N,) steps so far
    home: Array  # (N,) steps still to expect, 0 where the goal is reached
    first: NDArray[np.int64]  # (N,) their first push
    last: NDArray[np.int64]  # (N,) their last push

    def best(self, *, only_solved: bool) -> tuple[float, int | None]:
        """Cost and first push of the cheapest plan; an infinite cost and None if there is no plan."""
        total = self.cost + self.home
        if only_solved:
            total[self.home > 0.0] = np.inf
        if not len(total):
            return np.inf, None
        index = int(total.argmin())
        return float(total[index]), int(self.first[index])


def plan(agent: Array, pose: Array) -> int | None:
    """The first push of the cheapest plan, for an agent (2,) and a block at `pose` (3,).

    A plan reaches the goal, or ends after `DEPTH` pushes. Returns the push's index in the table of pushes;
    None if the agent can reach no gate.
    """
    ways = travel.to_gates(into_frame(agent, pose), reachable(*xy_out_of_frame(travel.TURNS, pose)))
    leaves = _after_pushes(pose[None], ways[None], np.zeros(1), None)
    plans = [leaves.best(only_solved=True)]
    away, nearest = _nearest_gates()
    for _ in range(DEPTH - 1):
        chosen = _beam(leaves)
        last = leaves.last[chosen]
        ways = away[last, None] + travel.gate_to_gate()[nearest[last]]  # as if from the nearest gate on
        leaves = _after_pushes(leaves.pose[chosen], ways, leaves.cost[chosen], leaves.first[chosen])
        plans.append(leaves.best(only_solved=True))
    plans.append(leaves.best(only_solved=False))
    cost, first = min(plans, key=itemgetter(0))
    return first if np.isfinite(cost) else None


def rms_distance(pose: Array) -> Array:
    """RMS distance of the T's corners at poses (..., 3) from where they lie at the goal, (...) px."""
    x, y = xy_out_of_frame(_CENTRE, pose)
    goal_x, goal_y = xy_out_of_frame(_CENTRE, GOAL_POSE)
    turned = 2.0 * _SPREAD * (1.0 - np.cos(pose[..., 2] - GOAL_POSE[2]))
    return np.asarray(np.sqrt((x - goal_x) ** 2 + (y - goal_y) ** 2 + turned))


def nearly_covered(pose: Array) -> Array:
    """Coverage (N,) of poses (N, 3) near the goal to first order: what the outline sweeps inwards is lost."""
    there = np.concatenate([into_frame(pose[:, :2], np.array(GOAL_POSE)), pose[:, 2:] - GOAL_POSE[2]], axis=1)
    x, y = xy_out_of_frame(_OUTLINE, there[:, None])
    inwards = (x - _OUTLINE[:, 0]) * _NORMALS[:, 0] + (y - _OUTLINE[:, 1]) * _NORMALS[:, 1]
    return np.asarray(1.0 - np.maximum(inwards, 0.0) @ _PIECES / AREA)


def reachable(x: Array, y: Array) -> NDArray[np.bool_]:
    """Which points of the world, x (...) and y (...), the agent may be sent to."""
    low, high = _REACH
    return np.asarray((x >= low) & (x <= high) & (y >= low) & (y <= high))


def _after_pushes(pose: Array, ways: Array, cost: Array, first: NDArray[np.int64] | None) -> _Leaves:
    """Every push that can be reached from B nodes: poses (B, 3), px to each gate (B, G), cost (B,)."""
    table = pushes()
    steps = np.where(reachable(*xy_out_of_frame(table.gates, pose[:, None])), ways, np.inf) / _TRAVEL_SPEED
    total = cost[:, None] + steps[:, table.gate] + table.length / _PUSH_SPEED + _PUSH_COST
    node, push = np.nonzero(np.isfinite(total))
    x, y = xy_out_of_frame(table.motion[:, :2], pose[:, None])
    after = np.stack([x[node, push], y[node, push], pose[node, 2] + table.motion[push, 2]], axis=1)
    return _Leaves(
        pose=after,
        cost=total[node, push] + _WALL_COST * _beyond_room(after),
        home=_cost_to_go(after),
        first=push if first is None else first[node],
        last=push,
    )


def _beyond_room(pose: Array) -> Array:
    """How far the furthest corner lies beyond the room in which the block can be pushed, (N,) px."""
    low, high = _ROOM
    result = np.zeros(len(pose))
    inner, outer = low + _LONGEST, high - _LONGEST
    x, y = pose[:, 0], pose[:, 1]
    near = np.flatnonzero((x < inner) | (x > outer) | (y < inner) | (y > outer))
    for corners in xy_out_of_frame(_HULL[:, None], pose[near]):  # (6, ..) each
        beyond = np.maximum(low - corners.min(axis=0), corners.max(axis=0) - high)
        result[near] = np.maximum(result[near], beyond)
    return result


def _cost_to_go(pose: Array) -> Array:
    """Steps still to expect from poses (N, 3); 0 where PushT is solved."""
    distance = rms_distance(pose)
    near = np.flatnonzero(distance < _NEAR)
    home = _HOME_COST + _HOME_SLOPE * distance
    home[near[nearly_covered(pose[near]) >= SOLVED]] = 0.0
    return np.asarray(home)


def _beam(leaves: _Leaves) -> NDArray[np.int64]:
    """Indices of the `BEAM` best unsolved leaves that differ in pose."""
    total = np.where(leaves.home == 0.0, np.inf, leaves.cost + leaves.home)
    n = min(len(total), 40 * BEAM)
    if n == 0:
        return np.zeros(0, np.int64)
    few = np.argpartition(total, n - 1)[:n]
    few = few[np.argsort(total[few], kind="stable")]
    _, different = np.unique(np.floor(leaves.pose[few] / _BIN), axis=0, return_index=True)
    return np.asarray(few[np.sort(different)[:BEAM]])


@cache
def _nearest_gates() -> tuple[Array, NDArray[np.int64]]:
    """For each push the distance to and the index of the gate nearest to where it ends."""
    table = pushes()
    away = np.linalg.norm(table.end[:, None] - table.gates, axis=-1)
    return away.min(axis=1), away.argmin(axis=1)


def _pieces() -> tuple[Array, Array, Array]:
    """The outline in short pieces: their middles (P, 2), inward normals (P, 2) and lengths (P,)."""
    middles, normals, lengths = [], [], []
    for a, b in zip(CORNERS, np.roll(CORNERS, -1, axis=0), strict=True):
        length = float(np.linalg.norm(b - a))
        n = round(length / 5.0)
        middles.append(a + (np.arange(n)[:, None] + 0.5) / n * (b - a))
        normals.append(np.tile([-(b - a)[1] / length, (b - a)[0] / length], (n, 1)))
        lengths.append(np.full(n, length / n))
    return np.concatenate(middles), np.concatenate(normals), np.concatenate(lengths)


_OUTLINE, _NORMALS, _PIECES = _pieces()
