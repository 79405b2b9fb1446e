"""How often the expert solves PushT in gym-pusht itself, how long it takes, and how smooth it is.

Run by `make expert-success`. Start states are the validation seeds' by default.
"""

import argparse
import os
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

os.environ.setdefault("SDL_VIDEODRIVER", "dummy")

# After the environment variable is set.
from il_bench.protocol import ACTION_HIGH, ACTION_LOW, MAX_STEPS, RESERVED_SEEDS

CHUNK = 10


@dataclass(frozen=True)
class Episode:
    """One episode: whether it was solved, its steps, its processor time, and every action's change in px."""

    solved: bool
    n_steps: int
    cpu_seconds: float
    changes: list[float]
    outside: int


def run(seeds: range) -> list[Episode]:
    """Let the expert play these seeds in gym-pusht."""
    warnings.simplefilter("ignore")
    import gym_pusht  # noqa: F401  (registers the environment)
    import gymnasium

    from il_bench.pusht.expert import Expert

    env = gymnasium.make("gym_pusht/PushT-v0", obs_type="state")
    world, expert = env.unwrapped, Expert()
    episodes = []
    for seed in seeds:
        env.reset(seed=seed)
        expert.reset()
        thinking, actions, solved = 0.0, [], False
        while not solved and len(actions) < MAX_STEPS:
            before = time.process_time()
            pose = np.array([*world.block.position, world.block.angle])
            actions.append(expert.act(np.array(world.agent.position), pose))
            thinking += time.process_time() - before
            solved = env.step(actions[-1])[2]
        taken = np.array(actions)
        changes = np.linalg.norm(np.diff(taken, axis=0), axis=1).tolist()
        outside = int(((taken < ACTION_LOW) | (taken > ACTION_HIGH)).any(axis=1).sum())
        episodes.append(Episode(solved, len(actions), thinking, changes, outside))
    return episodes


def main() -> None:
    """Run and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=100_000, help="of the first episode")
    parser.add_argument("--episodes", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=2)
    asked = parser.parse_args()
    stop = asked.seed + asked.episodes
    if stop > RESERVED_SEEDS:
        parser.error(f"seeds from {RESERVED_SEEDS} on are kept for a third evaluation")
    parts = [range(first, min(first + CHUNK, stop)) for first in range(asked.seed, stop, CHUNK)]
    with ProcessPoolExecutor(asked.workers, mp_context=get_context("spawn")) as pool:
        done = pool.map(run, parts)
        episodes = [each for part in track(done, "expert in gym-pusht", len(parts)) for each in part]
    show(episodes, asked.seed)


def show(episodes: list[Episode], first_seed: int) -> None:
    """Print what came out."""
    steps = np.array([each.n_steps for each in episodes])
    changes = np.concatenate([each.changes for each in episodes])
    failed = [first_seed + i for i, each in enumerate(episodes) if not each.solved]
    table = Table("the expert in gym-pusht", f"seeds {first_seed}-{first_seed + len(episodes) - 1}")
    table.add_row("solved", f"{len(episodes) - len(failed)} of {len(episodes)}")
    table.add_row("not solved, seeds", ", ".join(map(str, failed)) or "none")
    table.add_row(
        "steps: mean, 95th percentile, most",
        f"{steps.mean():.1f}, {np.percentile(steps, 95):.0f}, {steps.max()}",
    )
    table.add_row(
        "expert's processor time an episode, s", f"{np.mean([e.cpu_seconds for e in episodes]):.2f}"
    )
    table.add_row(
        "change of action a step, px: median, 99th percentile, most",
        f"{np.median(changes):.1f}, {np.percentile(changes, 99):.1f}, {changes.max():.1f}",
    )
    table.add_row("actions outside [0, 512]", str(sum(each.outside for each in episodes)))
    Console().print(table)


if __name__ == "__main__":
    main()
