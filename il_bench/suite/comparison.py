"""What test_comparison.py times: each policy in several warm processes, which all policies share."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import numpy as np

from il_bench.latency import stored
from il_bench.latency.workers import Process, Subject, Worker, greet, load, pin_together
from il_bench.plugin.settings import Settings
from il_bench.report import schema

YARDSTICK = "yardstick"


class Stopwatch:
    """Times policies in processes that are started once."""

    def __init__(self, workers: list[Worker], settings: Settings) -> None:
        self._workers = workers
        self._settings = settings
        self._rng = np.random.default_rng()
        for worker in workers:
            worker.ask({"load": {"policy": None}, "key": YARDSTICK})

    def time(self, name: str, source: str) -> schema.Stored:
        """A policy's row: kept, and compared where --il-compare names a run.

        Raises:
            IlBenchError: the policy cannot be timed, or that run has nothing of it.
        """
        subject = Subject(source, self._settings.device)
        facts = load(self._workers, [subject] * len(self._workers), name)[0]
        clock = subject.clock
        if clock == "processor":
            pin_together(self._workers)
        timed = [Process(worker, name, clock) for worker in self._workers]
        yardsticks = [Process(worker, YARDSTICK, clock) for worker in self._workers]
        blocks, beside = stored.take(timed, yardsticks if clock == "processor" else None, self._rng)
        row = schema.Stored(
            policy=name,
            what=subject.what,
            batch=subject.batch,
            device=subject.device,
            verdict="kept",
            clock="processor" if clock == "processor" else "wall",
            sha256=facts["sha256"],
            blocks=blocks,
            yardstick=beside,
            machine=facts["machine"],
            versions=facts["versions"],
        )
        path = self._settings.compare
        return row if path is None else stored.against(stored.find(path, row), row, path)


@contextmanager
def stopwatch(settings: Settings) -> Iterator[Stopwatch]:
    """Start the processes, and end them."""
    with ExitStack() as stack:
        workers = [stack.enter_context(Worker()) for _ in range(stored.PROCESSES)]
        greet(workers)
        yield Stopwatch(workers, settings)
