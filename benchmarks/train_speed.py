"""Training steps a second, beside LeRobot's own training loop in one run.

Two processes train the same configuration on the same demonstrations with the same batch, optimizer and
learning-rate schedule, in turns of some steps each and in random order: il_bench's Trainer, and
`lerobot.scripts.lerobot_train.train`, the function behind `lerobot-train`, as it is. A gate inside its
`update_policy` holds it, and stops its data loader's processes, while the other's turn lasts. Of its loop
everything counts but start-up, logging, evaluation and checkpoints, which are switched off, and likewise of
ours; il_bench also keeps an average of the weights, which LeRobot does not.

Both train on one torch thread, as il_bench always does on a CPU: networks as small as these gain little
from more, and on a busy machine threads that wait for each other cost a multiple. LeRobot stands in the
table twice: without data-loader processes, as il_bench trains, both held on the same core; and with its
default of 4 such processes, where both may use every core.

The floor is the step's matrix products at the rate that this machine multiplies matrices, in the same type
and timed between the turns; a step's processor time is divided by it.
"""

import multiprocessing
import os
import random
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Annotated, Any
from unittest.mock import patch

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("SDL_VIDEODRIVER", "dummy")

import psutil
import torch
import typer
from lerobot.configs.default import DatasetConfig
from lerobot.configs.train import TrainPipelineConfig
from lerobot.optim.optimizers import AdamWConfig
from lerobot.optim.schedulers import DiffuserSchedulerConfig
from lerobot.scripts import lerobot_train
from rich.console import Console
from rich.table import Table

from il_bench.data import open_dataset
from il_bench.errors import IlBenchError
from il_bench.latency.device import device_for
from il_bench.latency.flops import count_flops
from il_bench.latency.matmul import MatrixProducts
from il_bench.train import recipes
from il_bench.train.batches import policy_config
from il_bench.train.loop import Trainer

SEED = 1
WARM_UP = 5  # steps before the first turn
LEAST_RATIO, MOST_DATA = 1.3, 0.02  # LeRobot's time over ours; share of a step of ours
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Job:
    """What to train: a recipe of `policy` with `batch` and `autocast`, on `data`, on one `core` or on all."""

    policy: str
    batch: int
    autocast: str
    data: str
    core: int | None

    @property
    def recipe(self) -> recipes.Recipe:
        """The recipe, if LeRobot's loop can follow it."""
        found = recipes.load(self.policy, "keypoints", {"batch_size": self.batch, "autocast": self.autocast})
        if found.processing != recipes.Processing() or found.policy["type"] not in (
            "act",
            "diffusion",
            "il_bc",
        ):
            raise IlBenchError(
                f"train_speed: LeRobot's loop has no way to train {self.policy} as its recipe says; use act"
            )
        return found


@dataclass(frozen=True)
class Turn:
    """Means of a step, in s: wall time, processor time of the process and its children, time for data."""

    wall: float
    cpu: float
    data: float
    products: float = 0.0  # operations a second


