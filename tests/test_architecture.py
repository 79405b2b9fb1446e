"""Who may know whom inside il_bench, read from the imports themselves (also those inside functions)."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "il_bench"
SOURCES = sorted(PACKAGE.rglob("*.py"))

# What a part of the package may know besides itself and `errors`; parts not named are free.
MAY_KNOW: dict[str, set[str]] = {
    "errors": set(),
    "files": set(),
    "interrupts": set(),
    "stats": set(),
    "tokenizers": set(),
    "pusht": set(),
    "gate": {"stats"},
    "outcomes": set(),
    "policy_gates": {"baselines", "gate", "outcomes"},
    "executors": set(),
    "threads": set(),
    "journal": {"files", "outcomes"},
    "rollout": {"executors", "journal", "outcomes", "pusht", "threads"},
    "policies": {"options", "pusht", "tokenizers"},
    "dataset": {"options", "pusht"},
    "latency": {"command", "environment", "files", "policies", "pusht", "report", "threads"},
    "train": {
        "checkpoint",
        "dataset",
        "ema",
        "interrupts",
        "options",
        "policies",
        "recipes",
        "rollout",
        "threads",
    },
}
MAY_IMPORT_PYTEST = {"plugin", "fixtures", "suite"}


def part_of(path: Path) -> str:
    """`il_bench/pusht/env.py` -> `pusht`, `il_bench/gate.py` -> `gate`."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imports(source: str, path: Path) -> Iterator[str]:
    """Dotted names that the source imports, `from a import b` as `a.b`, relative ones made absolute."""
    package = ("il_bench", *path.relative_to(PACKAGE).parent.parts)
    for node in ast.walk(ast.parse(source, str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*above, *([node.module] if node.module else [])))
            yield from (f"{module}.{alias.name}" for alias in node.names)


def violations(source: str, path: Path) -> list[str]:
    """One line for each import in the source that its part of the package must not make."""
    part, found = part_of(path), []
    for name in imports(source, path):
        top, _, rest = name.partition(".")
        if top in {"pytest", "_pytest"} and part not in MAY_IMPORT_PYTEST:
            found.append(f"{part} imports {name}: only plugin, fixtures and suite know pytest")
        if top != "il_bench" or not rest:
            continue
        known = rest.partition(".")[0]
        if known == "plugin" and part != "plugin":
            found.append(f"{part} imports {name}: pytest alone loads the plugin")
        if part in MAY_KNOW and known not in MAY_KNOW[part] | {part, "errors", "__version__"}:
            found.append(f"{part} imports {name}: it may know {sorted(MAY_KNOW[part]) or 'nobody'}")
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_modules_know_only_whom_they_may(path: Path) -> None:
    assert violations(path.read_text(encoding="utf-8"), path) == []


@pytest.mark.parametrize(
    ("module", "source", "allowed"),
    [
        ("stats.py", "import numpy", True),
        ("stats.py", "from il_bench.errors import IlBenchError", True),
        ("stats.py", "from il_bench.gate import Decision", False),
        ("stats.py", "def late():\n    from . import gate", False),
        ("stats.py", "from il_bench import evaluate", False),
        ("pusht/env.py", "from .geometry import coverage", True),
        ("pusht/env.py", "from il_bench.pusht import geometry", True),
        ("pusht/env.py", "from ..rollout import Outcomes", False),
        ("policies/bet.py", "from il_bench.tokenizers.kmeans import KMeans", True),
        ("policies/bet.py", "import il_bench.dataset", False),
        ("gate.py", "import pytest", False),
        ("suite/test_success.py", "import pytest", True),
        ("fixtures.py", "from il_bench.plugin import options", False),
        ("cli.py", "from il_bench import plugin", False),
    ],
)
def test_the_rules_tell_good_imports_from_bad(module: str, source: str, allowed: bool) -> None:
    assert (violations(source, PACKAGE / module) == []) is allowed
