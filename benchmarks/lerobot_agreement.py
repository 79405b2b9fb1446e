"""Is our rollout LeRobot's? And how much faster is it?

First table: the command `lerobot-eval` and `rollout_as_lerobot` run the same episodes of each checkpoint.
Second and third table: for one checkpoint and the same episodes, LeRobot's `eval_policy` without rendering
against `rollout`, in this process on one thread, and where the time of each goes. CPU seconds stand beside
those of the wall clock because on a busy machine only they compare.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr
from dataclasses import dataclass, replace
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Annotated, Any
from unittest.mock import patch

os.environ.update(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1")
os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")

import gym_pusht.envs.pusht
import numpy as np
import torch
import typer
from lerobot.envs.configs import PushtEnv
from lerobot.envs.factory import make_env, make_env_pre_post_processors
from lerobot.scripts.lerobot_eval import eval_policy
from lerobot.utils.random_utils import set_seed
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from benchmarks.lerobot_eval import rollout_as_lerobot
from il_bench.policies.checkpoint import Checkpoint, LoadedPolicy, load_policy
from il_bench.pusht.batch import PushTBatch
from il_bench.pusht.simulator import Simulator
from il_bench.rollout import rollout

OBS_TYPE = "environment_state_agent_pos"
PARTS = ("policy", "processors", "physics", "coverage", "observations", "start states", "the rest")
console = Console()


def lerobot_eval(spec: str, episodes: int, batch_size: int, seed: int) -> dict[str, Any]:
    """Run the command and return its eval_info.json."""
    folder = Checkpoint.find(spec).folder.resolve()
    program = Path(sys.executable).with_name("lerobot-eval")
    arguments = [
        str(program),
        f"--policy.path={folder}",
        "--policy.device=cpu",
        "--env.type=pusht",
        f"--env.obs_type={OBS_TYPE}",
        f"--eval.n_episodes={episodes}",
        f"--eval.batch_size={batch_size}",
        "--eval.use_async_envs=false",
        f"--seed={seed}",
    ]
    if json.loads((folder / "config.json").read_text())["type"].startswith("il_"):
        arguments.append("--policy.discover_packages_path=il_bench.policies")
    with tempfile.TemporaryDirectory() as output:
        arguments.append(f"--output_dir={output}/eval")
        done = subprocess.run(arguments, cwd=output, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"lerobot-eval failed on {spec}: {done.stderr[-2000:]}")
        info: dict[str, Any] = json.loads((Path(output) / "eval" / "eval_info.json").read_text())
    return info


def agreement(specs: list[str], episodes: int, batch_size: int, seed: int) -> dict[str, float]:
    """Print the first table; return the seconds the command took for each checkpoint, videos included."""
    columns: dict[str, dict[str, str]] = {}
    seconds = {}
    for spec in specs:
        console.print(f"[dim]{spec}: lerobot-eval, then rollout_as_lerobot[/dim]")
        info = lerobot_eval(spec, episodes, batch_size, seed)
        theirs, overall = info["per_task"][0]["metrics"], info["overall"]
        ours = rollout_as_lerobot(load_policy(spec), n_episodes=episodes, batch_size=batch_size, seed=seed)
        equal = int((ours.outcomes.success == np.array(theirs["successes"])).sum())
        seconds[spec] = overall["eval_s"]
        columns[Path(spec).name] = {
            "success equal": f"{equal} of {episodes}",
            "max_rewards, largest difference": _largest(ours.outcomes.max_reward, theirs["max_rewards"]),
            "sum_rewards, largest difference": _largest(ours.sum_reward, theirs["sum_rewards"]),
            "pc_success, lerobot-eval": f"{overall['pc_success']:.1f}",
            "pc_success, rollout_as_lerobot": f"{ours.pc_success:.1f}",
            "avg_max_reward, lerobot-eval": f"{overall['avg_max_reward']:.6f}",
            "avg_max_reward, rollout_as_lerobot": f"{ours.avg_max_reward:.6f}",
            "avg_sum_reward, lerobot-eval": f"{overall['avg_sum_reward']:.3f}",
            "of it one step past done": f"{ours.past_done.mean():.3f}",
            "s, lerobot-eval with videos": f"{overall['eval_s']:.1f}",
            "s, rollout_as_lerobot": f"{ours.outcomes.seconds:.1f}",
        }
    table = Table(f"{episodes} episodes from seed {seed}, batches of {batch_size}", *columns)
    for row in next(iter(columns.values())):
        table.add_row(row, *(column[row] for column in columns.values()))
    console.print(table)
    return seconds


def _largest(ours: NDArray[np.float64], theirs: list[float]) -> str:
    return f"{np.abs(ours - theirs).max():.1e}"


@dataclass(frozen=True)
class Timing:
    """Best rewards (N,), wall and CPU seconds, and the CPU seconds of each of PARTS."""

    max_reward: NDArray[np.float64]
    seconds: dict[str, float]
    parts: dict[str, float]


class Stopwatch:
    """CPU seconds spent in named parts, each without the parts inside it."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._inner = [0.0]

    def timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return `function` with its time counted as `part`."""

        def run(*args: Any, **kwargs: Any) -> Any:
            self._inner.append(0.0)
            start = time.process_time()
            try:
                return function(*args, **kwargs)
            finally:
                elapsed = time.process_time() - start
                self.seconds[part] += elapsed - self._inner.pop()
                self._inner[-1] += elapsed

        return run

    @contextmanager
    def patched(self, *targets: tuple[type | object, str, str]) -> Iterator[None]:
        """Count `(owner, attribute, part)` while inside."""
        with ExitStack() as stack:
            for owner, attribute, part in targets:
                stack.enter_context(
                    patch.object(owner, attribute, self.timed(part, getattr(owner, attribute)))
                )
            yield


@contextmanager
def clocks(into: dict[str, float]) -> Iterator[None]:
    """Write the wall and CPU seconds of the block to `into`."""
    wall, cpu = time.perf_counter(), time.process_time()
    yield
    into.update(wall=time.perf_counter() - wall, cpu=time.process_time() - cpu)


def time_lerobot(policy: LoadedPolicy, episodes: int, batch_size: int, seed: int) -> Timing:
    """Run `eval_policy` in gym-pusht without rendering."""
    config, watch = PushtEnv(obs_type=OBS_TYPE), Stopwatch()
    seconds: dict[str, float] = {}
    env = make_env(config, n_envs=batch_size)["pusht"][0]
    pusht = gym_pusht.envs.pusht.PushTEnv
    targets = [
        (policy.policy, "select_action", "policy"),
        (pusht, "step", "physics"),
        (pusht, "_get_coverage", "coverage"),
        (pusht, "get_obs", "observations"),
        (pusht, "reset", "start states"),
    ]
    processors = make_env_pre_post_processors(config, policy.policy.config)
    processors += policy.preprocessor, policy.postprocessor
    set_seed(seed)
    with watch.patched(*targets), redirect_stderr(StringIO()), clocks(seconds):
        info = watch.timed("the rest", eval_policy)(
            env,
            policy.policy,
            *(watch.timed("processors", processor) for processor in processors),
            n_episodes=episodes,
            start_seed=seed,
        )
    env.close()
    rewards = np.array([episode["max_reward"] for episode in info["per_episode"]])
    return Timing(rewards, seconds, watch.seconds)


def time_ours(policy: LoadedPolicy, episodes: int, seed: int, repeats: int) -> Timing:
    """Run `rollout` `repeats` times for its median seconds, and once more for the parts."""
    seeds = range(seed, seed + episodes)
    runs: list[dict[str, float]] = []
    for _ in range(repeats):
        runs.append({})
        with clocks(runs[-1]):
            outcomes = rollout(policy, seeds)
    watch = Stopwatch()
    targets = [
        (policy.policy, "select_action", "policy"),
        (Simulator, "drive", "physics"),
        (Simulator, "coverage", "coverage"),
        (PushTBatch, "observations", "observations"),
        (Simulator, "reset", "start states"),
    ]
    timed_policy = replace(
        policy,
        preprocessor=watch.timed("processors", policy.preprocessor),
        postprocessor=watch.timed("processors", policy.postprocessor),
    )
    with watch.patched(*targets):
        watch.timed("the rest", rollout)(timed_policy, seeds)
    medians = {clock: float(np.median([run[clock] for run in runs])) for clock in runs[0]}
    return Timing(outcomes.max_reward, medians, watch.seconds)


def _evaluations(
    spec: str,
    episodes: int,
    seed: int,
    with_videos: float | None,
    theirs: Timing,
    ours: Timing,
    workers: int,
) -> Iterator[tuple[str, int, float, float | None]]:
    """Rows of the second table: name, number of episodes, wall and CPU seconds.

    Worker processes share out blocks, so they get several times the episodes; their start counts.
    """
    if with_videos is not None:
        yield "lerobot-eval, videos of ten episodes", episodes, with_videos, None
    yield "LeRobot, nothing rendered", episodes, theirs.seconds["wall"], theirs.seconds["cpu"]
    yield "il_bench rollout", episodes, ours.seconds["wall"], ours.seconds["cpu"]
    if workers > 1:
        n = 10 * episodes
        outcomes = rollout(partial(load_policy, spec), range(seed, seed + n), workers=workers)
        yield f"il_bench rollout, {workers} workers", n, outcomes.seconds, None


def speed(
    spec: str, episodes: int, batch_size: int, seed: int, with_videos: float | None, workers: int
) -> None:
    """Print the second and third table."""
    policy = load_policy(spec)
    console.print(f"[dim]{spec}: eval_policy without rendering, then rollout[/dim]")
    rollout(policy, [seed])  # what is slow only once: imports, first calls of torch's kernels
    theirs = time_lerobot(policy, episodes, batch_size, seed)
    ours = time_ours(policy, episodes, seed, repeats=5)
    table = Table("evaluation", "episodes", "s", "CPU s", "episodes/s", "x", "x in CPU s")
    for name, n, wall, cpu in _evaluations(spec, episodes, seed, with_videos, theirs, ours, workers):
        x = theirs.seconds["wall"] / episodes / (wall / n)
        x_cpu = theirs.seconds["cpu"] / episodes / (cpu / n) if cpu else None
        cpu_cells = (f"{cpu:.2f}", f"{x_cpu:.1f}") if cpu else ("", "")
        table.add_row(name, f"{n}", f"{wall:.2f}", cpu_cells[0], f"{n / wall:.2f}", f"{x:.1f}", cpu_cells[1])
    console.print(f"{policy.name}, from seed {seed}; LeRobot in batches of {batch_size}")
    console.print(table)
    if with_videos is not None:
        rendering = with_videos - theirs.seconds["wall"]
        console.print(f"Rendering and its videos of ten episodes took the command {rendering:.1f} s more.")
    same = np.isclose(ours.max_reward, theirs.max_reward, rtol=0, atol=1e-6).sum()
    console.print(f"Same best reward within 1e-6 although the batches differ: {same} of {episodes} episodes.")
    table = Table("CPU ms an episode", "LeRobot", "share", "il_bench", "share")
    for part in PARTS:
        cells = []
        for timing in (theirs, ours):
            share = timing.parts[part] / sum(timing.parts.values())
            cells += [f"{1000 * timing.parts[part] / episodes:.2f}", f"{share:.0%}"]
        table.add_row(part, *cells)
    console.print(table)
    least = ours.parts["policy"] + ours.parts["physics"]
    ceiling = sum(theirs.parts.values()) / least
    console.print(f"x if all of il_bench's time but policy and physics were saved: {ceiling:.1f}")


def main(
    checkpoints: Annotated[list[str] | None, typer.Argument(help="Zoo names or folders.")] = None,
    episodes: Annotated[int, typer.Option(min=1, help="Multiples of 50 are fair to rollout's blocks.")] = 50,
    batch_size: Annotated[int, typer.Option(min=1, help="Of LeRobot and of the compatibility mode.")] = 10,
    seed: Annotated[int, typer.Option(min=0)] = 100_000,
    speed_of: Annotated[str | None, typer.Option(help="Checkpoint to time; the first if not given.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes of one more row of the second table.")] = 2,
    speed_only: Annotated[bool, typer.Option(help="Leave out the first table.")] = False,
) -> None:
    """Compare episodes and speed with lerobot-eval for CHECKPOINTS, default act, diffusion and vqbet."""
    torch.set_num_threads(1)
    checkpoints = checkpoints or ["act", "diffusion", "vqbet"]
    batch_size = min(batch_size, episodes)
    timed = speed_of or checkpoints[0]
    seconds = {} if speed_only else agreement(checkpoints, episodes, batch_size, seed)
    speed(timed, episodes, batch_size, seed, seconds.get(timed), workers)


if __name__ == "__main__":
    typer.run(main)
