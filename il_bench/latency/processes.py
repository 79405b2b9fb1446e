"""Warm processes that time calls, perhaps by another environment's python, and the core they run on."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, Self

from il_bench.errors import IlBenchError
from il_bench.latency.worker import PROTOCOL

ANSWER_SECONDS = 900.0  # a machine may be too busy to answer; after that long the process counts as stuck
BLOCK_SECONDS = 0.001  # short: the machine is another one some milliseconds later
HERE = Path(sys.executable)  # this environment's python
CORE_TRIALS = 15
ADDITIONS = 4000  # in each trial of a core: a fraction of a millisecond

Message = dict[str, Any]


class Worker:
    """A process of `worker`, to which requests and answers go line by line over pipes; a context ends it.

    It is started at once; `greeting` says whether that worked.

    Args:
        python: the interpreter of an environment in which il_bench is installed.
        command: what to start in the place of our worker.
        threads: of the libraries under torch.
    """

    def __init__(
        self, python: Path = HERE, *, command: Sequence[str] | None = None, threads: int = 1
    ) -> None:
        self._python, self._rest = python, b""
        environment = os.environ | {"SDL_VIDEODRIVER": "dummy"}
        environment |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
        if python != HERE:  # what these name belongs to this environment
            for name in ("PYTHONPATH", "PYTHONHOME"):
                environment.pop(name, None)
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  (closed by `close`)
        # -P: a checkout in the current folder is not the environment's il_bench.
        started = command or (str(python), "-P", "-W", "ignore", "-m", "il_bench.latency.worker")
        try:
            self._process = subprocess.Popen(
                started,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                env=environment,
            )
            self.pid = self._process.pid
        except OSError as error:
            self._errors.close()
            raise IlBenchError(
                f"{python}: cannot be started ({error.strerror}); give the python of an environment, "
                "such as venv/bin/python"
            ) from None

    def send(self, request: Mapping[str, Any]) -> None:
        """Hand over a request."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):  # the process is gone: `receive` says why
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()

    def receive(self, seconds: float = ANSWER_SECONDS) -> Message:
        """The next answer.

        Raises:
            IlBenchError: the worker refuses, has ended, says something else, or takes longer than `seconds`.
        """
        line, answer = self._line(seconds), None
        with contextlib.suppress(ValueError):
            answer = json.loads(line)
        if not isinstance(answer, dict):
            raise IlBenchError(
                f"{self._python}: its process answers {line[:80]!r}, which is no answer of il_bench's"
            )
        if "error" in answer:
            raise IlBenchError(str(answer["error"]))
        return answer

    def greeting(self) -> Message:
        """Wait until it is there.

        Raises:
            IlBenchError: it ended, or its il_bench has another protocol than ours.
        """
        answer = self.receive()
        if answer.get("protocol") != PROTOCOL:
            raise IlBenchError(
                f"{self._python}: its il_bench {answer.get('il_bench', '(unknown)')} speaks protocol "
                f"{answer.get('protocol')!r} and ours {PROTOCOL}; install versions nearer to each other"
            )
        return answer

    def ask(self, request: Mapping[str, Any]) -> Message:
        """Send and receive."""
        self.send(request)
        return self.receive()

    def time_block(self, key: str, clock: str, *, stretch: float = 1.0) -> list[float]:
        """Seconds of each call of a block of what was loaded as `key`, each `stretch` times as long."""
        request = {"block": key, "clock": clock, "seconds": BLOCK_SECONDS, "stretch": stretch}
        return self.ask(request)["seconds"]  # type: ignore[no-any-return]

    def _line(self, seconds: float) -> bytes:
        assert self._process.stdout is not None
        handle, deadline = self._process.stdout.fileno(), time.monotonic() + seconds
        while b"\n" not in self._rest:
            if not wait([handle], max(0.0, deadline - time.monotonic())):
                raise IlBenchError(
                    f"{self._python}: its process has not answered for {seconds:.0f} s; is the machine out "
                    "of memory, or busy with much else?"
                )
            part = os.read(handle, 1 << 16)
            if not part:
                raise IlBenchError(f"{self._python}: {self._why_it_ended()}")
            self._rest += part
        line, _, self._rest = self._rest.partition(b"\n")
        return line

    def _why_it_ended(self) -> str:
        status = self._process.wait()
        self._errors.seek(0)
        said = self._errors.read().decode(errors="replace").strip()
        last = said.splitlines()[-1].strip() if said else "it said nothing"
        if "No module named" in last and "il_bench" in last:
            return (
                f"its environment has no il_bench that can be timed ({last}); install this version there, "
                f"for example {self._python} -m pip install il-bench"
            )
        if status < 0:
            name = signal.Signals(-status).name
            hint = "; was there memory enough? Try fewer processes" if name == "SIGKILL" else f" ({last})"
            return f"a process that was timing was ended by {name}{hint}"
        return f"a process that was timing ended with status {status}: {last}"

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._errors):
            if pipe is not None:
                with contextlib.suppress(OSError):  # what was not read any more
                    pipe.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def pin_together(workers: Sequence[Worker]) -> None:
    """Put the main threads of all of them on one core, the quietest, where the system lets us choose.

    For what is timed on one thread in processor time, in turns: whatever happens to the core happens to all.
    """
    if (core := quietest_core()) is None:
        return
    for worker in workers:
        with contextlib.suppress(ProcessLookupError):  # why it ended is said when it is asked
            os.sched_setaffinity(worker.pid, {core})


def quietest_core(clock: Callable[[], float] = time.perf_counter) -> int | None:
    """The core, of those allowed to us, that does a piece of work soonest; None where it cannot be chosen.

    Wall time, so that a core that somebody else works on counts as slow. Only Linux lets a process choose.
    """
    if not hasattr(os, "sched_setaffinity"):
        return None
    allowed = os.sched_getaffinity(0)
    taken: dict[int, list[float]] = {core: [] for core in sorted(allowed)}
    try:
        for _ in range(CORE_TRIALS):
            for core, times in taken.items():
                os.sched_setaffinity(0, {core})
                start, counted = clock(), 0
                for place in range(ADDITIONS):
                    counted += place & 3
                times.append(clock() - start)
    finally:
        os.sched_setaffinity(0, allowed)
    return min(taken, key=lambda core: sorted(taken[core])[CORE_TRIALS // 2])
