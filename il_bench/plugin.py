"""il_bench's pytest hooks, and nothing else: loaded by every pytest run, so it must stay cheap."""

import os
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from il_bench import __version__, fixtures, options, settings
from il_bench.errors import IlBenchError

MARKERS = {
    "success": "rolls a policy out and gates its success rate; runs with --benchmark only",
    "throughput": "measures how much gets done a second; runs with --benchmark only",
    "latency": "measures how long one call takes; runs with --benchmark only",
}
SKIP = pytest.mark.skip(reason="a benchmark: run it with --benchmark")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add our options, in one group."""
    group = parser.getgroup("il_bench", options.GROUP)
    for flag, keywords in options.OPTIONS:
        group.addoption(flag, **keywords)
    parser.addini(
        fixtures.DATA_INI,
        f"Demonstrations that il_bench's pusht_dataset opens (default: what {fixtures.DATA_VARIABLE} names).",
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
    try:
        chosen = settings.read(
            config.getoption,
            folder=config.invocation_params.dir,
            one_of_many=is_worker or config.getoption("dist", "no") != "no",  # pytest-xdist's
        )
        if chosen.benchmark and not is_worker and not config.option.collectonly:
            from il_bench.report import declared

            declared.check(chosen)
    except IlBenchError as error:
        raise pytest.UsageError(str(error)) from None
    config.stash[fixtures.SETTINGS] = chosen
    config.pluginmanager.register(fixtures, "il_bench_fixtures")
    if chosen.benchmark and not is_worker:
        config.pluginmanager.register(Reporter(chosen), "il_bench_reporter")
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


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Drop what was collected twice of the suite; skip benchmarks, other projects' not, unless asked for."""
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
        from il_bench.report import collect

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
