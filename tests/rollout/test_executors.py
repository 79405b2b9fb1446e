"""Worker processes, with tasks that need no torch: a process is up in a fraction of a second."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from il_bench.cli import app
from il_bench.errors import IlBenchError
from il_bench.rollout import executors
from il_bench.rollout.executors import InlineExecutor, Job, choose
from il_bench.rollout.executors.processes import ProcessExecutor
from il_bench.rollout.progress import Step, tell, told

TASKS = list(range(6))


def load() -> int:
    return 100


def add(policy: int, task: int) -> int:
    return policy + task


def wait_until(condition: Any, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.02)


@pytest.mark.parametrize("workers", [1, 3, 8])
def test_every_task_is_run_once_whatever_the_number_of_workers(workers: int) -> None:
    expected = list(InlineExecutor().run(Job(load, add, TASKS)))
    assert expected == [100, 101, 102, 103, 104, 105]
    assert sorted(ProcessExecutor(workers).run(Job(load, add, TASKS))) == expected


@pytest.mark.parametrize(
    ("workers", "n_tasks", "name", "expected"),
    [
        (1, 6, None, InlineExecutor),
        (2, 1, None, InlineExecutor),
        (2, 6, None, ProcessExecutor),
        (2, 6, "inline", InlineExecutor),
        (1, 0, "processes", ProcessExecutor),
    ],
)
def test_the_executor_is_the_named_one_or_what_the_work_asks_for(
    workers: int, n_tasks: int, name: str | None, expected: type
) -> None:
    executor = choose(workers, n_tasks, name)
    assert type(executor) is expected
    assert sorted(executor.run(Job(load, add, TASKS[:n_tasks]))) == [100 + task for task in TASKS[:n_tasks]]


def test_an_executor_that_there_is_not_is_named() -> None:
    with pytest.raises(IlBenchError, match="executor 'dask' is unknown; use inline, processes, ray"):
        choose(1, 6, "dask")


def test_ray_is_refused_where_it_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executors, "find_spec", lambda name: None)
    with pytest.raises(IlBenchError, match=r"^--executor: Ray is not installed; pip install 'il-b"):
        executors.check("ray", None)
    executors.check("processes", None)
    monkeypatch.setattr(executors, "find_spec", lambda name: name)
    with pytest.raises(IlBenchError, match=r"^--device: cuda:1: Ray assigns GPUs itself; say cuda$"):
        executors.check("ray", None, "cuda:1")


@pytest.mark.parametrize(
    "command", [["evaluate", "bet"], ["stress", "bet"], ["demos", "make", "--episodes=1"]]
)
def test_commands_refuse_an_address_without_ray(command: list[str], tmp_path: Path) -> None:
    output = ["--output", str(tmp_path / "out")]
    result = CliRunner().invoke(app, [*command, *output, "--address", "10.0.0.1:6379"])
    assert result.exit_code == 2
    assert result.output == "il-bench: --address: only Ray has one; add --executor ray, or leave it out\n"


def noted(folder: Path, policy: int, task: int) -> tuple[int, int]:
    """Leave a file for every time a task is started; task 2 is killed the first time, while others work."""
    n_before = len(list(folder.glob(f"{task}-*")))
    (folder / f"{task}-{n_before}").touch()
    if task == 2 and n_before == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.2)
    return task, os.getpid()


def test_a_killed_worker_costs_its_own_task_and_nothing_else(tmp_path: Path) -> None:
    found = dict(ProcessExecutor(3).run(Job(load, partial(noted, tmp_path), TASKS)))
    assert sorted(found) == TASKS
    # The others were not disturbed: nothing else was started twice.
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("0-0", "1-0", "2-0", "2-1", "3-0", "4-0", "5-0")
    ]
    assert len(set(found.values())) <= 3
    assert not multiprocessing.active_children()


def dies(how: str, policy: int, task: int) -> int:
    if task != 1:
        return task
    if how == "exit":
        os._exit(7)
    os.kill(os.getpid(), signal.SIGKILL)
    return task


@pytest.mark.parametrize(("how", "said"), [("exit", "exit code 7"), ("kill", "signal 9: too little memory")])
def test_a_task_that_kills_every_worker_is_named_after_three(how: str, said: str) -> None:
    done = []
    with pytest.raises(IlBenchError, match=f"^1: 3 worker processes died running it .{said}"):
        done.extend(ProcessExecutor(2).run(Job(load, partial(dies, how), TASKS)))
    assert 0 in done
    assert not multiprocessing.active_children()


class OddError(Exception):
    """Cannot be unpickled: pickle calls it with one argument."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(f"{one} and {two}")


