"""Warm processes that time one call each, and the two sides of a comparison made of them."""

import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from il_bench.errors import IlBenchError
from il_bench.latency.pinning import pin, quietest_core
from il_bench.latency.worker import PROTOCOL

#: What may keep a busy machine from answering, before we take the worker for stuck.
START_SECONDS, ANSWER_SECONDS = 900.0, 900.0
BLOCK_SECONDS = 0.001  # short: the machine is another one some milliseconds later
HERE = Path(sys.executable)  # this environment's python

Message = dict[str, Any]


@dataclass(frozen=True)
class Subject:
    """What a worker times.

    Attributes:
        policy: as `load_policy` takes it. `device`: ``cpu``, ``cuda:N``, ``mps``.
        what, batch, processed, mode: as `calls.policy_call` takes them.
        sampler: of a diffusion policy, such as ``DDIM-10``; None: the checkpoint's.
        threads: of torch, on the CPU.
    """

    policy: str
    device: str = "cpu"
    what: str = "new chunk"
    batch: int = 1
    processed: bool = True
    mode: str = "eager"
    sampler: str | None = None
    threads: int = 1

    @property
    def clock(self) -> str:
        """``processor`` time where one thread of the CPU does the work, else ``wall``.

        Processor time leaves out that other programs had the core, and a policy on one thread never waits. On
        several threads it adds up what runs at once, and of a GPU's work it sees the launches only: there
        only the wall, synchronised, is right, and the machine has to be quiet.
        """
        return "processor" if self.device == "cpu" and self.threads == 1 else "wall"


def clock_of(a: Subject, b: Subject) -> str:
    """The clock that is right for both."""
    return a.clock if a.clock == b.clock else "wall"


