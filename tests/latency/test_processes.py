"""Processes that time: where they run, and what is said when one is not what it should be."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from il_bench.errors import IlBenchError
from il_bench.latency.processes import Worker, pin_together, quietest_core

from .fakes import SCRIPT, script


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="only Linux lets a process choose its core")
def test_processes_that_are_compared_share_the_quietest_core() -> None:
    """One that has ended is left out."""
    allowed = os.sched_getaffinity(0)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    with Worker(command=script(SCRIPT)) as a, Worker(command=script(SCRIPT)) as b:
        pin_together([ended, a, b])  # type: ignore[list-item]
        assert os.sched_getaffinity(a.pid) == os.sched_getaffinity(b.pid)
        assert len(os.sched_getaffinity(a.pid)) == 1
    assert os.sched_getaffinity(0) == allowed


def test_the_quietest_core_is_the_one_that_is_soonest_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """The third is the fastest of three, though now and then something interrupts it."""
    here, reads = {0}, iter(range(10_000))
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1, 2}, raising=False)
    now = 0.0

    def move(process: int, cores: set[int]) -> None:
        here.clear()
        here.update(cores)

    def clock() -> float:
        nonlocal now
        core = min(here)
        now += {0: 3.0, 1: 2.0, 2: 10.0 if next(reads) % 7 == 0 else 1.0}[core]
        return now

    monkeypatch.setattr(os, "sched_setaffinity", move, raising=False)
    assert quietest_core(clock) == 2
    assert here == {0, 1, 2}  # as before


def test_an_environment_without_il_bench_is_named_with_the_way_out() -> None:
    command = (sys.executable, "-I", "-S", "-m", "il_bench.latency.worker")
    with (
        Worker(Path("/env/python"), command=command) as worker,
        pytest.raises(IlBenchError, match=r"^/env/python: .*lacks an il_bench.*/env/python -m pip install"),
    ):
        worker.greeting()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import sys; sys.exit('out of discs')", "ended with status 1: out of discs"),
        ("import os; os.kill(os.getpid(), 9)", "ended by SIGKILL; was there enough memory"),
        ("import os; os.kill(os.getpid(), 11)", "ended by SIGSEGV"),
        ("print('hello')", "answers b'hello', which is not il_bench's"),
        ('print(\'{"protocol": 99, "il_bench": "9.9"}\')', "il_bench 9.9 speaks protocol 99, ours speaks"),
    ],
)
def test_a_worker_that_goes_wrong_says_how(text: str, message: str) -> None:
    with Worker(command=script(text)) as worker, pytest.raises(IlBenchError) as raised:
        worker.greeting()
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_worker_that_dies_later_says_so_too() -> None:
    text = "import sys; print('{\"protocol\": 1}', flush=True); input(); sys.exit('CUDA out of memory')"
    with Worker(command=script(text)) as worker:
        worker.greeting()
        for _ in range(2):  # also when nobody reads any more
            with pytest.raises(IlBenchError, match="CUDA out of memory"):
                worker.ask({"block": "k"})


def test_a_worker_that_hangs_is_not_waited_for_for_ever() -> None:
    with Worker(command=script("import time; time.sleep(60)")) as worker:
        start = time.monotonic()
        with pytest.raises(IlBenchError, match="has not answered for 0 s"):
            worker.receive(0.2)
        assert time.monotonic() - start < 10.0


def test_a_python_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(IlBenchError, match=r"cannot be started .*give the python of an environment"):
        Worker(tmp_path / "python")


def test_another_environment_does_not_inherit_where_ours_imports_from(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PYTHONPATH", "/ours")
    text = "import json, os; print(json.dumps({'protocol': 1, 'path': os.environ.get('PYTHONPATH')}))"
    with Worker(command=script(text)) as own, Worker(tmp_path / "python", command=script(text)) as other:
        assert own.greeting()["path"] == "/ours"
        assert other.greeting()["path"] is None
