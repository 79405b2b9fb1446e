"""Where a command's episodes run: the options that say so, each declared once, and what comes of them.

`il-bench --help` loads this module, which imports no torch.
"""

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from il_bench import machine
from il_bench.machine import AS_SAVED, Numerics
from il_bench.protocol import KEYPOINTS, ExecutorName
from il_bench.rollout import executors, progress

if TYPE_CHECKING:
    from il_bench.rollout import Outcomes, Policy, RunBlock
    from il_bench.rollout.executors import Executor

WorkersOption = Annotated[
    int | None,
    typer.Option(min=1, help="Number of processes; it does not change the result. Default: one per core."),
]
ExecutorOption = Annotated[
    ExecutorName | None,
    typer.Option(
        help="Where episodes run: inline, in this process; in processes; or by ray, on many machines. "
        "Results do not"
        " depend on it."
    ),
]
AddressOption = Annotated[
    str | None,
    typer.Option(
        help="Address of a Ray cluster: HOST:PORT, or auto. Default: a cluster of this machine alone, "
        "for this run."
    ),
]
DeviceOption = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps.")]


@dataclass(frozen=True)
class Place:
    """Where episodes run: on which device, by which executor (see `rollout`), at most so many at once."""

    device: str
    executor: "str | Executor | None"
    workers: int

    @staticmethod
    def of(
        workers: int | None,
        executor: str | None,
        address: str | None,
        device: str,
        track: str = KEYPOINTS,
        numerics: Numerics = AS_SAVED,
    ) -> "Place":
        """The place that the options name; IlBenchError for one that cannot be had here."""
        executors.check(executor, address, device)
        machine.check_device(device)
        conditions = partial(machine.fingerprint, device, track, numerics)
        found = executors.of_options(executor, address, workers, conditions, on_gpu=device != "cpu")
        return Place(device, found, workers or machine.usable_cores())

    def import_ahead(self, n_blocks: int) -> None:
        """Let worker processes, if so many blocks need them, import beside this process what it will."""
        executors.import_ahead(min(self.workers, n_blocks), self.executor)

    def roll_out(
        self, policy: "Policy", seeds: range, title: str, block: "RunBlock | None" = None
    ) -> "Outcomes":
        """Roll a policy out here, with a bar on a terminal. block: see `rollout`."""
        from il_bench.rollout import rollout

        with progress.on_terminal(title, len(seeds)) as on_block:
            return rollout(
                policy,
                seeds,
                workers=self.workers,
                executor=self.executor,
                on_block=on_block,
                block=block,
            )
