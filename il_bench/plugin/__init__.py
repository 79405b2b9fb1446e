"""il_bench's pytest hooks, and nothing else: loaded by every pytest run, so it must stay cheap."""

import os
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from il_bench import __version__
from il_bench.errors import IlBenchError
from il_bench.plugin import fixtures, hooks, options, settings
from il_bench.plugin.registry import Registry
from il_bench.protocol import HUMAN_DATA

MARKERS = {
    "success": "rolls a policy out and gates its success rate; runs with --benchmark only",
    "throughput": "measures how much gets done a second; runs with --benchmark only",
    "latency": "measures how long one call takes; runs with --benchmark only",
}
SKIP = pytest.mark.skip(reason="a benchmark: run it with --benchmark")
TIMED = ("throughput", "latency")  # markers of what other processes would disturb


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    """Add the hook by which projects register what is theirs."""
    pluginmanager.add_hookspecs(hooks)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add our options, in one group."""
    group = parser.getgroup("il_bench", options.GROUP)
    for flag, keywords in options.OPTIONS:
        group.addoption(flag, **keywords)
    parser.addini(
        fixtures.DATA_INI,
        f"Demonstrations that il_bench's pusht_dataset opens (default: what {HUMAN_DATA} names).",
    )


@pytest.hookimpl(wrapper=True)
def pytest_load_initial_conftests(parser: pytest.Parser) -> Generator[None, object, object]:
    """Add `--benchmark` when all plugins and conftest files have named theirs: one of them may own it."""
    result = yield
    groups = [parser._anonymous, *parser._groups]
    taken = any("--benchmark" in option.names() for group in groups for option in group.options)
    if not taken and os.environ.get("IL_BENCH_NO_ALIAS", "0") in ("", "0"):
        group = parser.getgroup("il_bench")
        group.addoption("--benchmark", dest="il_benchmark", action="store_true", help=options.ALIAS_HELP)
    return result


def pytest_configure(config: pytest.Config) -> None:
    """Check the options, register markers and fixtures, and add the suite where no files were named."""
    for name, meaning in MARKERS.items():
        config.addinivalue_line("markers", f"{name}: {meaning}")
    is_worker = hasattr(config, "workerinput")
    registry = Registry()
    try:
        config.hook.pytest_il_bench_register(registry=registry)
        registry.check()
        chosen = settings.read(
            config.getoption,
            folder=config.invocation_params.dir,
            one_of_many=is_worker or config.getoption("dist", "no") != "no",  # pytest-xdist's
            registered=[each.choice for each in registry.policies.values()],
        )
        if chosen.benchmark and not is_worker and not config.option.collectonly:
            from il_bench.plugin import declared

            declared.check(chosen)
    except IlBenchError as error:
        raise pytest.UsageError(str(error)) from None
    config.stash[fixtures.SETTINGS] = chosen
    config.stash[fixtures.REGISTRY] = registry
    config.pluginmanager.register(fixtures, "il_bench_fixtures")
    if chosen.benchmark and not is_worker:
        config.pluginmanager.register(Reporter(chosen), "il_bench_reporter")
        config.pluginmanager.register(Alone(config), "il_bench_alone")
    if chosen.benchmark and config.args_source != pytest.Config.ArgsSource.ARGS:
        config.args.append(str(settings.SUITE))


def pytest_report_header(config: pytest.Config) -> list[str]:
    """Say what the benchmark is about to do; nothing in other runs."""
    chosen = config.stash[fixtures.SETTINGS]
    return [f"il_bench {__version__}: {chosen.header}"] if chosen.benchmark else []


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    """Collect our suite also where a project gives its own test files other names."""
    if file_path.parent != settings.SUITE or not file_path.match("test_*.py"):
        return None
    if parent.session.isinitpath(file_path) or _matches(file_path, parent.config.getini("python_files")):
        return None  # pytest does it
    return pytest_pycollect_makemodule(file_path, parent)


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    """Make the modules of our suite."""
    if module_path.parent != settings.SUITE:
        return None
    # Elsewhere than in a checkout, pytest would leave the file's name out of the ids.
    return SuiteModule.from_parent(parent, path=module_path, nodeid=f"il_bench/suite/{module_path.name}")


class SuiteModule(pytest.Module):
    """A module of our suite, whose tests are called test_* whatever a project calls its own."""

    def funcnamefilter(self, name: str) -> bool:
        """Whether a function is a test."""
        return name.startswith("test_")


def _matches(path: Path, patterns: list[str]) -> bool:
    return any(path.match(pattern) for pattern in patterns)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run tests that ask for `policy` once for each selected one."""
    if "policy" in metafunc.fixturenames:
        fixtures.parametrize_policy(metafunc)


