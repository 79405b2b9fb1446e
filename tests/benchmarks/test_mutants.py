"""The arguments for surviving mutants fit the source, and no survivor without one is overlooked."""

import ast
from pathlib import Path

import pytest

from benchmarks import mutants
from benchmarks.mutants import Argument, Mutant
from il_bench.errors import IlBenchError
from tests.benchmarks.conftest import Invoke

ARGUED = mutants.read_arguments()
SHOWN = """# il_bench.tokenizers.bins.xǁUniformBinsTokenizerǁfit__mutmut_1: survived
--- il_bench/tokenizers/bins.py
+++ il_bench/tokenizers/bins.py
@@ -1,4 +1,4 @@
-def fit(self, chunks, *, seed=0):
+def fit(self, chunks, *, seed=1):
     # Nothing is random.
-    self.fitted.fill_(True)
+    self.fitted.fill_(False)
"""
NAMES = {
    "il_bench.tokenizers.bins.xǁUniformBinsTokenizerǁfit__mutmut_1": "bins.UniformBinsTokenizer.fit",
    "il_bench.tokenizers.nearest.x_nearest_in_float64__mutmut_12": "nearest.nearest_in_float64",
    "il_bench.tokenizers.residual_tables.xǁEncoderTablesǁof__mutmut_3": "residual_tables.EncoderTables.of",
}


def source_of(function: str) -> str:
    module, *names = function.split(".")
    path = mutants.ROOT / "il_bench" / "tokenizers" / f"{module}.py"
    source = path.read_text(encoding="utf-8")
    found: ast.AST = ast.parse(source)
    for name in names:
        (found,) = (each for each in getattr(found, "body", []) if getattr(each, "name", None) == name)
    return ast.get_source_segment(source, found) or ""


@pytest.mark.parametrize("mutant", ARGUED, ids=lambda mutant: f"{mutant.function}: {mutant.new}")
def test_every_argued_mutant_is_of_the_source_as_it_is(mutant: Mutant) -> None:
    lines = [line.strip() for line in source_of(mutant.function).splitlines()]
    assert mutant.old != mutant.new
    assert [line for line in mutant.old.splitlines() if line not in lines] == []


def test_every_argument_says_why_and_functions_are_found_in_mutmuts_names() -> None:
    assert [mutant for mutant, argument in ARGUED.items() if len(argument.why.split()) < 3] == []
    assert {name: mutants.function_of(name) for name in NAMES} == NAMES


def test_a_mutant_is_what_its_diff_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mutants, "mutmut", lambda *arguments: SHOWN)
    name = next(iter(NAMES))
    assert mutants.mutant(name) == Mutant(
        "bins.UniformBinsTokenizer.fit",
        "def fit(self, chunks, *, seed=0):\nself.fitted.fill_(True)",
        "def fit(self, chunks, *, seed=1):\nself.fitted.fill_(False)",
    )


@pytest.mark.parametrize(
    ("endings", "argued", "status"),
    [
        (("killed", "killed"), False, 0),
        (("survived", "killed"), True, 0),
        (("survived", "killed"), False, 1),
        (("killed", "timeout"), True, 1),
        (("killed", "no tests"), False, 1),
        (("killed", "segfault"), False, 0),
    ],
)
def test_what_is_not_killed_must_be_argued(
    monkeypatch: pytest.MonkeyPatch, invoke: Invoke, endings: tuple[str, str], argued: bool, status: int
) -> None:
    first, second, _ = NAMES
    printed = "".join(f"    {name}: {how}\n" for name, how in zip((first, second), endings, strict=True))
    monkeypatch.setattr(
        mutants, "mutmut", lambda *arguments, **_: printed if arguments[0] == "results" else SHOWN
    )
    survivor = mutants.mutant(first)
    argument = {survivor: Argument("speed", "It is slower, that is all.")} if argued else {}
    monkeypatch.setattr(mutants, "read_arguments", lambda: argument)
    result = invoke(mutants.main, "--no-run")
    assert result.exit_code == status, result.output
    assert ("NOT ARGUED" in result.output) is bool(status)


def test_an_argument_for_a_mutant_that_is_noticed_goes(
    monkeypatch: pytest.MonkeyPatch, invoke: Invoke
) -> None:
    monkeypatch.setattr(mutants, "mutmut", lambda *arguments, **_: f"    {next(iter(NAMES))}: killed\n")
    noticed = Mutant("bins.UniformBinsTokenizer.fit", "a", "b")
    monkeypatch.setattr(mutants, "read_arguments", lambda: {noticed: Argument("speed", "It is slower.")})
    result = invoke(mutants.main, "--no-run")
    assert result.exit_code == 1
    assert "argued, but it did not survive; take it out of mutants.toml" in result.output


def test_no_mutants_at_all_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mutants, "mutmut", lambda *arguments, **_: "nothing here\n")
    with pytest.raises(IlBenchError, match=r"mutmut names no mutant of il_bench\.tokenizers"):
        mutants.endings()


@pytest.mark.parametrize(
    ("kind", "listed", "said"),
    [
        ("luck", "[]", "kind 'luck'; give one of equiv"),
        ("speed", '[["x", "y"], ["x", "y"]]', "a.b has 'y' for 'x' twice"),
    ],
)
def test_a_list_that_is_wrong_says_so(tmp_path: Path, kind: str, listed: str, said: str) -> None:
    path = tmp_path / "mutants.toml"
    path.write_text(f'[[argument]]\nfunction = "a.b"\nkind = "{kind}"\nwhy = ""\nmutants = {listed}')
    with pytest.raises(IlBenchError, match=said):
        mutants.read_arguments(path)


def test_a_run_that_fails_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = tmp_path / "mutmut"
    broken.write_text("#!/bin/sh\necho no such thing\nexit 3\n")
    broken.chmod(0o755)
    monkeypatch.setattr(mutants, "MUTMUT", broken)
    with pytest.raises(IlBenchError, match=r"mutmut results failed with exit status 3\. no such thing"):
        mutants.mutmut("results")
