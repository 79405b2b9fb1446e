"""The two sides of a comparison: which call, in which environment, in how many processes."""

import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from il_bench.errors import IlBenchError
from il_bench.latency.compare import Comparison, OnRound, Rule, compare
from il_bench.latency.workers import HERE, Process, Subject, Worker, clock_of, greet, load, pin_together

PROCESSES = 6  # of a side
CLOCKS = ("processor", "wall")
_KEY = "subject"

Message = dict[str, Any]


@dataclass(frozen=True)
class Side:
    """What one side runs. `python`: the interpreter of the environment that runs it."""

    subject: Subject
    python: Path = HERE


@dataclass(frozen=True)
class Result:
    """A comparison and what it was one of. `facts`: what each side's processes say of policy and machine."""

    comparison: Comparison
    sides: tuple[Side, Side]
    facts: tuple[Message, Message]
    clock: str

    def to_dict(self) -> Message:
        """Plain values, for a file."""
        sides = {
            name: {**asdict(side.subject), "python": str(side.python), **facts}
            for name, side, facts in zip(("a", "b"), self.sides, self.facts, strict=True)
        }
        return {**asdict(self.comparison), "clock": self.clock, **sides}


@contextmanager
def opened(
    sides: Sequence[Side], processes: int, on_ready: Callable[[], None] = lambda: None
) -> Iterator[tuple[list[Worker], list[Message]]]:
    """Warm processes that have loaded their side's policy, those of the first side first; ended on leaving.

    Yields:
        The processes, and the first facts of each side.

    Raises:
        IlBenchError: a side cannot be run, or its processes end.
    """
    with ExitStack() as stack:
        chosen = [side for side in sides for _ in range(processes)]
        workers = [stack.enter_context(Worker(side.python, threads=side.subject.threads)) for side in chosen]
        greet(workers)
        facts = load(workers, [side.subject for side in chosen], _KEY, on_ready)
        yield workers, facts[::processes]


def hold(
    a: Side,
    b: Side,
    rule: Rule,
    *,
    processes: int = PROCESSES,
    seconds: float,
    clock: str | None = None,
    seed: int | None = None,
    on_ready: Callable[[], None] = lambda: None,
    on_round: OnRound | None = None,
) -> Result:
    """Start both sides and time them in turns.

    Args:
        processes: of each side.
        seconds: of timing, at most about so long; starting comes before.
        clock: ``processor`` or ``wall``; None: the one that is right (`workers.clock_of`).
        seed: of the order of the blocks.
        on_ready: called for each process that is warm.
        on_round: see `compare.compare`.

    Raises:
        IlBenchError: a side cannot be run; a value is out of its bounds.
    """
    chosen = clock or clock_of(a.subject, b.subject)
    if chosen not in CLOCKS:
        raise IlBenchError(f"clock: unknown {chosen!r}; use {' or '.join(CLOCKS)}")
    if chosen == "processor" and {a.subject.device, b.subject.device} != {"cpu"}:
        raise IlBenchError("clock: processor time does not see what a GPU does; use wall")
    if processes < 2:
        raise IlBenchError(f"processes: {processes} cannot show how much processes differ; use 2 or more")
    with opened((a, b), processes, on_ready) as (workers, facts):
        if chosen == "processor":
            pin_together(workers)
        timed = [Process(worker, _KEY, chosen) for worker in workers]
        rng = np.random.default_rng(secrets.randbits(64) if seed is None else seed)
        options: Any = {"seconds": seconds, "on_round": on_round}
        found = compare(timed[:processes], timed[processes:], rule, rng, **options)
    return Result(found, (a, b), (facts[0], facts[1]), chosen)
