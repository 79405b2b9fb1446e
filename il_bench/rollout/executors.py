"""Run independent tasks with one policy, in this process or in several.

Results come as tasks finish. A worker process that dies costs the task it had: another takes its place and
the task is run again, while the others go on undisturbed. (A `ProcessPoolExecutor` gives up all its workers
and all that they were doing when one dies, and cannot say whose task it was.)
"""

import pickle
import signal
import traceback
from collections import Counter, deque
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from typing import Any

from il_bench.errors import IlBenchError

#: A task that has killed so many workers is not tried again.
MAX_DEATHS = 3
_SECONDS_TO_EXIT = 5.0


def run_inline[P, T, R](
    load: Callable[[], P], run: Callable[[P, T], R], tasks: Sequence[T]
) -> Generator[R, None, None]:
    """Yield `run(load(), task)` for each task, in this process; loads once."""
    policy = load()
    for task in tasks:
        yield run(policy, task)


def run_in_processes[P, T, R](
    load: Callable[[], P],
    run: Callable[[P, T], R],
    tasks: Sequence[T],
    workers: int,
    *,
    name: Callable[[T], str],
) -> Generator[R, None, None]:
    """Yield `run(load(), task)` for each task, in whatever order they finish in spawned processes.

    load, run: picklable; each process loads once.
    workers: number of processes, at least 1.
    name: what an error calls a task.

    Raises:
        IlBenchError: `load` or `run` cannot be pickled; a task killed its worker MAX_DEATHS times.
        Exception: whatever `load` or `run` raised in a worker.
    """
    payload = _payload(load, run, workers)
    waiting, deaths = deque(range(len(tasks))), Counter[int]()
    team: list[_Worker] = []
    try:
        while waiting or any(worker.index is not None for worker in team):
            while waiting and len(team) < workers:
                team.append(_Worker(payload))
            _hand_out(team, waiting, tasks)
            for worker in _answering(team):
                index, answer = worker.answer()
                if answer is None:
                    team.remove(worker)
                    waiting.appendleft(index)
                    deaths[index] += 1
                    exit_code = worker.end()
                    if deaths[index] == MAX_DEATHS:
                        raise IlBenchError(_last_words(name(tasks[index]), exit_code))
                    continue
                _hand_out(team, waiting, tasks)  # before the caller sees the result: nobody stands idle
                succeeded, value = answer
                if not succeeded:
                    raise value
                yield value
    finally:
        for worker in team:
            worker.stop()
        for worker in team:
            worker.end()


def _payload(load: Any, run: Any, workers: int) -> bytes:
    try:
        return pickle.dumps((load, run))
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise IlBenchError(
            f"workers={workers}: {load!r} cannot be sent to a worker process ({error}); give a function or "
            "an object of a class that stands at the top level of a module, or use workers=1"
        ) from error


class _Worker:
    """A process that waits for tasks, and the index of the one it has, if any."""

    def __init__(self, payload: bytes) -> None:
        # Spawn: a forked child would inherit torch's threads and locks in an undefined state.
        context = get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.index: int | None = None
        # A daemon: it does not keep this process from ending.
        self._process = context.Process(target=_work, args=(theirs, payload), daemon=True)
        with suppress(BrokenPipeError):  # it died at once, and its connection says so
            self._process.start()
        theirs.close()

    def give(self, index: int, task: Any) -> None:
        """Send a task; whether the worker still lives shows when its answer is read."""
        self.index = index
        with suppress(OSError):
            self.connection.send(task)

    def answer(self) -> tuple[int, tuple[bool, Any] | None]:
        """Return the index of its task, and (True, result), (False, exception), or None if it died."""
        index, self.index = self.index, None
        assert index is not None
        try:
            return index, self.connection.recv()
        except (EOFError, OSError):
            return index, None

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


def _answering(team: list[_Worker]) -> list[_Worker]:
    """Wait until busy workers have answered or died, and return them."""
    ready = wait([worker.connection for worker in team if worker.index is not None])
    return [worker for worker in team if worker.connection in ready]


def _last_words(name: str, exit_code: int | None) -> str:
    if exit_code is not None and exit_code < 0:
        how = f"signal {-exit_code}: too little memory for so many workers, or a crash in a library"
    else:
        how = f"exit code {exit_code}: scripts that use workers need `if __name__ == '__main__':`"
    return f"{name}: {MAX_DEATHS} worker processes died over this block ({how}); use fewer workers"


def _work(connection: Connection, payload: bytes) -> None:
    """Answer every task with (True, result) or (False, exception) until the other side is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process; the one that waits decides
    loaded: tuple[Any, Callable[[Any, Any], Any]] | None = None
    while True:
        try:
            task = connection.recv()
        except (EOFError, OSError):
            return
        try:
            if loaded is None:
                # As bytes until now: a worker is started when it has read its arguments, and if that imported
                # torch, workers would start one after the other. And what fails in here is an answer.
                load, run = pickle.loads(payload)
                loaded = load(), run
            policy, run = loaded
            answer = (True, run(policy, task))
        except Exception as error:
            answer = (False, _sendable(error))
        try:
            connection.send(answer)
        except OSError:
            return


def _sendable(error: Exception) -> Exception:
    """Return the error with its traceback as a note, as something that certainly survives pickling."""
    note = "in a worker process:\n" + "".join(traceback.format_exception(error))
    try:
        sent: Exception = pickle.loads(pickle.dumps(error))
    except Exception:  # an error of somebody's own class, whose arguments are not those of its __init__
        sent = IlBenchError(f"{type(error).__name__}: {error}")
    if not isinstance(sent, IlBenchError):
        sent.add_note(note)
    return sent
