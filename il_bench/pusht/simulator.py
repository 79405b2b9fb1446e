"""PushT's physics: gym-pusht's bodies, shapes and constants, stepped without its overhead.

Equal to gym-pusht 0.1.8 in every bit. Nothing can push the agent, a kinematic body. So its PD control is
integrated here, in plain floats that round every operation as Chipmunk built for x86-64 does, and Chipmunk
only gets its velocity at each substep. Calls go to pymunk's cffi library, past the wrapper's checks (`_body`
and `_space` are private names, the same in all of pymunk 6).
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pymunk
from numpy.typing import NDArray
from pymunk._chipmunk_cffi import ffi, lib

from il_bench.errors import IlBenchError
from il_bench.pusht import geometry

N_SUBSTEPS = 10
DT = 0.01
K_P, K_V = 100.0, 20.0
AGENT_RADIUS = 15.0
_WALLS = (((5, 506), (5, 5)), ((5, 5), (506, 5)), ((506, 5), (506, 506)), ((5, 506), (506, 506)))
_WALL_RADIUS = 2

_set_velocity = lib.cpBodySetVelocity
_space_step = lib.cpSpaceStep
_get_position = lib.cpBodyGetPosition
_get_angle = lib.cpBodyGetAngle
_contact_count = lib.cpArbiterGetCount


def start_state(rng: np.random.Generator) -> tuple[float, float, float, float, float]:
    """Draw a start state: agent x, y in [50, 450), block x, y in [100, 400), angle in [-pi, pi)."""
    agent_x, agent_y = float(rng.integers(50, 450)), float(rng.integers(50, 450))
    block_x, block_y = float(rng.integers(100, 400)), float(rng.integers(100, 400))
    return agent_x, agent_y, block_x, block_y, float(rng.uniform(-np.pi, np.pi))


def start_of(seed: int) -> tuple[float, float, float, float, float]:
    """gym-pusht's start state of a seed."""
    return start_state(np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed))))


def chipmunk_vectors(velocities: NDArray[np.float64]) -> list[Any]:
    """View velocities (n, 2) as Chipmunk's vectors, which it takes faster than tuples.

    The views follow the array's values and do not keep the array alive.
    """
    return list(ffi.from_buffer("cpVect[]", velocities))


