"""What a worker does with a request."""

import io
import json
import os
import subprocess
import sys
from types import ModuleType
from typing import Any

import pytest

from il_bench.errors import IlBenchError
from il_bench.latency import worker
from il_bench.latency.worker import PROTOCOL, once, serve


class Counted:
    """A subject whose calls take the next of `times`, on a clock of its own."""

    facts: dict[str, Any] = {"policy": "counted"}  # noqa: RUF012

    def __init__(self, *times: float, steps: int = 1) -> None:
        self.steps, self.now, self._times = steps, 0.0, iter(times)
        self.prepared = self.called = 0

    def prepare(self) -> None:
        self.prepared += 1
        self.now += 100.0  # must not be counted

    def call(self) -> None:
        self.called += 1
        self.now += next(self._times)


@pytest.mark.parametrize(
    ("subject", "seconds", "block"),
    [
        (Counted(9.0, 1.0, 2.0, 3.0, 4.0), 10.0, [1.0, 2.0, 3.0, 4.0]),
        (Counted(9.0), 5.0, [9.0]),
        (Counted(1.0, 8.0, 8.0, steps=8), 16.0, [1.0, 1.0]),
    ],
    ids=["the first call is left out", "unless it fills the block", "several steps share a call's time"],
)
def test_a_block_is_calls_until_they_fill_it(subject: Counted, seconds: float, block: list[float]) -> None:
    request = {"clock": "wall", "seconds": seconds}
    assert worker.block(subject, request, {"wall": lambda: subject.now}) == pytest.approx(block)
    assert subject.prepared == subject.called


def test_a_stretched_call_takes_so_many_times_its_time() -> None:
    class Clock:
        """Each look at it takes a millisecond, and each call a second."""

        now = 0.0

        def __call__(self) -> float:
            self.now += 0.001
            return self.now

        def prepare(self) -> None:
            self.now += 100.0

        def call(self) -> None:
            self.now += 1.0

    clock: Any = Clock()
    assert once(clock, clock) == pytest.approx(1.0, abs=0.002)
    assert once(clock, clock, 1.1) == pytest.approx(1.1, abs=0.004)


def test_requests_are_answered_line_by_line_and_errors_are_sentences() -> None:
    def refuse(subject: dict[str, Any]) -> Counted:
        if subject["policy"] != "bc":
            raise IlBenchError(f"{subject['policy']}: no such policy.")
        return Counted(*[1.0] * 10)

    requests = [{"load": {"policy": name}, "key": name} for name in ("nope", "bc")]
    answers = io.StringIO()
    serve(io.StringIO("".join(json.dumps(each) + "\n" for each in requests)), answers, refuse)
    hello, refused, loaded = (json.loads(line) for line in answers.getvalue().splitlines())
    assert hello["protocol"] == PROTOCOL
    assert refused == {"error": "nope: no such policy."}
    assert loaded == {"loaded": "bc", "facts": {"policy": "counted"}}


def test_our_worker_greets_and_ends_with_its_input() -> None:
    """The real one, up to what needs no torch."""
    command = [sys.executable, "-P", "-m", "il_bench.latency.worker"]
    done = subprocess.run(command, input="", capture_output=True, text=True, timeout=60, check=True)
    assert json.loads(done.stdout)["protocol"] == PROTOCOL


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a spawned process would not be this one's copy")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_what_happens_in_a_fork_is_said_here(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(spec: str, device: str) -> None:
        raise IlBenchError(f"{spec}: no such policy")

    monkeypatch.setitem(sys.modules, "il_bench.latency.calls", ModuleType("calls"))  # takes seconds
    made = {"bc": lambda *_: {"pid": os.getpid()}, "absent": refuse, "killer": lambda *_: os._exit(3)}
    monkeypatch.setattr(worker, "first_calls", lambda spec, device: made[spec](spec, device))
    assert worker.first_calls_in_a_fork("bc", "cpu")["pid"] != os.getpid()
    for said in ("absent: no such policy", "killer: the process that called it ended with 3"):
        with pytest.raises(IlBenchError, match=said):
            worker.first_calls_in_a_fork(said.partition(":")[0], "cpu")
