"""What several test files of policies need."""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from il_bench.errors import IlBenchError
from tests.small_policies import OURS, save, small_policy, train_a_little


@pytest.fixture(params=OURS)
def trained(request: pytest.FixtureRequest) -> Any:
    return train_a_little(small_policy(request.param))


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """The last checkpoint of a run of il_bc."""
    policy = train_a_little(small_policy("il_bc"), steps=1)
    return save(policy, tmp_path / "run" / "checkpoints" / "last" / "pretrained_model")


@pytest.fixture
def folder(checkpoint: Path, tmp_path: Path) -> Path:
    """A copy of a checkpoint, to be damaged."""
    return shutil.copytree(checkpoint, tmp_path / "copy")


@contextmanager
def edited(path: Path) -> Iterator[dict[str, Any]]:
    """What a JSON file says; it is written back as it then is."""
    said = json.loads(path.read_text())
    yield said
    path.write_text(json.dumps(said))


def refuses(said: str, call: Callable[..., object], *arguments: Any, **options: Any) -> None:
    """Check that a call raises an IlBenchError of one line that matches ``said``."""
    with pytest.raises(IlBenchError, match=said) as raised:
        call(*arguments, **options)
    assert "\n" not in str(raised.value)
