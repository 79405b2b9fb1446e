"""Deferred packages, on a small LeRobot made here; tests/rollout/test_starting.py has the real one."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from il_bench import lerobot_imports

LARGE = "from .configuration_large import LargeConfig\nfrom .modeling_large import LargePolicy\n"


@pytest.fixture
def policies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """A package of policies of which `large` imports its network at once, and `broken` lacks a dependency."""
    for name, text in {
        "__init__": "from .large.configuration_large import LargeConfig as LargeConfig",
        "large/__init__": LARGE,
        "large/configuration_large": "from .sizes import SIZE\nclass LargeConfig: size = SIZE",
        "large/sizes": "SIZE = 8",
        "large/modeling_large": "from .configuration_large import LargeConfig\nclass LargePolicy: pass",
        "broken/__init__": "import module_that_nobody_has",
        "broken/configuration_broken": "class BrokenConfig: pass",
        "broken/modeling_broken": "class BrokenPolicy: pass",
    }.items():
        path = tmp_path / "little" / "policies" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "little" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(lerobot_imports, "PACKAGE", "little.policies")
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path])
    lerobot_imports.defer()
    lerobot_imports.defer()
    yield importlib.import_module("little.policies")
    for name in [name for name in sys.modules if name.partition(".")[0] == "little"]:
        del sys.modules[name]


def is_imported(name: str) -> bool:
    return f"little.policies.{name}" in sys.modules


def test_a_configuration_brings_no_network(policies: ModuleType) -> None:
    assert policies.LargeConfig.size == 8
    assert not is_imported("large.modeling_large")
    assert sum(type(finder).__module__ == lerobot_imports.__name__ for finder in sys.meta_path) == 1


@pytest.mark.parametrize(
    "how",
    [
        "from little.policies.large import LargePolicy",
        "from little.policies.large import *",
        "import little.policies.large as large; LargePolicy = large.LargePolicy",
        "from little.policies.large.modeling_large import LargePolicy",
        "import importlib; large = importlib.import_module('little.policies.large.modeling_large')\n"
        "LargePolicy = large.LargePolicy",
    ],
)
def test_a_network_that_is_asked_for_is_there(policies: ModuleType, how: str) -> None:
    found: dict[str, type] = {}
    exec(how, found)
    assert found["LargePolicy"].__module__ == "little.policies.large.modeling_large"
    assert policies.large.LargePolicy is found["LargePolicy"], "its __init__ has run"
    assert policies.large.LargeConfig is policies.LargeConfig, "and nothing was imported twice"


@pytest.mark.parametrize("attempt", [1, 2])
def test_what_a_policy_lacks_is_named(policies: ModuleType, attempt: int) -> None:
    importlib.import_module("little.policies.broken.configuration_broken")
    for _ in range(attempt):
        with pytest.raises(ModuleNotFoundError, match="module_that_nobody_has"):
            importlib.import_module("little.policies.broken.modeling_broken")
        with pytest.raises(ImportError, match="BrokenPolicy"):
            exec("from little.policies.broken import BrokenPolicy")
    assert not hasattr(sys.modules["little.policies.broken"], "__wrapped__"), "whoever looks at every module"