def fails(error: Exception, *_: Any) -> Any:
    raise error


def fails_oddly(*_: Any) -> Any:
    raise OddError("this", "that")


@pytest.mark.parametrize(
    ("load", "run", "kind", "said"),
    [
        (partial(fails, IlBenchError("runs/mine: no weights")), add, IlBenchError, "^runs/mine: no weights$"),
        (load, partial(fails, ZeroDivisionError("by zero")), ZeroDivisionError, "^by zero"),
        (load, fails_oddly, IlBenchError, "^OddError: this and that$"),
    ],
)
def test_what_a_worker_raises_is_raised_here(load: Any, run: Any, kind: type[Exception], said: str) -> None:
    with pytest.raises(kind, match=said) as caught:
        list(ProcessExecutor(2).run(Job(load, run, TASKS)))
    if kind is not IlBenchError:  # which is the user's to mend: one sentence
        assert "in fails" in "".join(caught.value.__notes__), "where in the worker it was raised"


def test_what_cannot_be_sent_to_a_worker_is_named() -> None:
    with pytest.raises(
        IlBenchError, match=r"workers=2: .*<lambda>.* cannot be sent .* top level of a module"
    ):
        list(ProcessExecutor(2).run(Job(lambda: 1, add, TASKS)))


def slow(policy: int, task: int) -> int:
    time.sleep(600 if task else 0)
    return task


def test_a_caller_that_stops_does_not_wait_for_busy_workers() -> None:
    results = ProcessExecutor(2).run(Job(load, slow, TASKS))
    assert next(results) == 0
    start = time.monotonic()
    results.close()
    assert time.monotonic() - start < 60
    assert not multiprocessing.active_children()


def stuck(policy: int, task: int) -> int:
    """Task 1 hangs after its fourth step, while the others go on telling theirs."""
    for done in range(1, 40):
        tell(Step(50 * task, 50 * task + 49, done, 300))
        time.sleep(0.1)
        if task == 1 and done == 4:
            time.sleep(600)
    return task


def test_a_task_that_hangs_is_named_with_its_last_step() -> None:
    done: list[int] = []
    with pytest.raises(
        IlBenchError, match=r"^1: not done after 2 s; .* step [34] of 300 of seeds 50-99; .*il-timeout"
    ):
        done.extend(ProcessExecutor(2, timeout=2.0).run(Job(load, stuck, [1, 2, 3])))
    assert not multiprocessing.active_children()
    assert sorted(ProcessExecutor(2, timeout=60.0).run(Job(load, add, TASKS))) == [
        100 + task for task in TASKS
    ]


def test_steps_of_workers_are_told_here() -> None:
    heard: list[Step] = []
    with told(heard.append):
        assert list(ProcessExecutor(1).run(Job(load, stuck, [2]))) == [2]
    assert [step.first_seed for step in heard] == [100] * len(heard)
    assert heard[0].done == 1
    assert 3 <= len(heard) <= 30, "now and then"


def pid_then_nap(folder: Path, policy: int, task: int) -> int:
    (folder / str(os.getpid())).touch()
    time.sleep(0.3)
    return task


def run_long(folder: str) -> None:
    list(ProcessExecutor(2).run(Job(load, partial(pid_then_nap, Path(folder)), range(10_000))))


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")
    return not status.exists() or ") Z " not in status.read_text()


def test_workers_end_when_the_process_that_waits_for_them_is_killed(tmp_path: Path) -> None:
    code = f"import test_executors as this; this.run_long({str(tmp_path)!r})"
    waiting = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parent)
    try:
        wait_until(lambda: len(list(tmp_path.iterdir())) == 2)
    finally:
        waiting.kill()
        waiting.wait()
    pids = [int(path.name) for path in tmp_path.iterdir()]
    wait_until(lambda: not any(alive(pid) for pid in pids))
