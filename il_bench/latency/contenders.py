"""Two contenders, A and B: each is a call of a policy, and warm processes time both in turns."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from il_bench.errors import IlBenchError
from il_bench.latency.compare import Comparison, OnRound, Rule, compare
from il_bench.latency.processes import HERE, Message, Worker, pin_together
from il_bench.protocol import Mode, TimedCall

PROCESSES = 6  # of each contender
KEY = "contender"  # the workers' name for the one that they have loaded


@dataclass(frozen=True)
class Contender:
    """A call of a policy, and where it runs.

    policy: as `load_policy` takes it. device: ``cpu``, ``cuda:N``, ``mps``.
    what, batch, processed, mode: as `calls.policy_call` takes them.
    sampler: a diffusion policy's, such as ``DDIM-10``; None for the checkpoint's own.
    threads: torch's, on the CPU. python: the interpreter of the Python environment that runs it.
    """

    policy: str
    device: str = "cpu"
    what: str = TimedCall.NEW_CHUNK
    batch: int = 1
    processed: bool = True
    mode: str = Mode.EAGER
    sampler: str | None = None
    threads: int = 1
    python: Path = HERE

    @property
    def clock(self) -> Literal["processor", "wall"]:
        """``processor`` if one CPU thread does the work, else ``wall``.

        Processor time leaves out the time that other programs had the core. But it adds up threads that run
        at once, and sees only the launches of a GPU's work: there the machine has to be quiet.
        """
        return "processor" if self.device == "cpu" and self.threads == 1 else "wall"

    @property
    def request(self) -> Message:
        """The request that lets a worker load it: all fields but `python`."""
        return {name: value for name, value in vars(self).items() if name != "python"}


@dataclass(frozen=True)
class ComparedPolicies:
    """A comparison, and what was compared. `facts`: what its processes say of policy and machine."""

    comparison: Comparison
    contenders: tuple[Contender, Contender]
    facts: tuple[Message, Message]
    clock: str

    def to_dict(self) -> Message:
        """Plain values, for a file."""
        a, b = (
            {**vars(contender), "python": str(contender.python), **facts}
            for contender, facts in zip(self.contenders, self.facts, strict=True)
        )
        return {**asdict(self.comparison), "clock": self.clock, "a": a, "b": b}


def load(
    workers: Sequence[Worker],
    contenders: Sequence[Contender],
    key: str = KEY,
    on_ready: Callable[[], object] = lambda: None,
) -> list[Message]:
    """Let each worker load its contender, all at once, under the name `key`; return each one's facts."""
    for worker, contender in zip(workers, contenders, strict=True):
        worker.send({"load": contender.request, "key": key})
    found = []
    for worker in workers:
        found.append(worker.receive()["facts"])
        on_ready()
    return found


def compare_policies(
    a: Contender,
    b: Contender,
    rule: Rule,
    *,
    processes: int = PROCESSES,
    seconds: float,
    clock: str | None = None,
    seed: int | None = None,
    on_step: OnRound = lambda last: None,
) -> ComparedPolicies:
    """Start processes of both contenders, and time them in turns.

    processes: for each contender.
    seconds: the most to spend on timing, about; starting the processes comes on top.
    clock: ``processor`` or ``wall``; None for the one that suits both.
    seed: of the order of the blocks.
    on_step: called for each process that is warm, and for each round with the last look.
    """
    chosen = clock or (a.clock if a.clock == b.clock else "wall")
    if chosen == "processor" and {a.device, b.device} != {"cpu"}:
        raise IlBenchError("clock: processor time does not see a GPU's work; use wall")
    each = [contender for contender in (a, b) for _ in range(processes)]
    with ExitStack() as stack:
        workers = [stack.enter_context(Worker(one.python, threads=one.threads)) for one in each]
        for worker in workers:
            worker.greeting()
        facts = load(workers, each, on_ready=partial(on_step, None))
        if chosen == "processor":
            pin_together(workers)
        timed = [partial(worker.time_block, KEY, chosen) for worker in workers]
        of_a, of_b, rng = timed[:processes], timed[processes:], np.random.default_rng(seed)
        found = compare(of_a, of_b, rule, rng, seconds=seconds, on_round=on_step)
    return ComparedPolicies(found, (a, b), (facts[0], facts[processes]), chosen)
