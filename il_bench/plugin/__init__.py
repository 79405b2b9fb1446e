"""il_bench's pytest hooks. Every pytest run loads them, so importing this module must stay cheap."""

import os
from collections.abc import Generator

import pytest

from il_bench import __version__
from il_bench.errors import IlBenchError
from il_bench.plugin import fixtures, registry, selection, settings
from il_bench.plugin.options import Invocation
from il_bench.protocol import HUMAN_DATA

ALIAS = "--benchmark"


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    """Add the hook by which projects register their policies, tokenizers and environments."""
    pluginmanager.add_hookspecs(registry)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add our options, in one group, and the ini option of `pusht_dataset`."""
    group = parser.getgroup("il_bench", "il_bench, the benchmark of imitation-learning policies on PushT")
    for option in settings.OPTIONS.values():
        group.addoption(option.flag, **option.parser)
    parser.addini(
        fixtures.DATA_INI,
        f"Demonstrations that il_bench's pusht_dataset opens (default: those that {HUMAN_DATA} names).",
    )


@pytest.hookimpl(wrapper=True)
def pytest_load_initial_conftests(args: list[str], parser: pytest.Parser) -> Generator[None, object, object]:
    """Read `--benchmark` as --il-benchmark, unless a plugin or conftest file has an option of that name.

    It is no option of its own, so that a conftest file further down, which pytest reads later, can add one.
    """
    result = yield
    groups = [parser._anonymous, *parser._groups]
    is_taken = any(ALIAS in option.names() for group in groups for option in group.options)
    if not is_taken and os.environ.get("IL_BENCH_NO_ALIAS", "0") in ("", "0"):
        end = args.index("--") if "--" in args else len(args)
        args[:end] = ["--il-benchmark" if each == ALIAS else each for each in args[:end]]
    return result


def pytest_configure(config: pytest.Config) -> None:
    """Check the options, register our plugins, and add the suite to the run unless files were named."""
    for name, meaning in selection.MARKERS.items():
        config.addinivalue_line("markers", f"{name}: {meaning}")
    config.addinivalue_line("markers", f"{selection.LONG.name}: runs with --il-thorough only")
    is_worker = hasattr(config, "workerinput")
    projects = registry.Registry()
    try:
        config.hook.pytest_il_bench_register(registry=projects)
        projects.check()
        folder = config.invocation_params.dir
        one_of_many = is_worker or config.getoption("dist", "no") != "no"  # pytest-xdist's
        chosen = settings.read(Invocation(config.getoption, folder, one_of_many, projects.choices(folder)))
        if chosen.benchmark and not is_worker and not config.option.collectonly:
            from il_bench.plugin import collect

            collect.check_baselines(chosen)
    except IlBenchError as error:
        raise pytest.UsageError(str(error)) from None
    config.stash[fixtures.SETTINGS] = chosen
    config.stash[fixtures.REGISTRY] = projects
    config.pluginmanager.register(fixtures, "il_bench_fixtures")
    config.pluginmanager.register(selection, "il_bench_selection")
    if chosen.benchmark and not is_worker:
        from il_bench.plugin import controller

        config.pluginmanager.register(controller.Reporter(config, chosen), "il_bench_reporter")
        config.pluginmanager.register(controller.TimedTestsLast(config), "il_bench_timed_tests_last")
    if chosen.benchmark and config.args_source != pytest.Config.ArgsSource.ARGS:
        config.args.append(str(settings.SUITE))


def pytest_report_header(config: pytest.Config) -> list[str]:
    """Say what the benchmark is about to do; say nothing in other runs."""
    chosen = config.stash[fixtures.SETTINGS]
    return (
        [f"il_bench {__version__}: {chosen.header}", f"il_bench: {chosen.effort}"] if chosen.benchmark else []
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Put a test's records on its report, which pytest-xdist carries to the controller."""
    report = yield
    if item.config.stash[fixtures.SETTINGS].benchmark:
        vars(report)["il_bench_processor"] = fixtures.processor_seconds_since_last(item.config)
    if call.when == "call" and fixtures.RECORDS in item.stash:
        vars(report)["il_bench_records"] = item.stash[fixtures.RECORDS]
        del item.stash[fixtures.RECORDS]
    if call.when == "call" and item.config.getoption("htmlpath", None):
        vars(report)["extras"] = [*getattr(report, "extras", ()), *_of_pytest_html(item.user_properties)]
    return report


def _of_pytest_html(properties: list[tuple[str, object]]) -> list[dict[str, str | None]]:
    """What pytest-html shows under a test: a table of what we know of it; nothing where that is nothing."""
    rows = [(name, str(value)) for name, value in properties if name.startswith("il_bench.")]
    if not rows:
        return []
    from html import escape

    from pytest_html import extras

    cells = "".join(f"<tr><td>{escape(name)}</td><td>{escape(said)}</td></tr>" for name, said in rows)
    return [extras.html(f"<table>{cells}</table>")]