class Stopwatch:
    """Times a turn. What the process started is stopped between turns, so that it cannot work ahead."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._children: list[psutil.Process] = []

    def start(self) -> None:
        """Begin a turn."""
        for child in self._children:
            child.resume()
        self._cpu, self._wall = self._cpu_seconds(), time.perf_counter()

    def stop(self, steps: int, data: float) -> Turn:
        """End it, after so many steps and seconds spent on data."""
        wall = time.perf_counter() - self._wall
        self._children = self._process.children(recursive=True)
        turn = Turn(wall / steps, (self._cpu_seconds() - self._cpu) / steps, data / steps)
        for child in self._children:
            child.suspend()
        return turn

    def _cpu_seconds(self) -> float:
        return sum(
            sum(each.cpu_times()[:2]) for each in (self._process, *self._process.children(recursive=True))
        )


def ours(pipe: Connection, job: Job) -> None:
    """Train with il_bench in turns; the first answer is the operations of a step."""
    hold(job.core)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(job.recipe, job.data, seed=SEED, output=Path(folder))
        for _ in range(WARM_UP):
            trainer.train_step()
        pipe.send(count_flops(trainer.train_step))
        watch = Stopwatch()
        while steps := pipe.recv():
            rates = MatrixProducts(device_for("cpu"), DTYPES[job.autocast], clock=time.process_time)
            rates.turn()
            data = trainer.data_seconds
            watch.start()
            for _ in range(steps):
                trainer.train_step()
            turn = watch.stop(steps, trainer.data_seconds - data)
            pipe.send(Turn(turn.wall, turn.cpu, turn.data, rates.flops_per_second))


def lerobots(pipe: Connection, job: Job) -> None:
    """Train with LeRobot's `train` in turns."""
    hold(job.core)
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())  # its progress bar
    gate = Gate(pipe)
    with (
        tempfile.TemporaryDirectory() as folder,
        patch.object(lerobot_train, "update_policy", gate.after(lerobot_train.update_policy)),
    ):
        with suppress(Gate.ClosedError, EOFError):  # the last turn is over, or who gave them is gone
            lerobot_train.train(lerobot_config(job, Path(folder) / "run"))
        gate.release()


class Gate:
    """Holds a loop between its steps until the other end of a pipe says how many to go on."""

    class ClosedError(Exception):
        """The last turn is over."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._watch = Stopwatch()
        self._steps, self._left, self._data = WARM_UP, WARM_UP, 0.0

    def after(self, update: Callable[..., Any]) -> Callable[..., Any]:
        """LeRobot's `update_policy` with a gate behind it."""

        def update_and_wait(metrics: Any, *args: Any, **kwargs: Any) -> Any:
            result = update(metrics, *args, **kwargs)
            self._data += metrics.dataloading_s.val
            self._left -= 1
            if self._left == 0:
                self._next_turn()
            return result

        self._watch.start()
        return update_and_wait

    def _next_turn(self) -> None:
        self._pipe.send(self._watch.stop(self._steps, self._data))
        self._steps = self._left = self._pipe.recv()
        if not self._steps:
            raise Gate.ClosedError
        self._data = 0.0
        self._watch.start()

    def release(self) -> None:
        """Let the data loader's processes go, which end with this one."""
        self._watch.start()


def lerobot_config(job: Job, output: Path) -> TrainPipelineConfig:
    """The same training for `lerobot-train`, as its options would say it."""
    recipe, dataset = job.recipe, open_dataset(job.data)
    policy = policy_config(recipe, "cpu")
    policy.use_amp = job.autocast == "bfloat16"
    training = recipe.training
    return TrainPipelineConfig(
        dataset=DatasetConfig(repo_id=dataset.repo_id, root=str(dataset.root)),
        policy=policy,
        output_dir=output,
        seed=SEED,
        batch_size=training.batch_size,
        steps=training.steps,
        **({"num_workers": 0} if job.core is not None else {}),
        log_freq=0,
        env_eval_freq=0,
        save_checkpoint=False,
        use_policy_training_preset=False,
        optimizer=AdamWConfig(
            lr=training.lr,
            betas=training.betas,
            weight_decay=training.weight_decay,
            grad_clip_norm=training.grad_clip_norm,
        ),
        scheduler=DiffuserSchedulerConfig(name="cosine", num_warmup_steps=training.warmup_steps),
    )


def hold(core: int | None) -> None:
    """Keep torch to one thread and, if asked to, this process and those that it starts to one core."""
    if core is not None:
        os.sched_setaffinity(0, {core})
    torch.set_num_threads(1)


def idlest_core() -> int:
    """The core with the least to do in this second."""
    loads = psutil.cpu_percent(interval=1.0, percpu=True)
    return min(os.sched_getaffinity(0), key=lambda core: loads[core])


