"""What several test files need.

Not at the root of the checkout: there, everybody who runs the suite out of an editable install would read it
too.
"""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.small_policies import save, small_policy

pytest_plugins = ["pytester"]
Run = Callable[..., pytest.RunResult]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the slow tests to runs with --benchmark or -m slow; those in a browser or on Ray to -m theirs."""
    for marker, reason in (("browser", "in a browser"), ("ray", "on a Ray cluster")):
        if marker in (config.option.markexpr or ""):
            continue
        skip = pytest.mark.skip(reason=f"{reason}: runs with -m {marker}")
        for item in items:
            if item.get_closest_marker(marker):
                item.add_marker(skip)
    if config.getoption("il_benchmark") or "slow" in (config.option.markexpr or ""):
        return
    skip = pytest.mark.skip(reason="slow: runs with --benchmark or -m slow")
    for item in items:
        if item.get_closest_marker("slow"):
            item.add_marker(skip)


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Let no file of this process be larger: it stands for a disk that is full."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        gc.collect()  # what LeRobot left open writes now, if at all
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A `pretrained_model` folder as LeRobot writes it: a tiny act on keypoints, never trained."""
    policy = small_policy("act", dim_model=32, dim_feedforward=32)
    return save(policy, tmp_path_factory.mktemp("policies") / "tiny")


@pytest.fixture
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of the run that the tests themselves are part of."""
    for name in ("PYTEST_ADDOPTS", "IL_BENCH_NO_ALIAS", "PYTEST_XDIST_WORKER", "IL_BENCH_HUMAN_DATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "110")


@pytest.fixture
def light(pytester: pytest.Pytester, clean_environment: None, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run pytest with our plugin and none of the others installed here, which take seconds to load."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    return lambda *arguments: pytester.runpytest_subprocess("-p", "il_bench", *arguments)


@pytest.fixture
def short(pytester: pytest.Pytester) -> None:
    """Let the episodes of such a run end after three steps."""
    pytester.makeconftest("import il_bench.rollout.blocks\n\nil_bench.rollout.blocks.MAX_STEPS = 3\n")
