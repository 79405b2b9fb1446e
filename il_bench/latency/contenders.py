"""Two contenders, A and B: each a call of a policy in some environment, timed in turns by warm processes."""

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
KEY = "contender"  # what workers call the one that they have loaded


@dataclass(frozen=True)
class Contender:
    """What is timed.

    Attributes:
        policy: as `load_policy` takes it. `device`: ``cpu``, ``cuda:N``, ``mps``.
        what, batch, processed, mode: as `calls.policy_call` takes them.
        sampler: of a diffusion policy, such as ``DDIM-10``; None: the checkpoint's.
        threads: of torch, on the CPU.
        python: the interpreter of the environment that runs it.
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
        """``processor`` time where one thread of the CPU does the work, else ``wall``.

        Processor time leaves out that other programs had the core. But on several threads it adds up what
        runs at once, and of a GPU's work it sees the launches only: there the machine has to be quiet.
        """
        return "processor" if self.device == "cpu" and self.threads == 1 else "wall"

    @property
    def request(self) -> Message:
        """What a worker is asked to load: all fields but `python`."""
        return {name: value for name, value in vars(self).items() if name != "python"}


@dataclass(frozen=True)
class ComparedPolicies:
    """A comparison and what was compared. `facts`: what each one's processes say of policy and machine."""

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
    """Let each worker load its contender, all at once, and call it `key`: the facts that each tells.

    An IlBenchError where a policy, device or environment is not what it should be.
    """
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
    """Start processes of both and time them in turns.

    Args:
        processes: of each.
        seconds: of timing, at most about so long; starting comes before.
        clock: ``processor`` or ``wall``; None: the one that is right for both.
        seed: of the order of the blocks.
        on_step: called for each process that is warm, and for each round with the last look.

    Raises:
        IlBenchError: one cannot be run; a value is out of its bounds.
    """
    chosen = clock or (a.clock if a.clock == b.clock else "wall")
    if chosen == "processor" and {a.device, b.device} != {"cpu"}:
        raise IlBenchError("clock: processor time does not see what a GPU does; use wall")
    each = [contender for contender in (a, b) for _ in range(processes)]
    with ExitStack() as stack:
        workers = [stack.enter_context(Worker(one.python, threads=one.threads)) for one in each]
        for worker in workers:
            worker.greeting()
        facts = load(workers, each, on_ready=partial(on_step, None))
        if chosen == "processor":
            pin_together(workers)
        timed = [partial(worker.time_block, KEY, chosen) for worker in workers]
        sides, rng = (timed[:processes], timed[processes:]), np.random.default_rng(seed)
        found = compare(*sides, rule, rng, seconds=seconds, on_round=on_step)
    return ComparedPolicies(found, (a, b), (facts[0], facts[processes]), chosen)
