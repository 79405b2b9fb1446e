"""Two policies beside each other: from the command to the processes, and back to its answer."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from il_bench.cli import app
from il_bench.errors import IlBenchError
from il_bench.latency import cli, contenders
from il_bench.latency.compare import Rule
from il_bench.latency.contenders import Contender, compare_policies, load
from il_bench.latency.processes import HERE, Worker

from .fakes import SCRIPT, script


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


def test_a_worker_loads_and_times() -> None:
    with Worker(command=script(SCRIPT)) as worker:
        worker.greeting()
        assert load([worker], [Contender("0.25")], "k")[0]["policy"] == "0.25"
        assert worker.time_block("k", "processor") == pytest.approx([0.25, 0.2525])


@pytest.mark.usefixtures("fakes")
def test_processor_time_is_for_one_thread_of_the_cpu_only() -> None:
    cpu, threads, gpu = Contender("1.0"), Contender("1.0", threads=2), Contender("1.0", device="cuda")
    for a, b, clock in ((cpu, cpu, "processor"), (cpu, gpu, "wall"), (threads, threads, "wall")):
        assert compare_policies(a, b, Rule(), processes=2, seconds=1.0).clock == clock
    assert gpu.clock == "wall"
    with pytest.raises(IlBenchError, match=r"processor time does not see a GPU's work; use wall"):
        compare_policies(cpu, gpu, Rule(), seconds=1.0, clock="processor")


def test_processes_end_when_one_side_cannot_be_loaded(fakes: list[Worker]) -> None:
    with pytest.raises(IlBenchError, match=r"absent: no such policy\. Give one of"):
        compare_policies(Contender("1.0"), Contender("absent"), Rule(), processes=2, seconds=1.0)
    assert len(fakes) == 4
    assert all(worker._process.poll() is not None for worker in fakes)


def test_the_budget_bounds_starting_too(fakes: list[Worker]) -> None:
    start = time.monotonic()
    with pytest.raises(
        IlBenchError, match=r"--budget: after . s of 2, 2 of 4 processes have started, too few"
    ):
        compare_policies(Contender("1.0"), Contender("stuck"), Rule(), processes=2, seconds=2.0)
    assert time.monotonic() - start < 60
    assert all(worker._process.poll() is not None for worker in fakes)


def test_a_process_that_does_not_start_is_left_out(
    fakes: list[Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = Contender.request.fget
    asked = iter(["1.0", "stuck", "1.0", "1.0", *["1.2"] * 4])
    monkeypatch.setattr(
        Contender,
        "request",
        property(lambda self: {**plain(self), "policy": next(asked)}),  # type: ignore[misc]
    )
    found = compare_policies(Contender("1.0"), Contender("1.2"), Rule(), processes=4, seconds=8.0)
    assert (found.comparison.processes, found.comparison.verdict) == ((3, 3), "slower")
    assert found.comparison.ratio == pytest.approx(1.2)


@pytest.mark.usefixtures("fakes")
def test_a_log_tells_at_once_what_happens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "1.0").mkdir()
    (tmp_path / "1.0" / "config.json").touch()
    done = CliRunner().invoke(app, ["compare", "1.0", "--processes", "2"])
    assert done.stderr.startswith("0 of 4 processes have started, 0 s\n")
    assert done.stdout.count("equivalent") == 1, "and nothing of it is in the answer"


@pytest.mark.parametrize(
    ("b", "verdict", "status"), [("1.2", "slower", 1), ("0.8", "faster", 0), ("1.01", "equivalent", 0)]
)
@pytest.mark.usefixtures("fakes")
def test_the_command_answers_by_word_file_and_exit_status(
    b: str, verdict: str, status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in {"1.0", b}:  # the fakes' policies, by their speed
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").touch()
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
    for each in (a, b):
        assert (each.policy, each.batch, each.processed) == ("diffusion", 64, False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["bc", "--python-b", "/nowhere/python"], "--python-b: no such Python interpreter: /nowhere/python"),
        (["bc", "--margin", "0"], "margin: 0 is out of range"),
        (["bc", "--device-b", "cdua"], "--device-b: unknown device 'cdua'; use cpu"),
        (["diffusion", "--sampler", "DDIM10"], "sampler: 'DDIM10' is unknown; use DDPM-N"),
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
    one, many = Contender(str(checkpoint)), Contender(str(checkpoint), batch=64)
    found = compare_policies(one, many, Rule(margin=0.3), processes=2, seconds=30.0)
    assert found.comparison.ratio > 1.2
    assert found.facts[0]["machine"]["device"] == "cpu"
    assert found.facts[0]["versions"] == found.facts[1]["versions"]
