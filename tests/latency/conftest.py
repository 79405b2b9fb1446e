from pathlib import Path

import pytest

from il_bench.policies.checkpoint import LoadedPolicy, load_policy


@pytest.fixture
def policy(checkpoint: Path) -> LoadedPolicy:
    """The tiny act, loaded anew for each test."""
    return load_policy(checkpoint)