@pytest.hookimpl(trylast=True)  # of what -m, -k and others leave
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Drop what was collected twice of the suite; skip benchmarks, other projects' not, unless asked for.

    Under pytest-xdist the workers leave what is timed to the controller (see `Alone`).
    """
    seen: set[str] = set()
    for item in list(items):
        if isinstance(item.parent, SuiteModule):
            if item.nodeid in seen:
                items.remove(item)
            seen.add(item.nodeid)
    if not config.stash[fixtures.SETTINGS].benchmark:
        for item in items:
            if any(item.get_closest_marker(name) for name in MARKERS) and fixtures.uses_ours(item):
                item.add_marker(SKIP)
    elif hasattr(config, "workerinput"):
        Alone.leave(config, items)
    elif config.pluginmanager.hasplugin("dsession"):  # pytest-xdist's, on the controller
        items[:] = [item for item in items if _is_timed(item)]


def _is_timed(item: pytest.Item) -> bool:
    return any(item.get_closest_marker(name) for name in TIMED) and fixtures.uses_ours(item)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Put what a test recorded on its report, which pytest-xdist carries to the controller."""
    report = yield
    if call.when == "call" and fixtures.RECORDS in item.stash:
        vars(report)["il_bench_records"] = item.stash[fixtures.RECORDS]
        del item.stash[fixtures.RECORDS]
    return report


class Reporter:
    """Gathers what tests recorded and makes the report of it: registered in the process that reports."""

    def __init__(self, chosen: settings.Settings) -> None:
        self._settings = chosen
        self._records: list[dict[str, Any]] = []
        self._summary = ""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take the records of a finished test, of this process or another."""
        self._records += getattr(report, "il_bench_records", [])

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Write the files, and let an undecided gate show in the exit status."""
        if not self._records:
            return
        from il_bench.plugin import collect

        terminal = session.config.get_terminal_writer()
        self._summary, status = collect.finish(
            self._records,
            self._settings,
            width=terminal.fullwidth if sys.stdout.isatty() else None,
            color=terminal.hasmarkup,
        )
        if session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = status

    def pytest_terminal_summary(self, terminalreporter: "pytest.TerminalReporter") -> None:
        """Show the table and where the files are."""
        if self._summary:
            terminalreporter.write_sep("=", "il_bench")
            terminalreporter.write(self._summary)


class Alone:
    """Runs what is timed on pytest-xdist's controller, when the workers have ended: registered there.

    Side by side with other tests they would be disturbed, and pytest-benchmark switches itself off under -n.
    """

    LEFT = "il_bench_left_to_the_controller"  # how many, in a worker's workeroutput

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._is_wanted = self._cannot_collect = False

    @classmethod
    def leave(cls, config: pytest.Config, items: list[pytest.Item]) -> None:
        """On a worker: take what is timed out of `items`, and have the controller hear of it."""
        kept = [item for item in items if not _is_timed(item)]
        config.workeroutput[cls.LEFT] = len(items) - len(kept)  # type: ignore[attr-defined]
        items[:] = kept
        benchmarks = config.pluginmanager.getplugin("pytest-benchmark")
        if benchmarks is not None and not any(
            "benchmark" in getattr(item, "fixturenames", ()) for item in kept
        ):
            benchmarks.xdist_benchmark_found = False  # it would warn that it times nothing

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: object) -> None:
        """Hear whether a worker left any test to us; one that crashed cannot say."""
        self._is_wanted |= bool(error) or getattr(node, "workeroutput", {}).get(self.LEFT, 0) > 0

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Notice errors during collection."""
        self._cannot_collect |= report.failed

    @pytest.hookimpl(wrapper=True)
    def pytest_runtestloop(self, session: pytest.Session) -> Generator[None, object, object]:
        """Run them after the loop of pytest-xdist, which returns when the workers are done."""
        result = yield
        dsession = self._config.pluginmanager.getplugin("dsession")
        if dsession is not None and self._is_wanted:
            if self._cannot_collect:
                self._say("what is timed did not run: errors during collection")
                return result
            dsession.nodemanager.teardown_nodes()  # their memory and their last work at exit
            self._say("timed alone, after the workers")
            self._enable_pytest_benchmark()
            self._run(session)
        return result

    def _run(self, session: pytest.Session) -> None:
        """Collect and run like pytest's own loop, which would stop at failures of the workers' tests."""
        others = session.testscollected
        items: list[Any] = [*session.perform_collect()]
        session.testscollected += others
        for item, following in zip(items, [*items[1:], None], strict=True):
            self._config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            if session.shouldfail:
                raise session.Failed(session.shouldfail)
            if session.shouldstop:
                raise session.Interrupted(session.shouldstop)

    def _enable_pytest_benchmark(self) -> None:
        """Undo what -n did to it, unless the user switched it off."""
        benchmarks = self._config.pluginmanager.getplugin("pytest-benchmark")
        if benchmarks is not None:
            option = self._config.getoption
            benchmarks.disabled = option("benchmark_disable") and not option("benchmark_enable")
            benchmarks.xdist_warning = False  # that it is off

    def _say(self, text: str) -> None:
        reporter = self._config.pluginmanager.getplugin("terminalreporter")
        if reporter is not None:
            reporter.write_line("")
            reporter.write_sep("-", f"il_bench: {text}")
