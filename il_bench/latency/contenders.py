"""Two contenders, A and B: each is a call of a policy, and warm processes time both in turns."""

import math
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing.connection import wait
from pathlib import Path
from typing import Literal

import numpy as np

from il_bench.errors import IlBenchError
from il_bench.latency.compare import Comparison, OnRound, Rule, compare
from il_bench.latency.processes import HERE, Message, Worker, pin_together
from il_bench.protocol import Mode, TimedCall

PROCESSES = 6  # of each contender
STARTING = 0.75  # of the seconds of a comparison, at most
SECONDS_BETWEEN_LOOKS = 0.5  # at the processes that start
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


#: Called while processes start, with how many are ready, of how many.
OnStart = Callable[[int, int], object]


def load(
    workers: Sequence[Worker],
    contenders: Sequence[Contender],
    key: str = KEY,
    *,
    until: float = math.inf,
    on_start: OnStart = lambda ready, of: None,
) -> dict[int, Message]:
    """Let each worker load its contender, all at once, under the name `key`.

    until: the moment (time.monotonic) to stop waiting. Returns the facts of those that are ready by then, by
    their place in `workers`.
    """
    for worker, contender in zip(workers, contenders, strict=True):
        worker.send({"load": contender.request, "key": key})
    found: dict[int, Message] = {}
    while len(found) < len(workers) and time.monotonic() < until:
        on_start(len(found), len(workers))
        missing = [place for place in range(len(workers)) if place not in found]
        left = min(SECONDS_BETWEEN_LOOKS, until - time.monotonic())
        answered = wait([workers[place].output for place in missing], max(0.0, left))
        for place in missing:
            if workers[place].output in answered:
                found[place] = workers[place].receive()["facts"]
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
    on_start: OnStart = lambda ready, of: None,
    on_round: OnRound = lambda last: None,
) -> ComparedPolicies:
    """Start processes of both contenders, and time them in turns.

    processes: for each contender.
    seconds: the most to spend on all of it, about. Of processes that have not started by three quarters of
        it, the comparison does without, as long as there are two of each contender.
    clock: ``processor`` or ``wall``; None for the one that suits both.
    seed: of the order of the blocks.
    on_start: called while processes start. on_round: called after each round with the last look.
    """
    chosen = clock or (a.clock if a.clock == b.clock else "wall")
    if chosen == "processor" and {a.device, b.device} != {"cpu"}:
        raise IlBenchError("clock: processor time does not see a GPU's work; use wall")
    start, each = time.monotonic(), [contender for contender in (a, b) for _ in range(processes)]
    until = start + STARTING * seconds
    with ExitStack() as stack:
        workers = [stack.enter_context(Worker(one.python, threads=one.threads)) for one in each]
        on_start(0, len(workers))
        for worker in workers:
            worker.greeting()
        facts = load(workers, each, until=until, on_start=on_start)
        teams = _teams([place in facts for place in range(len(each))])
        spent = time.monotonic() - start
        if len(teams[0]) < 2:
            raise IlBenchError(
                f"--budget: after {spent:.0f} s of {seconds:g}, {len(facts)} of {len(each)} "
                "processes have started, too few to compare; the machine is busy: wait, or give a larger "
                "--budget or fewer --processes"
            )
        used = [place for team in teams for place in team]
        for place, worker in enumerate(workers):
            if place not in used:
                worker.close()  # what it still does would disturb the others
        if chosen == "processor":
            pin_together([workers[place] for place in used])
        of_a, of_b = ([partial(workers[place].time_block, KEY, chosen) for place in team] for team in teams)
        rng = np.random.default_rng(seed)
        found = compare(of_a, of_b, rule, rng, seconds=seconds - spent, on_round=on_round)
    return ComparedPolicies(found, (a, b), (facts[teams[0][0]], facts[teams[1][0]]), chosen)


def _teams(is_ready: Sequence[bool]) -> tuple[list[int], list[int]]:
    """The places of the processes of A (the first half) and of B that are ready, as many of A as of B."""
    half = len(is_ready) // 2
    of_a, of_b = (
        [place for place in places if is_ready[place]] for places in (range(half), range(half, 2 * half))
    )
    n = min(len(of_a), len(of_b))
    return of_a[:n], of_b[:n]
