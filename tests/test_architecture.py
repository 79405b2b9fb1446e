"""Who may know whom inside il_bench, read from the imports themselves (also those inside functions)."""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "il_bench"
SOURCES = sorted(PACKAGE.rglob("*.py"))

#: What every room may know.
GROUND = {"errors", "files", "lerobot_imports", "protocol", "__init__"}
#: The rooms, each with those it may know besides itself and the ground: arrows run downwards only.
MAY_KNOW: dict[str, set[str]] = {
    "errors": set(),
    "files": set(),
    "lerobot_imports": set(),
    "protocol": set(),
    "__init__": {"policies", "train"},
    "machine": set(),
    "pusht": set(),
    "tokenizers": set(),
    "zoo": set(),
    "policies": {"data", "machine", "pusht", "tokenizers", "zoo"},
    "data": {"pusht"},
    "rollout": {"machine", "pusht"},
    "gate": {"machine", "rollout"},
    # "demos" and "pusht": an eye is trained on images that are drawn as demonstrations are.
    "train": {"data", "demos", "machine", "policies", "pusht", "rollout"},
    "demos": {"data", "machine", "policies", "pusht", "rollout"},
    "latency": {"machine", "policies", "pusht", "report", "zoo"},
    "report": {"gate", "machine", "pusht", "rollout", "train", "zoo"},
    "finished": {"gate", "report", "rollout"},
    "stress": {"gate", "latency", "machine", "policies", "pusht", "report", "rollout", "zoo"},
    "replay": {"policies", "pusht", "report", "rollout", "zoo"},
    "plugin": {
        "data",
        "gate",
        "latency",
        "machine",
        "policies",
        "pusht",
        "report",
        "rollout",
        "tokenizers",
        "zoo",
    },
    "suite": {
        *("data", "gate", "latency", "machine", "plugin", "policies", "report", "rollout"),
        *("stress", "tokenizers", "train", "zoo"),
    },
    "cli": {"demos", "finished", "latency", "machine", "replay", "report", "stress", "suite", "train", "zoo"},
}
MAY_IMPORT_PYTEST = {"plugin", "suite"}


def room_of(path: Path) -> str:
    """`il_bench/pusht/env.py` -> `pusht`, `il_bench/machine.py` -> `machine`."""
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
    """One line for each import in the source that its room must not make."""
    room, found = room_of(path), []
    may_know = MAY_KNOW.get(room, set()) | GROUND | {room}
    for name in imports(source, path):
        top, _, rest = name.partition(".")
        if top in {"pytest", "_pytest"} and room not in MAY_IMPORT_PYTEST:
            found.append(f"{room} imports {name}: only plugin and suite know pytest")
        if top != "il_bench" or not rest:
            continue
        known = rest.partition(".")[0]
        if known in MAY_KNOW and known not in may_know:
            found.append(f"{room} imports {name}: it may know {sorted(may_know - {room})}")
    return found


def module_imports(path: Path) -> set[str]:
    """The modules of il_bench that this one imports, at whatever time, as paths in the package."""
    found = set()
    for name in imports(path.read_text(encoding="utf-8"), path):
        parts = name.split(".")[1:] if name.startswith("il_bench.") else []
        for end in (len(parts), len(parts) - 1):
            module = PACKAGE.joinpath(*parts[:end]) if end > 0 else PACKAGE
            if end > 0 and module.with_suffix(".py").exists():
                found.add(str(module.with_suffix(".py").relative_to(PACKAGE)))
                break
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_modules_know_only_whom_they_may(path: Path) -> None:
    assert violations(path.read_text(encoding="utf-8"), path) == []


def test_every_room_has_its_rule() -> None:
    assert {room_of(path) for path in SOURCES} == set(MAY_KNOW)


def test_nothing_lies_loose_at_the_top() -> None:
    """Only what every room stands on, and the command."""
    loose = {path.name for path in PACKAGE.iterdir() if path.is_file()}
    assert loose == {f"{name}.py" for name in (*GROUND, "cli", "machine")} | {"py.typed"}


def test_no_two_classes_have_one_name() -> None:
    places: dict[str, list[str]] = {}
    for path in SOURCES:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef):
                places.setdefault(node.name, []).append(str(path.relative_to(PACKAGE)))
    assert {name: paths for name, paths in places.items() if len(paths) > 1} == {}


def test_the_rules_run_downwards() -> None:
    """No room knows one that knows it, however far around; `il_bench` itself only names what is public."""
    below = {room: known - {"__init__"} for room, known in MAY_KNOW.items() if room != "__init__"}
    list(TopologicalSorter(below).static_order())


def test_no_two_modules_import_each_other() -> None:
    graph = {str(path.relative_to(PACKAGE)): module_imports(path) for path in SOURCES}
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


@pytest.mark.parametrize(
    ("module", "source", "allowed"),
    [
        ("gate/stats.py", "import numpy", True),
        ("gate/stats.py", "from il_bench.errors import IlBenchError", True),
        ("tokenizers/bins.py", "from il_bench.gate import Decision", False),
        ("tokenizers/bins.py", "def late():\n    from .. import gate", False),
        ("pusht/env.py", "from .geometry import coverage", True),
        ("pusht/env.py", "from il_bench.pusht import geometry", True),
        ("pusht/env.py", "from ..rollout import Outcomes", False),
        ("policies/bet.py", "from il_bench.tokenizers.kmeans import KMeans", True),
        ("policies/bet.py", "import il_bench.train", False),
        ("gate/verdict.py", "import pytest", False),
        ("suite/test_success.py", "import pytest", True),
        ("report/table.py", "from il_bench.plugin.settings import OPTIONS", False),
        ("cli.py", "from il_bench import plugin", False),
    ],
)
def test_the_rules_tell_good_imports_from_bad(module: str, source: str, allowed: bool) -> None:
    assert (violations(source, PACKAGE / module) == []) is allowed
