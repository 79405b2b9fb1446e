"""What the controller writes at the end, and what it leaves of other plugins' output."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from il_bench.plugin.controller import Reporter, hide_benchmarks
from il_bench.report import shards
from tests.report.test_shards import PARTS

OURS = "il_bench/suite/test_throughput.py::test_window"


def quiet(
    *given: str, addopts: tuple[str, ...] = (), verbosity: int = 0, timed: tuple[str, ...] = (OURS,)
) -> bool:
    """Whether pytest-benchmark prints no table, after a run with these arguments that timed these tests."""
    benchmarks = SimpleNamespace(quiet=False, benchmarks=[SimpleNamespace(fullname=name) for name in timed])
    config: Any = SimpleNamespace(
        pluginmanager=SimpleNamespace(getplugin={"pytest-benchmark": benchmarks}.get),
        getini={"addopts": addopts}.get,
        get_verbosity=lambda: verbosity,
        invocation_params=SimpleNamespace(args=given),
    )
    hide_benchmarks(config)
    return benchmarks.quiet


def test_times_of_our_suite_are_not_printed_twice() -> None:
    assert quiet("--benchmark") and quiet("--benchmark", "--benchmark-json=out.json", "--benchmark-autosave")


@pytest.mark.parametrize(
    "asked",
    [
        {"verbosity": 1},
        {"timed": (OURS, "tests/test_mine.py::test_fast")},
        {"addopts": ("--benchmark-sort=name",)},
        *(
            {"given": given}
            for given in ("--benchmark-columns=min", "--benchmark-compare=1", "--benchmark-verbose")
        ),
    ],
    ids=str,
)
def test_the_table_is_printed_when_it_is_asked_for_or_holds_other_tests(asked: dict[str, Any]) -> None:
    given = (asked.pop("given"),) if "given" in asked else ()
    assert not quiet("--benchmark", *given, **asked)


@pytest.mark.parametrize(
    ("status", "is_written"),
    [
        (pytest.ExitCode.OK, True),
        (pytest.ExitCode.TESTS_FAILED, True),  # a broken policy costs the others nothing
        (pytest.ExitCode.INTERRUPTED, False),  # policies that had no turn are missing
    ],
)
def test_only_a_shard_that_ran_to_its_end_can_be_merged(
    tmp_path: Path, status: pytest.ExitCode, is_written: bool
) -> None:
    config: Any = SimpleNamespace(add_cleanup=lambda _: None)
    settings: Any = SimpleNamespace(shard=(1, 2), report=tmp_path)
    report: Any = SimpleNamespace(
        nodeid="tests/test_mine.py::test_it",
        il_bench_records=[{"section": shards.SECTION, "part": PARTS[0].model_dump(mode="json")}],
    )
    session: Any = SimpleNamespace(exitstatus=status)
    reporter = Reporter(config, settings)
    reporter.pytest_runtest_logreport(report)
    reporter.pytest_sessionfinish(session)
    assert (tmp_path / shards.FILE).exists() is is_written
    assert session.exitstatus == status
