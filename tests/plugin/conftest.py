"""Real pytest runs with our plugin, each in a process of its own."""

from collections.abc import Callable

import pytest

Run = Callable[..., pytest.RunResult]


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
    """Let episodes end after three steps."""
    pytester.makeconftest("import il_bench.rollout.blocks\n\nil_bench.rollout.blocks.MAX_STEPS = 3\n")