class Simulator:
    """One PushT world: plain floats in, plain floats out.

    Its state is in these attributes (px, px/s, radians): `agent_x, agent_y, agent_vx, agent_vy, block_x,
    block_y, block_angle` (not wrapped), and, if contacts are counted, `n_contact_points` of the last step.
    `space`, `agent`, `block` and `block_shapes` are pymunk's objects, for drawing; a reset makes new ones.

    Args:
        block_cog: the block's centre of gravity in its own frame; None: gym-pusht's (0, 45).
        damping: share of velocity the block keeps per second; None: gym-pusht's 0.
        friction: of every shape, so that two that touch have its square; None: gym-pusht's 0.
        k_p: the gain with which the agent is pulled to its target; None: gym-pusht's 100.
        count_contacts: count contact points in a callback, as gym-pusht does; slower in contact.
    """

    space: pymunk.Space
    agent: pymunk.Body
    block: pymunk.Body
    block_shapes: list[pymunk.Poly]

    def __init__(
        self,
        *,
        block_cog: tuple[float, float] | None = None,
        damping: float | None = None,
        friction: float | None = None,
        k_p: float | None = None,
        count_contacts: bool = False,
    ) -> None:
        self.block_cog, self.damping, self.friction = block_cog, damping, friction
        self.k_p, self.count_contacts = k_p, count_contacts
        self.agent_x = self.agent_y = self.agent_vx = self.agent_vy = 0.0
        self.block_x = self.block_y = self.block_angle = 0.0
        self.n_contact_points = 0
        self._agent: Any = None  # cdata of `agent`, `block` and `space`
        self._block: Any = None
        self._space: Any = None
        self._covered_pose, self._coverage = (math.nan, math.nan, math.nan), math.nan
        self._callback: Any = None  # what Chipmunk calls must outlive the space

    def reset(self, seed: int) -> None:
        """Start at gym-pusht's start state of this seed."""
        self.set_state(start_of(seed))

    def set_state(self, state: Sequence[float]) -> None:
        """Start at `[agent_x, agent_y, block_x, block_y, block_angle]`, with gym-pusht's legacy meaning.

        The block is put at the position first and then turned about its centre of mass, so its position ends
        up elsewhere unless the angle is 0. One substep then settles overlaps.
        """
        if len(state) != 5 or not all(math.isfinite(value) for value in state):
            names = "agent_x, agent_y, block_x, block_y, block_angle"
            raise IlBenchError(f"a state is 5 finite numbers [{names}], got {state}")
        self._build()
        self.agent.position = state[0], state[1]
        self.block.position = state[2], state[3]
        self.block.angle = state[4]
        self.space.step(DT)
        self.agent_x, self.agent_y = self.agent.position
        self.agent_vx = self.agent_vy = 0.0
        self._read_block()

    def step(self, ax: float, ay: float) -> None:
        """Pull the agent towards (ax, ay) px for 0.1 s: ten substeps of PD control and physics."""
        if self._space is None:
            raise IlBenchError("step() before the first reset(): call reset(seed) or set_state(state) first")
        if not (math.isfinite(ax) and math.isfinite(ay)):
            raise IlBenchError(f"action must be finite, got ({ax}, {ay})")
        x, y, vx, vy = self.agent_x, self.agent_y, self.agent_vx, self.agent_vy
        agent, space, k_p = self._agent, self._space, K_P if self.k_p is None else self.k_p
        self.n_contact_points = 0
        for _ in range(N_SUBSTEPS):
            vx += (k_p * (ax - x) - K_V * vx) * DT
            vy += (k_p * (ay - y) - K_V * vy) * DT
            _set_velocity(agent, (vx, vy))
            _space_step(space, DT)
            x += vx * DT
            y += vy * DT
        self.agent_x, self.agent_y, self.agent_vx, self.agent_vy = x, y, vx, vy
        self._read_block()

    def drive(self, velocities: Sequence[Any]) -> None:
        """Run one substep at each velocity (`chipmunk_vectors`), for a caller that steers the agent.

        `agent_x, agent_y, agent_vx, agent_vy` stay as they were.
        """
        agent, space = self._agent, self._space
        for velocity in velocities:
            _set_velocity(agent, velocity)
            _space_step(space, DT)
        self._read_block()

    def coverage(self) -> float:
        """Share of the goal that the block covers, in [0, 1]."""
        pose = self.block_x, self.block_y, self.block_angle
        if pose != self._covered_pose:  # most steps leave the block where it is
            self._covered_pose, self._coverage = pose, geometry.coverage(*pose)
        return self._coverage

    def _read_block(self) -> None:
        position = _get_position(self._block)
        self.block_x, self.block_y = position.x, position.y
        self.block_angle = _get_angle(self._block)

    def _build(self) -> None:
        """Make a new space. The order of everything in here decides bits of the physics."""
        self.space = space = pymunk.Space()
        space.gravity = 0, 0
        space.damping = 0.0 if self.damping is None else self.damping
        walls = [pymunk.Segment(space.static_body, a, b, _WALL_RADIUS) for a, b in _WALLS]
        space.add(*walls)
        self.agent = pymunk.Body(body_type=pymunk.Body.KINEMATIC)
        self.agent.position = 256, 400
        circle = pymunk.Circle(self.agent, AGENT_RADIUS)
        space.add(self.agent, circle)
        self.block, self.block_shapes = _make_block()
        space.add(self.block, *self.block_shapes)
        if self.block_cog is not None:
            self.block.center_of_gravity = self.block_cog
        if self.friction is not None:
            for shape in space.shapes:
                shape.friction = self.friction
        self.n_contact_points = 0
        self._agent, self._block, self._space = self.agent._body, self.block._body, space._space
        if self.count_contacts:
            self._callback = ffi.callback("cpCollisionPostSolveFunc", self._count)
            lib.cpSpaceAddCollisionHandler(self._space, 0, 0).postSolveFunc = self._callback

    def _count(self, arbiter: Any, space: Any, data: Any) -> None:
        self.n_contact_points += _contact_count(arbiter)


def _make_block() -> tuple[pymunk.Body, list[pymunk.Poly]]:
    """Make gym-pusht's T: as there, its moment counts the bar twice; its vertices are wound as there."""
    bar = [(-60, 30), (60, 30), (60, 0), (-60, 0)]
    stem = [(-15, 30), (-15, 120), (15, 120), (15, 30)]
    moment = pymunk.moment_for_poly(1, bar)
    body = pymunk.Body(1, moment + moment)
    shapes = [pymunk.Poly(body, bar), pymunk.Poly(body, stem)]
    for shape in shapes:
        shape.filter = pymunk.ShapeFilter(mask=pymunk.ShapeFilter.ALL_MASKS())
    body.center_of_gravity = (shapes[0].center_of_gravity + shapes[1].center_of_gravity) / 2
    body.angle = 0
    body.position = 256, 300
    return body, shapes
