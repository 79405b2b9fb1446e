"""The stress arms, each defined once: its name, what is changed, and by how much."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from il_bench.errors import IlBenchError
from il_bench.policies.checkpoint import LoadedPolicy
from il_bench.protocol import KEYPOINTS, PIXELS, TRACKS
from il_bench.pusht.batch import PushTBatch
from il_bench.rollout import Outcomes, Policy, RunBlock, run_block
from il_bench.stress import images, worlds
from il_bench.stress.robots import OverlappingRobot, WaitingRobot


@dataclass(frozen=True)
class Arm:
    """One thing that is changed, at several levels, the mildest first.

    worlds: makes the worlds of a level. robot: what stands between a policy and the worlds at a level.
    tracks: of policies that it makes a difference to. needs_chunks: whether a policy has to predict chunks.
    """

    name: str
    about: str
    unit: str
    levels: tuple[float, ...]
    worlds: Callable[[float], PushTBatch] | None = None
    robot: Callable[[Policy, float], Policy] | None = None
    tracks: tuple[str, ...] = TRACKS
    needs_chunks: bool = False

    def cell(self, level: float) -> str:
        """What a fingerprint calls a level, such as "delay 2"."""
        return f"{self.name} {level:g}"

    def block(self, level: float) -> RunBlock:
        """What runs a block of this level, as `rollout` takes it; other processes can be sent it."""
        return partial(_run_block, arm=self.name, level=level)


def _run_block(policy: Policy, wanted: NDArray[np.int64], arm: str, level: float) -> Outcomes:
    chosen = ARMS[arm]
    acting = policy if chosen.robot is None else chosen.robot(policy, level)
    return run_block(acting, wanted, chosen.worlds and partial(chosen.worlds, level))


def _image(name: str, about: str, unit: str, levels: tuple[float, ...], change: images.Change) -> Arm:
    made = partial(worlds.ChangedImages, change=change)
    return Arm(name, f"the camera's image {about}", unit, levels, made, tracks=(PIXELS,))


#: In the order of the tables.
ARMS: dict[str, Arm] = {
    arm.name: arm
    for arm in (
        Arm("delay", "every action is carried out later", "control steps", (1, 2, 4), worlds.LateActions),
        Arm(
            "wait",
            "the world goes on while the policy computes, and the robot waits for each chunk",
            "control steps of latency",
            (2, 3, 5),
            robot=WaitingRobot,
        ),
        Arm(
            "overlap",
            "the world goes on while the policy computes the next chunk, as LeRobot's asynchronous inference",
            "control steps of latency",
            (1, 2, 3, 5),
            robot=OverlappingRobot,
            needs_chunks=True,
        ),
        Arm(
            "noise",
            "normal noise on agent and keypoints, anew at each step",
            "px, standard deviation",
            (1, 2, 4),
            worlds.NoisyObservations,
            tracks=(KEYPOINTS,),
        ),
        Arm(
            "hold",
            "an action is lost at random, and the last target holds",
            "share of the actions",
            (0.1, 0.3, 0.5),
            partial(worlds.LostActions, stops=False),
        ),
        Arm(
            "drop",
            "an action is lost at random, and the agent is told to stay where it is",
            "share of the actions",
            (0.1, 0.3, 0.5),
            partial(worlds.LostActions, stops=True),
        ),
        Arm("push", "the block is pushed once, in mid-episode", "px", (20, 40, 80), worlds.PushedBlocks),
        Arm(
            "friction",
            "friction of every shape, which gym-pusht leaves at 0",
            "pymunk's friction",
            (0.25, 0.5, 1),
            lambda level: PushTBatch(friction=level),
        ),
        Arm(
            "damping",
            "share of its velocity that the block keeps for a second; gym-pusht's 0 stops it at once",
            "pymunk's damping",
            (0.001, 0.01, 0.1),
            lambda level: PushTBatch(damping=level),
        ),
        Arm(
            "gain",
            "gain with which the agent is pulled to its target, gym-pusht's is 100",
            "k_p",
            (80, 60, 40),
            lambda level: PushTBatch(k_p=level),
        ),
        Arm(
            "start",
            "the block starts above where gym-pusht's blocks, and those of all demonstrations, start",
            "px",
            (15, 30, 45),
            worlds.StartsAbove,
        ),
        _image("darker", "is darker", "share of its brightness", (0.1, 0.2, 0.4), images.darker),
        _image("blur", "is blurred", "px, standard deviation", (0.5, 1, 2), images.blurred),
        _image("shift", "is moved right and down", "px", (1, 2, 4), images.shifted),
        _image("occlusion", "has a grey square in it", "px, its side", (8, 16, 24), images.occluded),
    )
}


def check_names(names: Sequence[str], option: str = "--arm") -> tuple[str, ...]:
    """The names, each once. Raises IlBenchError for one that is no arm."""
    for name in names:
        if name not in ARMS:
            raise IlBenchError(f"{option}: {name!r:.60} is not a stress arm; use {', '.join(ARMS)}")
    return tuple(dict.fromkeys(names))


def arms_for(policy: LoadedPolicy, names: Sequence[str] = ()) -> tuple[Arm, ...]:
    """The arms of these names, or all, that make a difference to a policy; in the order of `ARMS`."""
    has_chunks = hasattr(policy.policy, "predict_action_chunk")
    return tuple(
        arm
        for arm in ARMS.values()
        if (not names or arm.name in names)
        and policy.track in arm.tracks
        and (has_chunks or not arm.needs_chunks)
    )
