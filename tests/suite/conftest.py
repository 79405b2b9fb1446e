from collections.abc import Callable
from functools import partial

import pytest

from tests.latency.conftest import policy  # noqa: F401  (a fixture here too)


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Callable[..., pytest.RunResult]:
    """Run the suite in a process of its own, without anybody's own demonstrations."""
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)  # it would be taken for a run with -n
    monkeypatch.delenv("IL_BENCH_HUMAN_DATA", raising=False)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    return partial(pytester.runpytest_subprocess, "-p", "il_bench", "--benchmark")
