"""What do processes and Ray cost beside one process, and what does the driver have to do for a block?

Every way of running the same blocks starts in a process of its own, as a command does, and in turns. Wall
time is from the start of that process to its last block. Processor time is that of all its processes, Ray's
own servers too. Then Ray gets blocks that are made already, so that what is left is the driver's work: to
hand tasks out, take episodes and recordings, and write both down.

    python benchmarks/executor_cost.py [--policy bc] [--blocks 12] [--rounds 3]
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import typer
from numpy.typing import NDArray

from il_bench.policies.checkpoint import LoadedPolicy, load_policy
from il_bench.protocol import BLOCK_SIZE, KEYPOINTS, SEED_STARTS
from il_bench.rollout import Outcomes, executors, rollout, run_block
from il_bench.rollout.executors import ExecutorName
from il_bench.rollout.journal import Conditions, opened
from il_bench.rollout.recordings import Recordings

FIRST = SEED_STARTS["validation"]
WAYS = (("inline", 1), ("processes", 1), ("processes", 2), ("ray", 1), ("ray", 2))


def seconds_of_all() -> float:
    """Processor seconds of this process and of all that it has started, also of those that have ended."""
    tick, parents, spent = os.sysconf("SC_CLK_TCK"), {}, {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(") ")[2].split()
        except OSError:  # it has just ended
            continue
        parents[int(path.parent.name)] = int(fields[1])
        spent[int(path.parent.name)] = sum(map(int, fields[11:15])) / tick
    ours = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in ours} - ours:
        ours |= more
    return sum(spent[pid] for pid in ours)


def one(executor: str, workers: int, policy: str, blocks: int) -> None:
    """Run the blocks one way, and print what it took."""
    loaded = load_policy(policy)
    ready = time.time()
    where = executors.of_options(executor, None, workers, dict)
    seeds = range(FIRST, FIRST + BLOCK_SIZE * blocks)
    found = rollout(loaded.copies() or loaded, seeds, workers=workers, executor=where, size=BLOCK_SIZE)
    spent = {"ended": time.time(), "ready": ready, "processor": seconds_of_all()}
    print(json.dumps({**spent, "success_rate": found.success_rate}))


class Remembered:
    """Gives a block that was rolled out before, with the seeds that are wanted."""

    def __init__(self, block: Outcomes) -> None:
        self._block = block

    def __call__(self, policy: LoadedPolicy, wanted: NDArray[np.int64]) -> Outcomes:
        """See `run_block`."""
        records = [
            {**record, "seed": int(seed)}
            for seed, record in zip(wanted, self._block.to_records(), strict=True)
        ]
        made = Outcomes.from_records(records, self._block.seconds)
        object.__setattr__(made, "recording", self._block.recording)
        return made


def driver(policy: str, blocks: int) -> None:
    """Print what the driver needs for a block, and what a block needs."""
    loaded = load_policy(policy)
    seeds = np.arange(FIRST, FIRST + BLOCK_SIZE)
    run_block(loaded, seeds)  # warm
    start = time.process_time()
    block = run_block(loaded, seeds)
    of_block = time.process_time() - start
    where = executors.of_options(ExecutorName.RAY, None, 2, dict)
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder)
        kept = Recordings(report, policy, KEYPOINTS)
        conditions = Conditions(policy, KEYPOINTS, loaded.sha256, FIRST, {})
        roll = partial(rollout, loaded.copies(), executor=where, size=BLOCK_SIZE, block=Remembered(block))
        roll(range(FIRST, FIRST + 20 * BLOCK_SIZE))  # Ray and its processes are up
        before = time.process_time(), time.perf_counter()
        with opened(report / "journal.jsonl", conditions, resume=False) as journal:
            roll(range(FIRST, FIRST + BLOCK_SIZE * blocks), journal=journal, record=kept.save)
        spent = time.process_time() - before[0], time.perf_counter() - before[1]
    print(json.dumps({"block": of_block, "driver": spent[0] / blocks, "wall": spent[1] / blocks}))


def measured(*arguments: object) -> dict[str, float]:
    """What a process of this script prints, with its wall time."""
    start = time.time()
    command = [sys.executable, "-W", "ignore", __file__, *map(str, arguments)]
    found: dict[str, float] = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    return {**found, "wall": found.get("ended", 0.0) - start} if "ended" in found else found


def main(
    policy: str = "bc", blocks: int = 12, rounds: int = 3, way: str = "", workers: int = 1, made: int = 1000
) -> None:
    """Print both tables. way, workers: only this one, as numbers."""
    if way:
        driver(policy, made) if way == "driver" else one(way, workers, policy, blocks)
        return
    found: dict[tuple[str, int], list[dict[str, Any]]] = {each: [] for each in WAYS}
    for turn in range(rounds):
        for each in WAYS if turn % 2 == 0 else WAYS[::-1]:
            arguments = ("--policy", policy, "--blocks", blocks, "--way", each[0], "--workers", each[1])
            found[each].append(measured(*arguments))
    print(f"{policy}: {blocks} blocks of {BLOCK_SIZE} episodes, median of {rounds} rounds, seconds")
    print(f"{'':14} {'wall':>6} {'of it blocks':>13} {'processor':>10} {'beside inline':>14}")
    base = np.median([run["processor"] for run in found["inline", 1]])
    for (name, n), runs in found.items():
        wall, processor = (np.median([run[key] for run in runs]) for key in ("wall", "processor"))
        of_blocks = np.median([run["ended"] - run["ready"] for run in runs])
        print(f"{f'{name}, {n}':14} {wall:6.1f} {of_blocks:13.1f} {processor:10.1f} {processor / base:14.2f}")
    assert len({run["success_rate"] for runs in found.values() for run in runs}) == 1
    took = measured("--policy", policy, "--way", "driver", "--made", made)
    of_driver, of_wall = 1e3 * took["driver"], 1e3 * took["wall"]
    print(f"\na block takes {took['block']:.2f} s of a processor, and {of_driver:.1f} ms of the driver's")
    print(f"({of_wall:.1f} ms of wall time, with two workers beside it on this machine)")
    print(f"one driver keeps about {took['block'] / took['driver']:.0f} processors busy")


if __name__ == "__main__":
    typer.run(main)
