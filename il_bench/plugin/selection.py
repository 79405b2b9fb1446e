"""Hooks of pytest that collect the suite, and choose which tests run.

Every pytest run loads this module where il_bench is installed: standard library and pytest only.
"""

from pathlib import Path

import pytest

from il_bench.plugin import fixtures
from il_bench.plugin.settings import STAGES, SUITE

MARKERS = {
    "success": "rolls a policy out and gates its success rate; runs with --benchmark only",
    "throughput": "measures how much gets done per second; runs with --benchmark only",
    "latency": "measures how long one call takes; runs with --benchmark only",
}
#: Marks what only a thorough run does.
LONG = pytest.mark.il_bench_long
SKIP = pytest.mark.skip(reason="a benchmark: run it with --benchmark")


class SuiteModule(pytest.Module):
    """A module of our suite: its tests are called test_*, whatever a project calls its own tests."""

    def funcnamefilter(self, name: str) -> bool:
        """Whether a function is a test."""
        return name.startswith("test_")


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    """Collect our suite even if a project gives its own test files other names."""
    name = file_path.name  # pytest asks about every file beside the tests, so the cheapest check comes first
    if not (name.startswith("test_") and name.endswith(".py")) or not _is_suite(file_path.parent):
        return None
    patterns = parent.config.getini("python_files")
    if parent.session.isinitpath(file_path) or any(file_path.match(pattern) for pattern in patterns):
        return None  # pytest does it
    return pytest_pycollect_makemodule(file_path, parent)


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    """Make the modules of our suite."""
    if not _is_suite(module_path.parent):
        return None
    # Outside a checkout, pytest would leave the file's name out of the ids.
    return SuiteModule.from_parent(
        parent, path=SUITE / module_path.name, nodeid=f"il_bench/suite/{module_path.name}"
    )


def _is_suite(folder: Path) -> bool:
    """Whether this is the folder of our suite, also where a link leads to it."""
    return folder == SUITE or (folder.name == SUITE.name and folder.resolve() == SUITE.resolve())


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that uses our `policy` fixture once for each selected policy.

    Only tests marked `any_environment` get policies for environments other than PushT. A project's own
    fixture or parameter called `policy` is left alone.
    """
    for name in fixtures.POLICIES:
        if fixtures.is_ours(metafunc._arg2fixturedefs.get(name, ())) and not _has_parameter(metafunc, name):
            policies = metafunc.config.stash[fixtures.SETTINGS].policies
            if not getattr(metafunc.function, fixtures.ANY_ENVIRONMENT, False):
                policies = tuple(policy for policy in policies if policy.environment is None)
            metafunc.parametrize(name, policies, indirect=True, ids=lambda each: each.label, scope="session")


def _has_parameter(metafunc: pytest.Metafunc, name: str) -> bool:
    """Whether a test says itself which values `name` takes."""
    for mark in metafunc.definition.iter_markers("parametrize"):
        names = mark.args[0] if mark.args else mark.kwargs.get("argnames", ())
        if name in (map(str.strip, names.split(",")) if isinstance(names, str) else names):
            return True
    return False


@pytest.hookimpl(trylast=True)  # after the selection by -m, -k and other plugins
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Bring the suite into its order, and skip it without --benchmark.

    Left out are tests that were collected twice; those under stress and the long ones, unless --il-stress or
    --il-thorough asks for them; and of a shard all but the rollouts.

    Under pytest-xdist, workers leave the timed tests to the controller.
    """
    seen: set[str] = set()
    settings = config.stash[fixtures.SETTINGS]
    for item in list(items):
        if isinstance(item.parent, SuiteModule):
            is_long = item.get_closest_marker(LONG.name) and not settings.thorough
            is_stress = item.path.stem == "test_stress" and not settings.stress
            is_other = settings.shard is not None and item.path.stem != "test_success"
            if item.nodeid in seen or is_long or is_stress or is_other:
                items.remove(item)
            seen.add(item.nodeid)
    places = [place for place, item in enumerate(items) if isinstance(item.parent, SuiteModule)]
    for place, item in zip(places, sorted((items[place] for place in places), key=_stage), strict=True):
        items[place] = item
    if not settings.benchmark:
        for item in items:
            if any(map(item.get_closest_marker, MARKERS)) and fixtures.uses_ours(item):
                item.add_marker(SKIP)
        return
    from il_bench.plugin import controller

    if hasattr(config, "workerinput"):
        controller.leave_timed_tests(config, items)
    elif config.pluginmanager.hasplugin("dsession"):  # pytest-xdist's, on the controller
        items[:] = [item for item in items if controller.is_timed(item)]


def _stage(item: pytest.Item) -> int:
    stage = item.path.stem.removeprefix("test_")
    return STAGES.index(stage) if stage in STAGES else len(STAGES)
