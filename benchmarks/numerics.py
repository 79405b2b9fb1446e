"""What do bfloat16 and torch.compile gain in a rollout, and what do they cost in success?

For every policy, each way to compute runs the same blocks of 50 validation episodes in turns, in this process
on one thread. The first block of each is left out of its time: it compiles. Processor time counts, so that
other work on the machine does not. Run by `make numerics`.
"""

import itertools
import os
import statistics
import time
from typing import Annotated

os.environ.update(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1")

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from il_bench.gate.verdict import PolicyGates
from il_bench.machine import AS_SAVED, Numerics
from il_bench.policies.checkpoint import load_policy
from il_bench.protocol import BLOCK_SIZE, SEED_STARTS
from il_bench.rollout import Outcomes, run_block
from il_bench.rollout.metrics import DEFAULT_METRIC

WAYS = {
    "as saved": AS_SAVED,
    "bfloat16": Numerics("bfloat16"),
    "compiled": Numerics(compiled=True),
    "both": Numerics("bfloat16", compiled=True),
}


def main(
    policy: Annotated[list[str] | None, typer.Option(help="A name, folder or Hub id; repeat it.")] = None,
    blocks: Annotated[int, typer.Option(min=2, max=20, help="How many blocks of 50 episodes.")] = 20,
    without_compile: Annotated[bool, typer.Option(help="Leave out what takes a compiler.")] = False,
) -> None:
    """Print a row for each policy and way to compute."""
    ways = {name: way for name, way in WAYS.items() if not (without_compile and way.compiled)}
    table = Table("policy", "computes", "success_rate", "lost, won", "s a block", "times as fast")
    for spec in policy or ["act", "diffusion"]:
        found, seconds = measured(spec, ways, blocks)
        usual = found["as saved"].success
        for name, outcomes in found.items():
            estimate = PolicyGates(spec).verdict(outcomes).estimates[DEFAULT_METRIC]
            took = statistics.median(seconds[name][1:])
            table.add_row(
                *(spec, name, "{:.3f} [{:.3f}, {:.3f}]".format(*estimate)),
                f"{(usual & ~outcomes.success).sum()}, {(outcomes.success & ~usual).sum()}",
                *(f"{took:.2f}", f"{statistics.median(seconds['as saved'][1:]) / took:.2f}"),
            )
    Console().print(table)


def measured(
    spec: str, ways: dict[str, Numerics], blocks: int
) -> tuple[dict[str, Outcomes], dict[str, list[float]]]:
    """The episodes of each way to compute, and the processor seconds of each of its blocks."""
    policies = {name: load_policy(spec, numerics=way) for name, way in ways.items()}
    parts: dict[str, list[Outcomes]] = {name: [] for name in ways}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number, name in itertools.product(range(blocks), ways):
        first = SEED_STARTS["validation"] + number * BLOCK_SIZE
        start = time.process_time()
        parts[name].append(run_block(policies[name], np.arange(first, first + BLOCK_SIZE)))
        seconds[name].append(time.process_time() - start)
    return {name: Outcomes.concatenate(each) for name, each in parts.items()}, seconds


if __name__ == "__main__":
    typer.run(main)
