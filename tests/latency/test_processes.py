"""Processes that time: what they do with a request, and what is said when one is not what it should be."""

import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from il_bench.cli import app
from il_bench.errors import IlBenchError
from il_bench.latency import cli, contenders
from il_bench.latency.compare import Rule
from il_bench.latency.contenders import Contender, clock_of, compare_policies, load
from il_bench.latency.processes import HERE, Worker, pin, pin_together, quietest_core
from il_bench.latency.worker import PROTOCOL, block, once, serve

#: A worker without torch: its calls take as long as its policy's name says.
SCRIPT = f"""
import json, sys
def say(message): print(json.dumps(message), flush=True)
say({{"protocol": {PROTOCOL}, "il_bench": "0"}})
taking = 0.0
for line in sys.stdin:
    request = json.loads(line)
    if "load" in request:
        name = request["load"]["policy"]
        if name == "absent":
            say({{"error": "absent: no such policy. Give one of bc, act"}})
            continue
        taking = float(name)
        facts = {{"policy": name, "sha256": None, "sampler": None, "machine": {{}}, "versions": {{}}}}
        say({{"loaded": request["key"], "facts": facts}})
    else:
        say({{"seconds": [taking, 1.01 * taking]}})
"""


def script(text: str, *options: str) -> Sequence[str]:
    return (sys.executable, *options, "-c", text)


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Worker]]:
    """What `contenders` starts are fakes; all of them."""
    started: list[Worker] = []

    def start(python: Path, **options: Any) -> Worker:
        started.append(Worker(python, command=script(SCRIPT), **options))
        return started[-1]

    monkeypatch.setattr(contenders, "Worker", start)
    yield started
    for worker in started:
        worker.close()


class Counted:
    """A subject whose calls take the next of `times`, on a clock of its own."""

    facts: dict[str, Any] = {"policy": "counted"}  # noqa: RUF012

    def __init__(self, *times: float, steps: int = 1) -> None:
        self.steps, self.now = steps, 0.0
        self._times = iter(times)
        self.prepared = 0

    def prepare(self) -> None:
        self.prepared += 1
        self.now += 100.0  # must not be counted

    def call(self) -> None:
        self.now += next(self._times)


def timed(subject: Counted, seconds: float) -> list[float]:
    request = {"clock": "wall", "seconds": seconds}
    return block(subject, request, {"wall": lambda: subject.now})


def test_a_block_leaves_out_its_first_call_and_all_preparation() -> None:
    subject = Counted(9.0, 1.0, 2.0, 3.0, 4.0)
    assert timed(subject, 10.0) == pytest.approx([1.0, 2.0, 3.0, 4.0])
    assert subject.prepared == 5


def test_a_call_that_fills_the_block_is_not_made_twice() -> None:
    subject = Counted(9.0)
    assert timed(subject, 5.0) == pytest.approx([9.0])


def test_calls_of_several_steps_are_divided_by_them() -> None:
    assert timed(Counted(1.0, 8.0, 8.0, steps=8), 16.0) == pytest.approx([1.0, 1.0])


def test_a_stretched_call_takes_so_many_times_its_time() -> None:
    class Clock:
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


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="only Linux lets a process choose its core")
def test_processes_that_are_compared_share_the_quietest_core() -> None:
    allowed = os.sched_getaffinity(0)
    with Worker(command=script(SCRIPT)) as a, Worker(command=script(SCRIPT)) as b:
        pin_together([a, b])
        assert os.sched_getaffinity(a.pid) == os.sched_getaffinity(b.pid)
        assert len(os.sched_getaffinity(a.pid)) == 1
    assert os.sched_getaffinity(0) == allowed


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="only Linux lets a process choose its core")
def test_a_process_that_has_ended_is_not_put_on_a_core() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    pin([ended.pid, os.getpid()], min(allowed := os.sched_getaffinity(0)))
    try:
        assert os.sched_getaffinity(0) == {min(allowed)}
    finally:
        os.sched_setaffinity(0, allowed)


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


def test_a_worker_loads_and_times() -> None:
    with Worker(command=script(SCRIPT)) as worker:
        worker.greeting()
        assert load([worker], [Contender("0.25")], "k")[0]["policy"] == "0.25"
        assert worker.time_block("k", "processor") == pytest.approx([0.25, 0.2525])


def test_our_worker_greets_and_ends_with_its_input() -> None:
    """The real one, up to what needs no torch."""
    command = [sys.executable, "-P", "-m", "il_bench.latency.worker"]
    done = subprocess.run(command, input="", capture_output=True, text=True, timeout=60, check=True)
    assert json.loads(done.stdout)["protocol"] == PROTOCOL


