"""An expert that solves PushT: it plans straight pushes, travels to each and carries it out.

The target runs a fixed distance ahead of the agent along the planned way. So actions change smoothly, and
during one push they depend on the agent's place alone. The expert plans again after every push, when it
bumps into the block on its way, and when a plan takes too long.
"""

import math
from itertools import pairwise

import numpy as np

from il_bench.protocol import ACTION_HIGH, ACTION_LOW
from il_bench.pusht import planner, travel
from il_bench.pusht.geometry import Array, into_frame, out_of_frame, signed_distance, xy_out_of_frame
from il_bench.pusht.pushes import pushes

_TRAVEL_AHEAD, _PUSH_AHEAD = 45.0, 30.0  # px from agent to target; the agent moves 2/5 of it a step
_START_AHEAD = 14.0  # px at the start of a way, growing as the agent moves on: a smooth start
_AT_GATE, _AT_END = 3.0, 1.0  # px
_BUMPED = 1.0  # px that the block may move while the agent travels
_RADIUS = 60.0  # px; turns an angle of the block into a distance
_RETREAT = 25.0  # px
_AROUND = np.stack([f(np.linspace(0.0, 2.0 * math.pi, 32, endpoint=False)) for f in (np.cos, np.sin)], axis=1)
_NO_WAY: Array = np.zeros((0, 2))


class Expert:
    """Call `reset` before an episode and `act` at each of its control steps."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget the plan."""
        self._way: Array = _NO_WAY  # what is left to follow; empty without a plan
        self._push_to: Array | None = None  # where the push ends; None once it is under way
        self._planned_at: Array = _NO_WAY
        self._patience = 0

    def act(self, agent: Array, pose: Array) -> Array:
        """The action (2,), px in [0, 512], for an agent at `agent` (2,) and a block at `pose` (3,).

        Any state will do, whether or not this expert led there. After `reset` only the state counts.
        """
        self._patience -= 1
        if self._must_plan(agent, pose):
            self._plan(agent, pose)
        if not len(self._way):  # no gate is in reach: the agent touches the block, or is in its corner
            around = np.clip(agent + _RETREAT * _AROUND, ACTION_LOW, ACTION_HIGH)
            return np.asarray(around[signed_distance(into_frame(around, pose)).argmax()])
        if self._push_to is not None and np.linalg.norm(self._way[-1] - agent) < _AT_GATE:
            self._way = np.stack([self._way[-1], self._push_to])
            self._push_to = None
        ahead = _PUSH_AHEAD if self._push_to is None else _TRAVEL_AHEAD
        return np.clip(point_ahead(self._way, agent, ahead), ACTION_LOW, ACTION_HIGH)

    def _must_plan(self, agent: Array, pose: Array) -> bool:
        if not len(self._way) or self._patience < 0:
            return True
        if self._push_to is None:
            gate, end = self._way
            return bool(np.dot(end - agent, end - gate) < _AT_END * math.dist(end, gate))
        dx, dy, turned = (pose - self._planned_at).tolist()
        return bool(max(abs(dx), abs(dy), _RADIUS * abs(math.remainder(turned, math.tau))) > _BUMPED)

    def _plan(self, agent: Array, pose: Array) -> None:
        self.reset()
        push = planner.plan(agent, pose)
        if push is None:
            return
        table = pushes()
        index, length = table.gate[push], table.length[push]
        gate = table.gates[index]
        turns_open = planner.reachable(*xy_out_of_frame(travel.TURNS, pose))
        way = travel.way(into_frame(agent, pose), gate, turns_open)
        self._way = np.concatenate([agent[None], out_of_frame(way, pose)])
        self._push_to = out_of_frame(gate + length * table.directions[index], pose)
        self._planned_at = pose.copy()
        # Patience for half the nominal speed, and for coming to rest.
        travelled = float(np.linalg.norm(np.diff(self._way, axis=0), axis=1).sum())
        self._patience = round(travelled / 8.0 + length / 5.0) + 20


def point_ahead(way: Array, agent: Array, most: float) -> Array:
    """The point of a way (K, 2) up to `most` px beyond the point nearest to the agent; less at its start."""
    nearest, passed, before = math.inf, 0.0, 0.0
    for a, b in pairwise(way):
        length = max(float(np.linalg.norm(b - a)), 1e-9)
        along = min(max(float((agent - a) @ (b - a)) / length, 0.0), length)
        distance = float(np.linalg.norm(a + along / length * (b - a) - agent))
        if distance <= nearest + 1e-9:
            nearest, passed = distance, before + along
        before += length
    left = passed + min(most, _START_AHEAD + passed)
    for a, b in pairwise(way):
        length = max(float(np.linalg.norm(b - a)), 1e-9)
        if left <= length:
            return np.asarray(a + left / length * (b - a))
        left -= length
    return np.asarray(way[-1])
