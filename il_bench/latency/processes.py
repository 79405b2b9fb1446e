"""Warm processes that time calls, perhaps with another environment's Python, and the core they run on."""

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

ANSWER_SECONDS = 900.0  # a busy machine may be slow to answer; after so long the process counts as stuck
BLOCK_SECONDS = 0.001  # short, because the machine changes within milliseconds
HERE = Path(sys.executable)  # this environment's Python
CORE_TRIALS = 15
ADDITIONS = 4000  # in each trial of a core: a fraction of a millisecond

Message = dict[str, Any]


class Worker:
    """A process that runs the module `worker`; requests and answers are lines on its pipes.

    It starts at once, `greeting` checks that it did, and leaving its context ends it.

    python: an interpreter for which il_bench is installed. threads: of the libraries under torch.
    command: what to start instead of our worker.
    """

    def __init__(
        self, python: Path = HERE, *, command: Sequence[str] | None = None, threads: int = 1
    ) -> None:
        self._python, self._rest = python, b""
        environment = os.environ | {"SDL_VIDEODRIVER": "dummy"}
        environment |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
        if python != HERE:  # these variables describe this environment
            for name in ("PYTHONPATH", "PYTHONHOME"):
                environment.pop(name, None)
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  (closed by `close`)
        # -P: import the environment's il_bench, not a checkout in the current folder.
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
        with contextlib.suppress(OSError):  # the process has ended: `receive` says why
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()

    def receive(self, seconds: float = ANSWER_SECONDS) -> Message:
        """Return the next answer; an IlBenchError if the worker refuses, has ended, or takes too long."""
        line, answer = self._line(seconds), None
        with contextlib.suppress(ValueError):
            answer = json.loads(line)
        if not isinstance(answer, dict):
            raise IlBenchError(
                f"{self._python}: its process answers {line[:80]!r}, which is not il_bench's protocol"
            )
        if "error" in answer:
            raise IlBenchError(str(answer["error"]))
        return answer

    @property
    def output(self) -> int:
        """The handle on which answers arrive, to wait for."""
        assert self._process.stdout is not None
        return self._process.stdout.fileno()

    def greeting(self, seconds: float = ANSWER_SECONDS) -> Message:
        """Wait until the process is ready; an IlBenchError if its il_bench speaks another protocol."""
        answer = self.receive(seconds)
        if answer.get("protocol") != PROTOCOL:
            raise IlBenchError(
                f"{self._python}: its il_bench {answer.get('il_bench', '(unknown)')} speaks protocol "
                f"{answer.get('protocol')!r}, ours speaks {PROTOCOL}; install versions that match"
            )
        return answer

    def ask(self, request: Mapping[str, Any]) -> Message:
        """Send and receive."""
        self.send(request)
        return self.receive()

    def time_block(self, key: str, clock: str, *, stretch: float = 1.0) -> list[float]:
        """Time a block of calls loaded as `key`, each made `stretch` times as long; return their seconds."""
        request = {"block": key, "clock": clock, "seconds": BLOCK_SECONDS, "stretch": stretch}
        return self.ask(request)["seconds"]  # type: ignore[no-any-return]

    def _line(self, seconds: float) -> bytes:
        handle, deadline = self.output, time.monotonic() + seconds
        while b"\n" not in self._rest:
            if not wait([handle], max(0.0, deadline - time.monotonic())):
                raise IlBenchError(
                    f"{self._python}: its process has not answered for {seconds:.0f} s; is the machine out "
                    "of memory, or overloaded?"
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
        last = said.splitlines()[-1].strip() if said else "it printed nothing"
        if "No module named" in last and "il_bench" in last:
            return (
                f"its environment lacks an il_bench that can be timed ({last}); install this version there, "
                f"for example {self._python} -m pip install il-bench"
            )
        if status < 0:
            name = signal.Signals(-status).name
            hint = "; was there enough memory? Try fewer processes" if name == "SIGKILL" else f" ({last})"
            return f"a timing process was ended by {name}{hint}"
        return f"a timing process ended with status {status}: {last}"

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._errors):
            if pipe is not None:
                with contextlib.suppress(OSError):  # some of it was never read
                    pipe.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def pin_together(workers: Sequence[Worker]) -> None:
    """Put the main threads of all workers on the quietest core, if the system lets us choose.

    For calls on one thread, timed in turns in processor time: whatever happens to the core happens to all.
    """
    if (core := quietest_core()) is None:
        return
    for worker in workers:
        with contextlib.suppress(ProcessLookupError):  # it has ended: its next answer says why
            os.sched_setaffinity(worker.pid, {core})


def quietest_core(clock: Callable[[], float] = time.perf_counter) -> int | None:
    """The core that does a piece of work fastest, of those we may use; None except on Linux.

    It goes by wall time, so that a core that somebody else uses counts as slow.
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
