from functools import partial

import pytest

from tests.conftest import Run
from tests.latency.conftest import policy  # noqa: F401  (a fixture here too)


@pytest.fixture
def suite(light: Run) -> Run:
    """Run the suite in a process of its own, without anybody's own demonstrations."""
    return partial(light, "--benchmark")
