"""The process that the user started: with or without pytest-xdist, it writes the report and times tests.

Only runs with --benchmark load this module.
"""

import sys
from collections import defaultdict
from collections.abc import Generator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from il_bench.errors import IlBenchError
from il_bench.plugin import fixtures
from il_bench.plugin.settings import STAGES, SUITE, Settings

LEFT = "il_bench_left_to_the_controller"  # in a worker's workeroutput: how many timed tests it left


class Reporter:
    """Collects the records of all tests, wherever they run, and writes the report at the end."""

    def __init__(self, config: pytest.Config, settings: Settings) -> None:
        self._config, self._settings = config, settings
        self._records: list[dict[str, Any]] = []
        self._seconds: dict[str, defaultdict[str, float]] = {}  # by stage
        self._success_left: set[str] = set()
        self._others_left = False
        self._summary = ""
        self._folder = ExitStack()
        config.add_cleanup(self._folder.close)

    def pytest_sessionstart(self, session: pytest.Session) -> None:
        """Take the report folder for this run, and say which policies cannot be resumed."""
        if not session.config.option.collectonly:
            from il_bench.files import reserved

            try:
                self._folder.enter_context(reserved(self._settings.report, "use another with --il-report"))
            except IlBenchError as error:
                raise pytest.UsageError(str(error)) from None
        reporter = session.config.pluginmanager.getplugin("terminalreporter")
        if reporter is not None and (names := ", ".join(self._settings.starts_over)):
            reporter.write_line(
                f"--il-resume: rolled out again, since code has no hash: {names}; give a version with"
                " registry.policy(.., version=)"
            )

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take the records and the seconds of a test that finished in this process or another."""
        self._records += getattr(report, "il_bench_records", [])
        module = Path(report.nodeid.partition("::")[0])
        stage = module.stem.removeprefix("test_")
        if module.parent.name != SUITE.name or stage not in STAGES:
            return
        spent = self._seconds.setdefault(stage, defaultdict(float))
        spent["tests"] += report.when == "call"
        spent["wall"] += report.duration
        spent["wall, preparing"] += report.duration if report.when == "setup" else 0.0
        spent["processor, with workers"] += getattr(report, "il_bench_processor", 0.0)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Note which tests make the table of success, and whether others follow."""
        success = [item.nodeid for item in session.items if item.path == SUITE / "test_success.py"]
        self._success_left, self._others_left = set(success), len(session.items) > len(success)

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        """Show the table of success as soon as its last rollout has ended."""
        if nodeid not in self._success_left:
            return
        self._success_left.remove(nodeid)
        reporter = self._config.pluginmanager.getplugin("terminalreporter")
        if self._success_left or not self._others_left or reporter is None or reporter.verbosity < 0:
            return
        if self._settings.shard is not None:
            return
        from il_bench.plugin import collect

        success = [record for record in self._records if record["section"] == "success"]
        if self._config.get_terminal_writer().width_of_current_line:  # the letter of the last test
            reporter.write_line("")
        reporter.write(collect.summary(success, **self._terminal()))

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Write the files, and turn gates that are not passed into the exit status."""
        if not self._records:
            return
        from il_bench.plugin import collect

        seconds = {
            stage: {name: round(value, 1) for name, value in spent.items()}
            for stage, spent in self._seconds.items()
            if spent["tests"]
        }
        if self._settings.shard is not None:
            if session.exitstatus not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
                self._summary = "shard not finished, so nothing to merge: repeat it with --il-resume\n"
                return
            self._summary, status = collect.finish_shard(self._records, self._settings)
            if session.exitstatus == pytest.ExitCode.OK:
                session.exitstatus = status
            return
        shown = self._terminal()
        if self._has_terminal:
            shown["verbosity"] = session.config.get_verbosity()
        self._summary, status = collect.finish(self._records, self._settings, seconds, **shown)
        if status and not self._has_terminal:  # what went wrong is said even so
            sys.stderr.write(self._summary)
        if session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = status

    @property
    def _has_terminal(self) -> bool:
        return self._config.pluginmanager.hasplugin("terminalreporter")

    def _terminal(self) -> dict[str, Any]:
        """Its width, None if it is a log; whether it has colours; and its encoding."""
        if not self._has_terminal:
            return {"width": None, "color": False}
        terminal = self._config.get_terminal_writer()
        width = terminal.fullwidth if sys.stdout.isatty() else None
        return {"width": width, "color": terminal.hasmarkup, "encoding": terminal._file.encoding}

    @pytest.hookimpl(tryfirst=True)
    def pytest_terminal_summary(self, terminalreporter: "pytest.TerminalReporter") -> None:
        """Show the answer, and where the files are."""
        if self._summary:
            hide_benchmarks(terminalreporter.config)
            terminalreporter.write_sep("=", "il_bench")
            terminalreporter.write(self._summary)


#: Options of pytest-benchmark that ask for its table.
_ABOUT_ITS_TABLE = ("columns", "compare", "cprofile", "group-by", "histogram", "name", "sort", "verbose")


def hide_benchmarks(config: pytest.Config) -> None:
    """Keep pytest-benchmark from printing the times of our suite once more, unless it is asked to.

    What it saves and compares is not touched.
    """
    benchmarks = config.pluginmanager.getplugin("pytest-benchmark")
    asked = tuple(f"--benchmark-{name}" for name in _ABOUT_ITS_TABLE)
    given = (*config.getini("addopts"), *map(str, config.invocation_params.args))
    if benchmarks is None or config.get_verbosity() > 0 or any(each.startswith(asked) for each in given):
        return
    ours = [f"{SUITE.parent.name}/{SUITE.name}/" in each.fullname for each in benchmarks.benchmarks if each]
    benchmarks.quiet |= all(ours)


def is_timed(item: pytest.Item) -> bool:
    """Whether a test measures time with our fixtures, so that other processes would disturb it."""
    return any(map(item.get_closest_marker, ("throughput", "latency"))) and fixtures.uses_ours(item)


def leave_timed_tests(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Take timed tests out of a worker's `items`, and tell the controller how many there are."""
    kept = [item for item in items if not is_timed(item)]
    config.workeroutput[LEFT] = len(items) - len(kept)  # type: ignore[attr-defined]
    items[:] = kept
    benchmarks = config.pluginmanager.getplugin("pytest-benchmark")
    if benchmarks is not None and not any("benchmark" in getattr(item, "fixturenames", ()) for item in kept):
        benchmarks.xdist_benchmark_found = False  # it would warn that it times nothing


