"""What several test files need.

Not at the root of the checkout: there, everybody who runs the suite out of an editable install would read it
too.
"""

from pathlib import Path

import pytest

from tests.small_policies import save, small_policy

pytest_plugins = ["pytester"]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the slow tests to runs with --benchmark (and to those that name them with -m slow)."""
    if config.getoption("il_benchmark") or "slow" in (config.option.markexpr or ""):
        return
    skip = pytest.mark.skip(reason="slow: runs with --benchmark or -m slow")
    for item in items:
        if item.get_closest_marker("slow"):
            item.add_marker(skip)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A `pretrained_model` folder as LeRobot writes it: a tiny act on keypoints, never trained."""
    policy = small_policy("act", dim_model=32, dim_feedforward=32)
    return save(policy, tmp_path_factory.mktemp("policies") / "tiny")
