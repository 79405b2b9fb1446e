"""How fast is the simulator? gym-pusht, ours and the bare physics, side by side on the same episodes.

Every round takes one start state and one sequence of actions that pushes the block about, and all contenders
run it in turn, so that a busy machine slows all of them alike. Prints the median processor time of a step
over the rounds.
"""

import os
import time
from collections.abc import Callable

import gymnasium
import numpy as np
import typer
from numpy.typing import NDArray

os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")

import gym_pusht  # noqa: F401  # registers the reference
from rich.console import Console
from rich.table import Table

from il_bench.pusht import simulator
from il_bench.pusht.batch import PushTBatch
from il_bench.pusht.geometry import block_keypoints
from il_bench.pusht.simulator import Simulator

BATCH = 50
Actions = NDArray[np.float32]
Contender = Callable[[int, Actions], float]


def pushing_actions(seed: int, n_steps: int) -> Actions:
    """Actions (n_steps, 2) px that mostly drive through the block, so that much of an episode is contact."""
    rng = np.random.default_rng(seed)
    world = Simulator()
    world.reset(seed)
    actions = np.empty((n_steps, 2), np.float32)
    for step in range(n_steps):
        middle = block_keypoints((world.block_x, world.block_y, world.block_angle)).reshape(8, 2).mean(axis=0)
        away = middle - (world.agent_x, world.agent_y)
        target = middle + 80 * away / np.linalg.norm(away) + rng.normal(0, 30, 2)
        actions[step] = np.clip(rng.uniform(0, 512, 2) if rng.random() < 0.1 else target, 0, 512)
        world.step(*actions[step].tolist())
    return actions


def through_gymnasium(name: str, **arguments: object) -> Contender:
    """Processor seconds for one episode through gymnasium's `step`, wrappers and all."""
    env = gymnasium.make(name, **arguments)

    def run(seed: int, actions: Actions) -> float:
        env.reset(seed=seed)
        start = time.process_time()
        for action in actions:
            env.step(action)
        return time.process_time() - start

    return run


def batched(seed: int, actions: Actions) -> float:
    """Processor seconds for one world's share of a batch that steps and observes, all at the same seed."""
    worlds = PushTBatch()
    worlds.reset([seed] * BATCH)
    start = time.process_time()
    for action in actions:
        worlds.step(np.tile(action, (BATCH, 1)))
        worlds.observations()
    return (time.process_time() - start) / BATCH


def bare_physics(seed: int, actions: Actions) -> float:
    """Processor seconds that Chipmunk spends in `cpSpaceStep` during this episode, ten calls a step.

    The agent's velocities are recorded first and replayed; what setting them costs is timed apart and taken
    off.
    """
    set_velocity, velocities = simulator._set_velocity, []
    simulator._set_velocity = lambda agent, velocity: velocities.append(velocity)
    try:
        _run(seed, actions)
    finally:
        simulator._set_velocity = set_velocity
    world = Simulator()
    world.reset(seed)
    agent, space, space_step = world._agent, world._space, simulator._space_step
    start = time.process_time()
    for velocity in velocities:
        set_velocity(agent, velocity)
        space_step(space, simulator.DT)
    middle = time.process_time()
    for velocity in velocities:
        set_velocity(agent, velocity)
    return (middle - start) - (time.process_time() - middle)


def _run(seed: int, actions: Actions) -> None:
    world = Simulator()
    world.reset(seed)
    for action in actions.tolist():
        world.step(*action)


def main(rounds: int = 30, steps: int = 200) -> None:
    """Compare over ROUNDS episodes of STEPS steps each."""
    keypoints = {"obs_type": "environment_state_agent_pos"}
    contenders: dict[str, Contender] = {
        "gym-pusht, state": through_gymnasium("gym_pusht/PushT-v0"),
        "il_bench, state": through_gymnasium("il_bench/PushT-v0"),
        "il_bench, state, no contact count": through_gymnasium("il_bench/PushT-v0", count_contacts=False),
        "gym-pusht, keypoints": through_gymnasium("gym_pusht/PushT-v0", **keypoints),
        "il_bench, keypoints": through_gymnasium("il_bench/PushT-v0", **keypoints),
        f"il_bench, batch of {BATCH}": batched,
        "ten bare cpSpaceStep": bare_physics,
    }
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for seed in range(rounds):
        actions = pushing_actions(seed, steps)
        for name, run in contenders.items():
            seconds[name].append(run(seed, actions) / steps)
    medians = {name: float(np.median(values)) for name, values in seconds.items()}
    table = Table("contender", "CPU us a step", "steps/s", "x state", "x keypoints")
    for name, value in medians.items():
        ratios = [medians[f"gym-pusht, {kind}"] / value for kind in ("state", "keypoints")]
        table.add_row(name, f"{value * 1e6:.1f}", f"{1 / value:,.0f}", *(f"{ratio:.1f}" for ratio in ratios))
    console = Console()
    console.print(f"PushT with pushing actions, median of {rounds} episodes of {steps} steps, interleaved;")
    console.print("x: times as fast as gym-pusht in state and in keypoint observation")
    console.print(table)
    ratio = medians[f"il_bench, batch of {BATCH}"] / medians["ten bare cpSpaceStep"]
    console.print(f"A step of the batch takes {ratio:.2f} times its ten bare cpSpaceStep calls.")


if __name__ == "__main__":
    typer.run(main)