class TimedTestsLast:
    """Runs the timed tests on pytest-xdist's controller, after its workers have ended.

    Other tests would disturb them, and pytest-benchmark switches itself off under -n.
    """

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._are_left = self._cannot_collect = False

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: object) -> None:
        """Note whether a worker left tests to us; one that crashed cannot say, so we look ourselves."""
        self._are_left |= bool(error) or getattr(node, "workeroutput", {}).get(LEFT, 0) > 0

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Note errors during collection."""
        self._cannot_collect |= report.failed

    @pytest.hookimpl(wrapper=True)
    def pytest_runtestloop(self, session: pytest.Session) -> Generator[None, object, object]:
        """Run the timed tests after pytest-xdist's loop, which returns when the workers are done."""
        result = yield
        distributed = self._config.pluginmanager.getplugin("dsession")
        if distributed is None or not self._are_left:
            return result
        if self._cannot_collect:
            self._say("timed tests did not run: errors during collection")
            return result
        distributed.nodemanager.teardown_nodes()  # frees their memory; what they do at exit is over then
        self._say("timed tests run alone, after the workers")
        benchmarks = self._config.pluginmanager.getplugin("pytest-benchmark")
        if benchmarks is not None:  # undo what -n did to it, unless the user switched it off
            option = self._config.getoption
            benchmarks.disabled = option("benchmark_disable") and not option("benchmark_enable")
            benchmarks.xdist_warning = False  # which says that it is off
        self._run(session)
        return result

    def _run(self, session: pytest.Session) -> None:
        """Collect and run as pytest's own loop would, but go on although tests of the workers failed."""
        others = session.testscollected
        items: list[Any] = [*session.perform_collect()]
        session.testscollected += others
        for item, following in zip(items, [*items[1:], None], strict=True):
            self._config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            if session.shouldfail:
                raise session.Failed(session.shouldfail)
            if session.shouldstop:
                raise session.Interrupted(session.shouldstop)

    def _say(self, text: str) -> None:
        reporter = self._config.pluginmanager.getplugin("terminalreporter")
        if reporter is not None:
            reporter.write_line("")
            reporter.write_sep("-", f"il_bench: {text}")
