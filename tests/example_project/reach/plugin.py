"""What this project adds to il_bench's suite; what is heavy is imported when it is needed."""

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from il_bench.plugin.registry import Registry


@pytest.hookimpl(optionalhook=True)  # the project's tests run without il_bench too
def pytest_il_bench_register(registry: "Registry") -> None:
    registry.environment("reach", environment, max_steps=20)
    registry.policy("reacher", reacher, environment="reach", data="none", version="1")
    registry.policy("pusher", pusher)
    registry.tokenizer("grid 16", grid)


def environment() -> Any:
    from reach.environment import Reach

    return Reach()


def reacher(device: str) -> Any:
    from reach.policies import Reacher

    return Reacher().to(device)


def pusher(device: str) -> Any:
    from reach.policies import Pusher

    return Pusher()


def grid() -> Any:
    from reach.tokenizer import Grid

    return Grid(16, (4, 2))