def test_an_environment_without_il_bench_is_named_with_the_way_out() -> None:
    command = (sys.executable, "-I", "-S", "-m", "il_bench.latency.worker")
    with (
        Worker(Path("/env/python"), command=command) as worker,
        pytest.raises(IlBenchError, match=r"^/env/python: .*no il_bench.*/env/python -m pip install"),
    ):
        worker.greeting()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import sys; sys.exit('out of discs')", "ended with status 1: out of discs"),
        ("import os; os.kill(os.getpid(), 9)", "ended by SIGKILL; was there memory enough"),
        ("import os; os.kill(os.getpid(), 11)", "ended by SIGSEGV"),
        ("print('hello')", "answers b'hello', which is no answer"),
        ('print(\'{"protocol": 99, "il_bench": "9.9"}\')', "il_bench 9.9 speaks protocol 99 and ours"),
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
        with pytest.raises(IlBenchError, match="CUDA out of memory"):
            worker.ask({"block": "k"})
        with pytest.raises(IlBenchError, match="CUDA out of memory"):  # also when nobody reads any more
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


def test_processor_time_is_for_one_thread_of_the_cpu_only() -> None:
    cpu, threads, gpu = Contender("bc"), Contender("bc", threads=2), Contender("bc", device="cuda")
    assert clock_of(cpu, cpu) == "processor"
    assert {clock_of(cpu, gpu), clock_of(threads, threads), clock_of(gpu, gpu)} == {"wall"}
    with pytest.raises(IlBenchError, match=r"processor time does not see what a GPU does; use wall"):
        compare_policies(cpu, gpu, Rule(), seconds=1.0, clock="processor")


def test_processes_end_when_one_side_cannot_be_loaded(fakes: list[Worker]) -> None:
    with pytest.raises(IlBenchError, match=r"absent: no such policy\. Give one of"):
        compare_policies(Contender("1.0"), Contender("absent"), Rule(), processes=2, seconds=1.0)
    assert len(fakes) == 4
    assert all(worker._process.poll() is not None for worker in fakes)


@pytest.mark.parametrize(
    ("b", "verdict", "status"), [("1.2", "slower", 1), ("0.8", "faster", 0), ("1.01", "equivalent", 0)]
)
@pytest.mark.usefixtures("fakes")
def test_the_command_answers_by_word_file_and_exit_status(
    b: str, verdict: str, status: int, tmp_path: Path
) -> None:
    output = tmp_path / "deep" / "result.json"
    arguments = ["compare", "1.0", b, "--processes", "3", "--output", str(output)]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == status, done.output
    assert f"{verdict}: B's time is {float(b):.3f}" in done.output
    found = json.loads(output.read_text())
    assert found["verdict"] == verdict
    assert found["low"] < float(b) < found["high"]
    assert found["ratio"] == pytest.approx(float(b))
    assert (found["a"]["policy"], found["b"]["policy"], found["clock"]) == ("1.0", b, "processor")


def test_the_command_hands_each_side_what_it_asked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    heard: list[Contender] = []

    def listen(a: Contender, b: Contender, *rest: object, **options: object) -> None:
        heard.extend((a, b))
        raise IlBenchError("heard")

    monkeypatch.setattr(contenders, "compare_policies", listen)
    other = tmp_path / "env" / "bin" / "python"
    other.parent.mkdir(parents=True)
    other.touch()
    options = ["--python-b", str(tmp_path / "env"), "--sampler", "DDIM-10", "--sampler-b", "DDIM-8", "--bare"]
    done = CliRunner().invoke(app, ["compare", "diffusion", *options, "--device-b", "cuda", "--batch", "64"])
    assert done.exit_code == 2
    a, b = heard
    assert (a.python, b.python) == (HERE, other)
    assert (a.sampler, b.sampler) == ("DDIM-10", "DDIM-8")
    assert (a.device, b.device) == ("cpu", "cuda")
    assert a.policy == b.policy == "diffusion"
    assert {a.batch, b.batch} == {64}
    assert not a.processed and not b.processed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["bc", "--python-b", "/nowhere/python"], "--python-b: no such python: /nowhere/python"),
        (["bc", "--margin", "0"], "margin: 0 is none"),
        (["bc", "--device-b", "cuda", "--clock", "processor"], "use wall"),
    ],
)
def test_the_command_refuses_in_one_line(arguments: list[str], message: str) -> None:
    done = CliRunner().invoke(app, ["compare", *arguments])
    assert done.exit_code == 2
    assert message in done.output
    assert len(done.output.strip().splitlines()) == 1


def test_every_verdict_has_its_exit_status() -> None:
    assert cli.STATUS == {"slower": 1, "inconclusive": 6}


@pytest.mark.slow
def test_a_real_policy_beside_itself_with_another_batch(checkpoint: Path) -> None:
    """From the command to the processes and back: 64 observations take longer than one."""
    options: Any = {"processes": 2, "seconds": 30.0}
    one, many = Contender(str(checkpoint)), Contender(str(checkpoint), batch=64)
    found = compare_policies(one, many, Rule(margin=0.3), **options)
    assert found.comparison.ratio > 1.2
    assert found.facts[0]["machine"]["device"] == "cpu"
    assert found.facts[0]["versions"] == found.facts[1]["versions"]