@contextmanager
def started(target: Callable[[Connection, Job], None], job: Job) -> Iterator[Connection]:
    """The pipe to a process of its own that runs `target`, ready for its first turn."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=target, args=(there, job))
    process.start()
    there.close()
    try:
        yield here
        here.send(0)
        process.join()
    finally:
        if process.is_alive():  # interrupted: what it stopped would never end by itself
            for each in (process, *psutil.Process(process.pid).children(recursive=True)):
                each.kill()


def measured(job: Job, rounds: int, steps: int) -> tuple[int | None, dict[str, list[Turn]]]:
    """Operations of a step, and `rounds` turns of each side."""
    turns: dict[str, list[Turn]] = {"ours": [], "LeRobot": []}
    order = random.Random(0)
    with started(ours, job) as one, started(lerobots, job) as other:
        flops = one.recv()
        other.recv()
        pipes = {"ours": one, "LeRobot": other}
        for _ in range(rounds):
            for name in order.sample(sorted(pipes), 2):
                pipes[name].send(steps)
                turns[name].append(pipes[name].recv())
    return flops, turns


def row(job: Job, flops: int | None, turns: dict[str, list[Turn]]) -> tuple[list[str], bool]:
    """A line of the table, and whether what is promised holds."""

    def median(name: str, field: str) -> float:
        return statistics.median(getattr(turn, field) for turn in turns[name])

    def ratio(field: str) -> tuple[float, str]:
        pairs = zip(turns["LeRobot"], turns["ours"], strict=True)
        low, middle, high = statistics.quantiles(
            [getattr(a, field) / getattr(b, field) for a, b in pairs], n=4
        )
        return middle, f"{middle:.2f} [{low:.2f}, {high:.2f}]"

    def data(name: str) -> float:
        return statistics.median(turn.data / turn.wall for turn in turns[name])

    floor = (flops or 0) / median("ours", "products")
    names = ("LeRobot", "ours")
    cells = [
        f"{job.autocast}, {'all cores, 4 loaders' if job.core is None else 'one core, no loaders'}",
        *(f"{1 / median(name, 'wall'):.2f}" for name in names),
        ratio("wall")[1],
        *(f"{1e3 * median(name, 'cpu'):.0f}" for name in names),
        ratio("cpu")[1],
        *(f"{100 * data(name):.1f} %" for name in names),
        *(f"{median(name, 'cpu') / floor:.1f}" for name in names),
    ]
    right = ratio("wall")[0] >= LEAST_RATIO and data("ours") <= MOST_DATA
    return cells, right or job.core is None


HEADS = (
    "",
    "steps/s: LeRobot",
    "ours",
    "ratio [quartiles]",
    "CPU ms a step: LeRobot",
    "ours",
    "ratio [quartiles]",
    "data: LeRobot",
    "ours",
    "times the floor: LeRobot",
    "ours",
)


def main(
    policy: Annotated[str, typer.Argument(help="act, or a recipe's path")] = "act",
    batch: Annotated[int, typer.Option(help="windows in a batch")] = 64,
    data: Annotated[str, typer.Option(help="demonstrations, as `il-bench train` takes them")] = "expert",
    rounds: Annotated[int, typer.Option(help="turns of each side")] = 8,
    steps: Annotated[int, typer.Option(help="steps in a turn")] = 8,
) -> None:
    """Train POLICY on both sides; exit 1 if ours on one core is not 1.3 times LeRobot's."""
    console, table, right = Console(width=170), Table(*HEADS), True
    for autocast in DTYPES:
        for core in (idlest_core(), None):
            job = Job(policy, batch, autocast, data, core)
            flops, turns = measured(job, rounds, steps)
            cells, reached = row(job, flops, turns)
            table.add_row(*cells)
            right &= reached
            rate = statistics.median(turn.products for turn in turns["ours"])
            console.print(
                f"{cells[0]}: {(flops or 0) / 1e9:.3f} GFLOP a step, products at {rate / 1e9:.1f} GFLOP/s, "
                f"CPU ratio {cells[6]}"
            )
    console.print(f"{policy}, batch {batch}, {rounds} turns of {steps} steps on each side", table, sep="\n")
    sys.exit(not right)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    try:
        typer.run(main)
    except IlBenchError as error:
        sys.exit(str(error))
