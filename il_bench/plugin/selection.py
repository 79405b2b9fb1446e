"""Which tests there are in a run, and which of them run: hooks of pytest.

Loaded by every pytest run of everybody who has il_bench installed: standard library and pytest only.
"""

from pathlib import Path

import pytest

from il_bench.plugin import controller, fixtures
from il_bench.plugin.settings import SUITE

MARKERS = {
    "success": "rolls a policy out and gates its success rate; runs with --benchmark only",
    "throughput": "measures how much gets done a second; runs with --benchmark only",
    "latency": "measures how long one call takes; runs with --benchmark only",
}
SKIP = pytest.mark.skip(reason="a benchmark: run it with --benchmark")


class SuiteModule(pytest.Module):
    """A module of our suite, whose tests are called test_* whatever a project calls its own."""

    def funcnamefilter(self, name: str) -> bool:
        """Whether a function is a test."""
        return name.startswith("test_")


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    """Collect our suite also where a project gives its own test files other names."""
    if file_path.parent != SUITE or not file_path.match("test_*.py"):
        return None
    patterns = parent.config.getini("python_files")
    if parent.session.isinitpath(file_path) or any(file_path.match(pattern) for pattern in patterns):
        return None  # pytest does it
    return pytest_pycollect_makemodule(file_path, parent)


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    """Make the modules of our suite."""
    if module_path.parent != SUITE:
        return None
    # Elsewhere than in a checkout, pytest would leave the file's name out of the ids.
    return SuiteModule.from_parent(parent, path=module_path, nodeid=f"il_bench/suite/{module_path.name}")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that asks for our `policy` once for each selected one.

    Policies for other environments than PushT are for tests that are marked `any_environment`. A fixture or a
    parameter of that name in a project stays the project's.
    """
    if not fixtures.is_ours(metafunc._arg2fixturedefs.get("policy", ())):
        return
    for mark in metafunc.definition.iter_markers("parametrize"):
        names = mark.args[0] if mark.args else mark.kwargs.get("argnames", ())
        if "policy" in (map(str.strip, names.split(",")) if isinstance(names, str) else names):
            return
    choices = metafunc.config.stash[fixtures.SETTINGS].policies
    if not getattr(metafunc.function, fixtures.ANY_ENVIRONMENT, False):
        choices = tuple(choice for choice in choices if choice.environment is None)
    metafunc.parametrize("policy", choices, indirect=True, ids=lambda choice: choice.label, scope="session")


@pytest.hookimpl(trylast=True)  # when -m, -k and others have chosen
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Drop what was collected twice of the suite; without --benchmark, skip benchmarks that are ours.

    Under pytest-xdist the workers leave the timed tests to the controller.
    """
    seen: set[str] = set()
    for item in list(items):
        if isinstance(item.parent, SuiteModule):
            if item.nodeid in seen:
                items.remove(item)
            seen.add(item.nodeid)
    if not config.stash[fixtures.SETTINGS].benchmark:
        for item in items:
            if any(map(item.get_closest_marker, MARKERS)) and fixtures.uses_ours(item):
                item.add_marker(SKIP)
    elif hasattr(config, "workerinput"):
        controller.leave_timed_tests(config, items)
    elif config.pluginmanager.hasplugin("dsession"):  # pytest-xdist's, on the controller
        items[:] = [item for item in items if controller.is_timed(item)]
