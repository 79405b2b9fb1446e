"""What does recording cost? Blocks of a rollout with and without it, in turn, in processor time.

Without it means that only what is counted of an episode is worked out, which every rollout does. With it come
the agent, the actions, 16 bits for each number, and the file of the block.

    python benchmarks/recording_cost.py [--policy bc] [--pairs 60]
"""

import gc
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import typer
from numpy.typing import NDArray

from il_bench.policies.checkpoint import load_policy
from il_bench.protocol import BLOCK_SIZE, SEED_STARTS
from il_bench.rollout import blocks
from il_bench.rollout.recording import StepRecorder
from il_bench.rollout.recordings import Recordings

ALLOWED = 1.02


class Counting(StepRecorder):
    """Takes down what is counted only: the block's pose and the coverage."""

    def add(self, actions: NDArray[np.floating]) -> None:
        """Take down the state after a step."""
        self._n += 1
        row = self._rows[self._n]
        row[:, 2:5], row[:, 7] = self._worlds.pose, self._worlds.coverage

    def recording(self, seeds: NDArray[np.int64], n_steps: NDArray[np.int64]) -> Any:
        """Return nothing."""
        return None


def seconds_of(policy: Any, seeds: NDArray[np.int64], kept: Recordings, *, recorded: bool) -> float:
    """Processor seconds of one block."""
    gc.collect()
    gc.disable()
    try:
        start = time.process_time()
        with patch.object(blocks, "StepRecorder", StepRecorder if recorded else Counting):
            found = blocks.run_block(policy, seeds)
        kept.save(found)
        return time.process_time() - start
    finally:
        gc.enable()


def main(policy: str = "bc", pairs: int = 60) -> None:
    """Print the ratio of both with its 95 % interval, on validation starts; a cheap policy pays most."""
    loaded = load_policy(policy)
    times = np.zeros((pairs, 2))  # without, with
    with tempfile.TemporaryDirectory() as folder:
        kept = Recordings(Path(folder), policy, "keypoints")
        for pair in range(-1, pairs):  # the first one warms up
            first = SEED_STARTS["validation"] + BLOCK_SIZE * (pair % 20)
            seeds = np.arange(first, first + BLOCK_SIZE)
            for recorded in (pair % 2 == 0, pair % 2 != 0):
                times[pair, int(recorded)] = seconds_of(loaded, seeds, kept, recorded=recorded)
        files = sorted(Path(folder).rglob("*.npz"))
        size = sum(path.stat().st_size for path in files) / len(files) / BLOCK_SIZE
    logs = np.log(times[:, 1] / times[:, 0])
    half = 1.96 * logs.std(ddof=1) / np.sqrt(pairs)
    ratio, low, high = np.exp([logs.mean(), logs.mean() - half, logs.mean() + half])
    without, with_ = 1e3 * np.median(times, axis=0)
    print(f"{policy}: {pairs} pairs of blocks of {BLOCK_SIZE} episodes, processor time")
    print(f"a block takes {without:.0f} ms without recording, {with_:.0f} ms with it")
    print(f"an episode takes {size:.0f} bytes")
    print(f"ratio {ratio:.4f} [{low:.4f}, {high:.4f}]; allowed is {ALLOWED:.2f}")


if __name__ == "__main__":
    typer.run(main)
