"""How fast are frames drawn? gym-pusht and ours, side by side on the same episodes.

In every round both run the same episode in turn, each in its own world, as sources of observations and of
video frames with the action's marker, so that a busy machine slows both alike; only the drawing is timed.
Prints medians over the rounds, of processor time.
"""

import os
import time
from collections.abc import Callable

import numpy as np
import typer

os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")

from gym_pusht.envs.pusht import PushTEnv as Reference
from rich.console import Console
from rich.table import Table

from benchmarks.sim_speed import Actions, pushing_actions
from il_bench.pusht.renderer import Image, Renderer
from il_bench.pusht.simulator import Simulator

OBSERVATION, VIDEO = 96, 680
Contender = Callable[[int, Actions, int], tuple[float, list[Image]]]


def gym_pusht(seed: int, actions: Actions, size: int) -> tuple[float, list[Image]]:
    """Seconds of processor time that gym-pusht draws in one episode, and its frames."""
    world = Reference(observation_width=size, observation_height=size)
    world.visualization_width = world.visualization_height = size
    world.reset(seed=seed)
    seconds, frames = 0.0, []
    for action in actions:
        world.step(action)
        start = time.process_time()
        frames.append(world.render() if size == VIDEO else world._render())
        seconds += time.process_time() - start
    return seconds, frames


def il_bench(seed: int, actions: Actions, size: int) -> tuple[float, list[Image]]:
    """Seconds of processor time that our renderer draws in one episode, and its frames."""
    world, renderer = Simulator(), Renderer()
    world.reset(seed)
    seconds, frames = 0.0, []
    for action in actions.tolist():
        world.step(*action)
        start = time.process_time()
        frame = renderer.frame(
            (world.agent_x, world.agent_y),
            (world.block_x, world.block_y, world.block_angle),
            width=size,
            height=size,
            action=action if size == VIDEO else None,
            contacts=renderer.contact_marks(world.space),
        )
        seconds += time.process_time() - start
        frames.append(frame)
    return seconds, frames


def main(rounds: int = 30, frames: int = 20) -> None:
    """Compare over ROUNDS episodes of FRAMES frames each, in both sizes."""
    contenders: tuple[Contender, ...] = (gym_pusht, il_bench)
    seconds = np.empty((rounds, 2, 2))
    for seed in range(rounds):
        actions = pushing_actions(seed, frames)
        for row, size in enumerate((OBSERVATION, VIDEO)):
            (reference, theirs), (own, ours) = (run(seed, actions, size) for run in contenders)
            if not np.array_equal(theirs, ours):
                raise SystemExit(f"seed {seed}: frames of {size} px differ, so their times mean nothing")
            seconds[seed, row] = reference / frames, own / frames
    medians, ratios = np.median(seconds, axis=0), np.median(seconds[..., 0] / seconds[..., 1], axis=0)
    table = Table("frame", "gym-pusht, frames/s", "il_bench, frames/s", "times as fast")
    for size, (reference, own), ratio in zip((OBSERVATION, VIDEO), medians, ratios, strict=True):
        table.add_row(f"{size} px", f"{1 / reference:,.0f}", f"{1 / own:,.0f}", f"{ratio:.1f}")
    console = Console()
    console.print(f"PushT frames a second of processor time, median of {rounds} rounds of {frames} frames,")
    console.print("interleaved; every pair of frames was equal in every pixel.")
    console.print(table)


if __name__ == "__main__":
    typer.run(main)
