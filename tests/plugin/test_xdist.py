"""`--benchmark -n N`: rollouts side by side on workers, what is timed alone on the controller after them."""

import json
import re

import pytest

from tests.conftest import Run

TESTS = """
    import os
    import time

    import pytest

    ROW = {
        "what": "sleeping", "batch": 1, "device": "cpu", "per_second": 1.0, "ratio_to_reference": None,
        "reference": None,
    }

    def note(name):
        with open("order.txt", "a") as file:
            file.write(f"{name} {os.environ.get('PYTEST_XDIST_WORKER', 'controller').rstrip('01')}\\n")

    @pytest.mark.success
    @pytest.mark.parametrize("wanted", [True, True, ROLLOUT])
    def test_rollout(wanted, gate):
        time.sleep(0.2)
        note("rollout")
        assert wanted

    @pytest.mark.throughput
    def test_timed(benchmark, il_bench_record):
        note("timed")
        benchmark.pedantic(lambda: time.sleep(0.001), rounds=6)
        il_bench_record({"section": "throughput", "row": ROW, "fingerprint": {}})

    @pytest.mark.latency
    def test_also_timed(gate):
        note("timed")
        assert TIMED

    @pytest.mark.latency
    def test_of_somebody_elses_latency():
        note("theirs")
"""


@pytest.fixture
def run(pytester: pytest.Pytester, light: Run) -> Run:
    """Run the tests on workers, in a process that knows no plugins but these."""
    (pytester.path / "policy").mkdir()

    def start(
        *arguments: str, workers: str = "1", rollout: bool = True, timed: bool = True
    ) -> pytest.RunResult:
        path = pytester.makepyfile(TESTS.replace("ROLLOUT", str(rollout)).replace("TIMED", str(timed)))
        return light(
            *("-p", "benchmark", "-p", "xdist", "-p", "xdist.looponfail", "-n", workers),
            *("--benchmark", "--il-policy", "policy", "--il-baselines", "none.json", "--il-update-baselines"),
            *arguments,
            path.name,
        )

    return start


def order(pytester: pytest.Pytester) -> list[str]:
    return (pytester.path / "order.txt").read_text().splitlines()


def test_what_is_timed_runs_alone_afterwards_and_is_reported(pytester: pytest.Pytester, run: Run) -> None:
    result = run("--benchmark-json", "times.json", workers="2")
    assert result.ret == 0
    result.assert_outcomes(passed=6)
    assert sorted(order(pytester)[:4]) == ["rollout gw"] * 3 + ["theirs gw"]
    assert order(pytester)[4:] == ["timed controller"] * 2
    result.stdout.fnmatch_lines(
        ["*il_bench: timed tests run alone, after the workers*", "*benchmark: 1 tests*"]
    )
    result.stdout.fnmatch_lines(["sleeping *"])
    assert max(map(int, re.findall(r"\[ *(\d+)%\]", result.stdout.str()))) == 100
    report = json.loads((pytester.path / "il-bench-report" / "report.json").read_text())
    assert [row["what"] for row in report["throughput"]] == ["sleeping"]
    (timed,) = json.loads((pytester.path / "times.json").read_text())["benchmarks"]
    assert (timed["name"], timed["stats"]["rounds"]) == ("test_timed", 6)
    assert "automatically disabled" not in result.stdout.str() + result.stderr.str()


def test_failures_on_either_side_fail_the_run_and_hide_nothing(pytester: pytest.Pytester, run: Run) -> None:
    result = run("-k", "not test_timed", rollout=False, timed=False)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.assert_outcomes(passed=3, failed=2, deselected=1)
    assert order(pytester)[-1] == "timed controller"
    result.stdout.fnmatch_lines(["FAILED *test_rollout*", "FAILED *test_also_timed*"])


@pytest.mark.slow
def test_only_timed_tests_are_no_empty_run(pytester: pytest.Pytester, run: Run) -> None:
    result = run("-m", "throughput", "--benchmark-disable")
    assert result.ret == 0
    assert order(pytester) == ["timed controller"]
    assert "benchmark: 1 tests" not in result.stdout.str(), "--benchmark-disable is the user's"


def test_without_timed_tests_the_controller_collects_nothing(run: Run) -> None:
    result = run("-m", "success")
    result.assert_outcomes(passed=3)
    assert "timed alone" not in result.stdout.str()


@pytest.mark.slow
def test_errors_during_collection_say_that_nothing_was_timed(pytester: pytest.Pytester, run: Run) -> None:
    pytester.makepyfile(test_broken="import no_such_module")
    result = run("test_broken.py")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["*timed tests did not run: errors during collection*"])
    assert "timed controller" not in order(pytester)


@pytest.mark.slow
def test_stopping_at_the_first_failure_stops_before_timing(pytester: pytest.Pytester, run: Run) -> None:
    result = run("-x", rollout=False)
    assert result.ret == pytest.ExitCode.INTERRUPTED
    assert "timed controller" not in order(pytester)