class Worker:
    """A process of `worker`, started by some python.

    Requests and answers go line by line over its pipes. A context manager; `close` ends the process.
    """

    def __init__(
        self,
        python: Path = HERE,
        *,
        command: Sequence[str] | None = None,
        threads: int = 1,
        called: str = "",
    ) -> None:
        """Start it; the first `receive` says whether that worked.

        Args:
            python: an environment's interpreter, in which il_bench is installed.
            command: what to start in the place of our worker.
            threads: of the libraries under torch.
            called: how errors call it: the option that named it.
        """
        self._python, self._called = python, called or str(python)
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  (closed by `close`)
        self._rest = b""
        # -P: a checkout in the current folder is not the environment's il_bench.
        started = command or (str(python), "-P", "-W", "ignore", "-m", "il_bench.latency.worker")
        try:
            self._process = subprocess.Popen(
                started,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                env=_environment(threads, is_other=python != HERE),
            )
        except OSError as error:
            self._errors.close()
            raise IlBenchError(
                f"{self._called}: cannot be started ({error.strerror}); give the python of an environment, "
                "such as venv/bin/python"
            ) from None

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def send(self, request: Mapping[str, Any]) -> None:
        """Hand over a request."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        except OSError:  # it is gone: `receive` says why
            return

    def receive(self, seconds: float = ANSWER_SECONDS) -> Message:
        """The next answer.

        Raises:
            IlBenchError: the worker refuses, has ended, says something else, or takes longer than `seconds`.
        """
        line = self._line(time.monotonic() + seconds, seconds)
        try:
            answer = json.loads(line)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise IlBenchError(
                f"{self._called}: its process answers {line[:80]!r}, which is no answer of il_bench's"
            )
        if "error" in answer:
            raise IlBenchError(str(answer["error"]))
        return answer

    def greeting(self) -> Message:
        """Wait until it is there.

        Raises:
            IlBenchError: it ended, or its il_bench speaks otherwise than ours.
        """
        answer = self.receive(START_SECONDS)
        if answer.get("protocol") != PROTOCOL:
            raise IlBenchError(
                f"{self._called}: its il_bench {answer.get('il_bench', '(unknown)')} speaks protocol "
                f"{answer.get('protocol')!r} and ours {PROTOCOL}; install versions nearer to each other"
            )
        return answer

    def ask(self, request: Mapping[str, Any]) -> Message:
        """Send and receive."""
        self.send(request)
        return self.receive()

    def _line(self, deadline: float, seconds: float) -> bytes:
        assert self._process.stdout is not None
        handle = self._process.stdout.fileno()
        with selectors.DefaultSelector() as selector:
            selector.register(handle, selectors.EVENT_READ)
            while b"\n" not in self._rest:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise IlBenchError(
                        f"{self._called}: its process has not answered for {seconds:.0f} s; is the machine "
                        "out of memory, or busy with much else?"
                    )
                part = os.read(handle, 1 << 16)
                if not part:
                    raise IlBenchError(self._why_it_ended())
                self._rest += part
        line, _, self._rest = self._rest.partition(b"\n")
        return line

    def _why_it_ended(self) -> str:
        status = self._process.wait()
        self._errors.seek(0)
        said = self._errors.read().decode(errors="replace").strip().splitlines()
        last = said[-1].strip() if said else "it said nothing"
        if "No module named" in last and "il_bench" in last:
            return (
                f"{self._called}: its environment has no il_bench that can be timed ({last}); install this "
                f"version there, for example {self._python} -m pip install il-bench"
            )
        if status < 0:
            name = signal.Signals(-status).name
            hint = "; was there memory enough? Try fewer processes" if name == "SIGKILL" else f" ({last})"
            return f"{self._called}: a process that was timing was ended by {name}{hint}"
        return f"{self._called}: a process that was timing ended with status {status}: {last}"

    def close(self) -> None:
        """End the process."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._errors):
            if pipe is not None:
                try:
                    pipe.close()
                except OSError:  # what was not read any more
                    continue

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _environment(threads: int, *, is_other: bool) -> dict[str, str]:
    found = dict(
        os.environ, SDL_VIDEODRIVER="dummy", OMP_NUM_THREADS=str(threads), MKL_NUM_THREADS=str(threads)
    )
    if is_other:  # what these name belongs to this environment
        for name in ("PYTHONPATH", "PYTHONHOME"):
            found.pop(name, None)
    return found


@dataclass(frozen=True, eq=False)
class Process:
    """One process of a side: a `compare.Timed`.

    `stretch`: each call is made to take so many times its time.
    """

    worker: Worker
    key: str
    clock: str
    seconds: float = BLOCK_SECONDS
    stretch: float = 1.0

    def block(self) -> Sequence[float]:
        """Seconds of each call of a block."""
        request = {"block": self.key, "clock": self.clock, "seconds": self.seconds, "stretch": self.stretch}
        found: list[float] = self.worker.ask(request)["seconds"]
        return found


def load(
    workers: Sequence[Worker],
    subjects: Sequence[Subject],
    key: str,
    on_ready: Callable[[], None] = lambda: None,
) -> list[Message]:
    """Let each worker load its subject, all at once, and call it `key`: what each says of itself.

    Raises:
        IlBenchError: a policy, device or environment is not what it should be.
    """
    for worker, subject in zip(workers, subjects, strict=True):
        worker.send({"load": asdict(subject), "key": key})
    found = []
    for worker in workers:
        found.append(worker.receive(START_SECONDS)["facts"])
        on_ready()
    return found


def pin_together(workers: Sequence[Worker]) -> None:
    """Put all of them on one core, the quietest, where the system lets us choose.

    For what is timed on one thread in processor time, in turns: whatever happens to the core happens to all.
    """
    core = quietest_core()
    if core is not None:
        pin((worker.pid for worker in workers), core)


def greet(workers: Sequence[Worker]) -> None:
    """Wait until all of them are there.

    Raises:
        IlBenchError: one cannot be started, or its environment has no il_bench.
    """
    for worker in workers:
        worker.greeting()
