"""Tasks in several processes of this machine.

A worker process that dies costs only the task it had: another takes its place and runs the task again. (A
`ProcessPoolExecutor` gives up all its workers and their tasks, and cannot say whose task it was.)
"""

import math
import os
import pickle
import signal
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import Any

from il_bench.errors import IlBenchError
from il_bench.rollout import executors
from il_bench.rollout.executors import Job, starting
from il_bench.rollout.executors.answers import MAX_DEATHS, Answer, packed, sendable, too_late
from il_bench.rollout.progress import Step, tell, told

_SECONDS_TO_EXIT = 5.0
_SECONDS_BETWEEN_STEPS = 0.2  # that a worker tells, after the first


class ProcessExecutor:
    """See `Executor`. Worker processes are new (see `starting`), load when they have a task, and die with us.

    workers: number of processes, at least 1. timeout: seconds that a task may take; None: for ever.
    """

    def __init__(self, workers: int, timeout: float | None = None) -> None:
        self._workers, self._timeout = workers, timeout

    def run[L, T, R](self, job: Job[L, T, R]) -> Generator[R, None, None]:
        """See `Executor.run`.

        Tells the steps that workers tell. Also raises IlBenchError if `load` or `function` cannot be pickled,
        or if a task took longer than the timeout or killed MAX_DEATHS workers.
        """
        payload, names = packed(job, f"workers={self._workers}"), list(map(job.name, job.tasks))
        waiting, deaths = deque(range(len(names))), Counter[int]()
        team: list[_Worker] = []
        try:
            while waiting or any(worker.index is not None for worker in team):
                while waiting and len(team) < min(self._workers, len(names)):
                    team.append(_Worker(payload))
                _hand_out(team, waiting, job.tasks)
                for worker in self._heard(team, names):
                    index, answer = worker.answer()
                    if isinstance(answer, Step):
                        tell(answer)
                        continue
                    if answer is None:
                        team.remove(worker)
                        waiting.appendleft(index)
                        deaths[index] += 1
                        exit_code = worker.end()
                        if deaths[index] == MAX_DEATHS:
                            raise IlBenchError(_last_words(names[index], exit_code))
                        continue
                    _hand_out(team, waiting, job.tasks)  # before the caller sees it, so that no worker idles
                    if not answer.succeeded:
                        raise answer.value
                    yield answer.value
        finally:
            for worker in team:
                worker.stop()
            for worker in team:
                worker.end()

    def _heard(self, team: "list[_Worker]", names: Sequence[str]) -> "list[_Worker]":
        """Wait for workers that have said something or died; IlBenchError if one takes too long."""
        busy = [worker for worker in team if worker.index is not None]
        left = None
        if self._timeout is not None:
            left = max(0.0, min(worker.since for worker in busy) + self._timeout - time.monotonic())
        ready = wait([worker.connection for worker in busy], left)
        for worker in busy:
            is_late = self._timeout is not None and time.monotonic() - worker.since >= self._timeout
            if is_late and worker.index is not None and worker.connection not in ready:
                raise too_late(names[worker.index], self._timeout or 0.0, worker.last)
        return [worker for worker in busy if worker.connection in ready]


class _Worker:
    """A process that waits for tasks, and the index of the one it has, if any.

    since: when it got the task (time.monotonic). last: the last step that it told of it.
    """

    def __init__(self, payload: bytes) -> None:
        # Never forked from this process: a child would inherit torch's threads and locks as they are.
        context = starting.context()
        self.connection, theirs = context.Pipe()
        self.index: int | None = None
        self.since = self._processor = 0.0
        self.last: Step | None = None
        # A daemon: it does not keep this process from ending.
        arguments = (theirs, payload, dict(os.environ))
        self._process = context.Process(target=_work, args=arguments, daemon=True)
        with suppress(BrokenPipeError):  # it died at once, and its connection says so
            self._process.start()
        theirs.close()

    def give(self, index: int, task: Any) -> None:
        """Send a task; reading its answer shows whether the worker still lives."""
        self.index, self.since, self.last = index, time.monotonic(), None
        with suppress(OSError):
            self.connection.send(task)

    def answer(self) -> tuple[int, Answer | Step | None]:
        """Return the index of its task, and a step, or what became of the task: None if the worker died."""
        index, found = self.index, None
        assert index is not None
        with suppress(EOFError, OSError):
            found = self.connection.recv()
        if isinstance(found, Step):
            self.last = found
        else:
            self.index = None
        if isinstance(found, Answer):
            executors.BY_WORKERS.seconds += found.processor - self._processor
            self._processor = found.processor
        return index, found

    def stop(self) -> None:
        """Let an idle worker end, and do not wait for a busy one."""
        self.connection.close()
        if self.index is not None and self._process.pid is not None:
            self._process.kill()

    def end(self) -> int | None:
        """Wait for the end of the process and return its exit code, -N for signal N, None if unknown."""
        self.connection.close()
        if self._process.pid is None:
            return None
        self._process.join(_SECONDS_TO_EXIT)
        if self._process.exitcode is None:
            self._process.kill()
            self._process.join()
        return self._process.exitcode


def _hand_out(team: list[_Worker], waiting: deque[int], tasks: Sequence[Any]) -> None:
    for worker in team:
        if waiting and worker.index is None:
            index = waiting.popleft()
            worker.give(index, tasks[index])


def _last_words(name: str, exit_code: int | None) -> str:
    if exit_code is not None and exit_code < 0:
        how = f"signal {-exit_code}: too little memory for so many workers, or a crash in a library"
    else:
        how = f"exit code {exit_code}: scripts that use workers need `if __name__ == '__main__':`"
    return f"{name}: {MAX_DEATHS} worker processes died running it ({how}); use fewer workers"


def _work(connection: Connection, payload: bytes, environment: dict[str, str]) -> None:
    """Tell the steps of every task, and answer it with an `Answer`, until the other side is gone.

    environment: of the parent now. The fork server has kept that of its own start.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process; the parent decides
    os.environ.clear()
    os.environ.update(environment)
    loaded: tuple[Any, Callable[[Any, Any], Any]] | None = None
    while True:
        try:
            task = connection.recv()
        except (EOFError, OSError):
            return
        try:
            if loaded is None:
                # Unpickled here, not by spawning: that waits for each worker's arguments, so workers would
                # import torch one after the other. And an error in here becomes an answer.
                load, function = pickle.loads(payload)
                loaded = load(), function
            what, function = loaded
            with told(_Steps(connection)):
                answer = Answer(True, function(what, task), time.process_time())
        except Exception as error:
            answer = Answer(False, sendable(error), time.process_time())
        try:
            connection.send(answer)
        except OSError:
            return


class _Steps:
    """Sends steps, now and then."""

    def __init__(self, connection: Connection) -> None:
        self._connection, self._last = connection, -math.inf

    def __call__(self, step: Step) -> None:
        now = time.monotonic()
        if now - self._last >= _SECONDS_BETWEEN_STEPS:
            self._last = now
            with suppress(OSError):  # the answer will tell that the other side is gone
                self._connection.send(step)
