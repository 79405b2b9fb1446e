"""The list of faults fits what is installed, a planted fault is in effect, no survivor is overlooked."""

import importlib
import importlib.util
import re
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch

from benchmarks import faults
from benchmarks.faults import Ending, Fault, Planter, Recorder
from il_bench.errors import IlBenchError
from tests.benchmarks.conftest import Invoke

FAULTS = faults.read_faults()
A_FAULT = Fault("a fault", "il_bench.tokenizers.bins", "(indices.double() + 0.5)", "(indices.double() + 0.0)")


def source_of(module: str) -> Path:
    """The file of a module that need not be imported for it."""
    package, *rest = module.split(".")
    spec = importlib.util.find_spec(package)
    assert spec is not None and spec.submodule_search_locations
    return Path(*spec.submodule_search_locations, *rest).with_suffix(".py")


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_every_fault_fits_the_installed_source(fault: Fault) -> None:
    source = source_of(fault.module).read_text(encoding="utf-8")
    planted = fault.planted_in(source)
    assert planted != source
    compile(planted, fault.module, "exec")


def test_names_are_unique() -> None:
    names = [fault.name for fault in FAULTS]
    assert len(set(names)) == len(names) >= 30


def test_tests_to_run_first_exist() -> None:
    ids = [
        f"{path.name}::{name}"
        for path in (faults.ROOT / faults.TESTS).glob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    ]
    assert [part for fault in FAULTS for part in fault.first if not any(part in one for one in ids)] == []


@pytest.mark.parametrize(("old", "times"), [("no such text", 0), ("self", 24)])
def test_a_list_that_is_out_of_date_says_so(old: str, times: int) -> None:
    with pytest.raises(IlBenchError, match=rf"'a fault'.* occurs {times} times in il_bench.tokenizers.bins"):
        replace(A_FAULT, old=old).planted_in("self " * times)


def imported_anew(module: str) -> ModuleType:
    """As the planter's finder has it imported; ``sys.modules`` keeps the one without a fault."""
    planter = Planter(A_FAULT)
    spec = planter.find_spec(module, [str(source_of(module).parent)])
    assert spec is not None and spec.loader is not None
    again = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(again)
    assert planter.used
    return again


def test_a_planted_fault_is_in_effect_and_the_file_stays_as_it_was() -> None:
    before = source_of(A_FAULT.module).read_bytes()
    import il_bench.tokenizers.bins as whole

    decoded = []
    for module in (whole, imported_anew(A_FAULT.module)):
        tokenizer = module.UniformBinsTokenizer(2, (1, 1))
        tokenizer.fit(torch.tensor([[[0.0]], [[8.0]]]))
        decoded.append(tokenizer.decode(torch.tensor([[0], [1]])).flatten().tolist())
    assert decoded == [[2.0, 6.0], [0.0, 4.0]]
    assert source_of(A_FAULT.module).read_bytes() == before


def test_once_installed_an_import_has_the_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("victim", "bystander"):
        (tmp_path / f"{name}.py").write_text("def nearest(distances): return min(distances)")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "meta_path", sys.meta_path.copy())
    for name in ("victim", "bystander"):
        monkeypatch.setitem(sys.modules, name, None)  # to be taken out again afterwards
        del sys.modules[name]
    planter = Planter(Fault("farthest", "victim", "min(", "max("))
    planter.install()
    bystander, used_before = importlib.import_module("bystander"), planter.used
    victim = importlib.import_module("victim")
    assert (bystander.nearest([1, 2]), victim.nearest([1, 2])) == (1, 2)
    assert (used_before, planter.used) == (False, True)
    assert [path.name for path in tmp_path.rglob("*.pyc") if "victim" in path.name] == []


def test_a_module_that_is_imported_already_is_refused() -> None:
    with pytest.raises(IlBenchError, match=r"il_bench\.errors is imported already"):
        Planter(replace(A_FAULT, module="il_bench.errors")).install()


TESTS_THAT_PASS = """
import pytest

def test_slow(): pass
def test_quick(): pass
@pytest.mark.xfail(strict=True)
def test_known_bug(): assert not WORKS
"""


def recorded(pytester: pytest.Pytester, source: str, **known: object) -> Recorder:
    pytester.makepyfile(source)
    pytester._monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # which would take a second
    recorder = Recorder(**known)  # type: ignore[arg-type]
    pytester.inline_run("-p", "no:cacheprovider", plugins=[recorder])
    return recorder


@pytest.mark.parametrize(
    ("source", "how", "test"),
    [
        ("WORKS = True" + TESTS_THAT_PASS, faults.SURVIVED, ""),
        ("WORKS = False" + TESTS_THAT_PASS, faults.ONLY_XPASS, "test_known_bug"),
        ("WORKS = False" + TESTS_THAT_PASS + "def test_it(): assert False", faults.KILLED, "test_it"),
        ("import no_such_module" + TESTS_THAT_PASS, faults.NOT_RUN, ""),
        ("", faults.NOT_RUN, ""),
    ],
    ids=["nothing fails", "expected failure passes", "a test fails", "not importable", "no test"],
)
def test_what_kills_a_fault(pytester: pytest.Pytester, source: str, how: str, test: str) -> None:
    found = faults.verdict(recorded(pytester, source), used=True)
    assert (found[0], found[1].rpartition("::")[2]) == (how, test)


def test_a_fault_in_a_module_that_nothing_imports_is_not_killed(pytester: pytest.Pytester) -> None:
    recorder = recorded(pytester, "def test_broken_anyway(): assert False")
    assert faults.verdict(recorder, used=False)[0] == faults.NOT_IMPORTED


def test_hinted_tests_run_first_then_short_ones_and_the_first_failure_ends_it(
    pytester: pytest.Pytester,
) -> None:
    source = "".join(f"def test_{name}(): assert {name!r} != 'c'\n" for name in "abcd")
    name = "test_hinted_tests_run_first_then_short_ones_and_the_first_failure_ends_it.py::test_"
    recorder = recorded(pytester, source, first=("test_d",), seconds={name + "a": 2.0, name + "b": 0.1})
    assert [node.removeprefix(name) for node in recorder.took] == ["d", "c"]


@pytest.mark.parametrize(
    ("how", "status"), [(faults.KILLED, 0), (faults.SURVIVED, 1), (faults.ONLY_XPASS, 1), (faults.NO_END, 1)]
)
def test_a_survivor_is_named_and_fails_the_run(
    monkeypatch: pytest.MonkeyPatch, invoke: Invoke, how: str, status: int
) -> None:
    def ending(tests: str, fault: Fault | None, seconds: dict[str, float]) -> Ending:
        if fault is None:
            return Ending(faults.SURVIVED, "", 1.0, "", {"test_x": 1.0})
        ended = how if fault is FAULTS[0] else faults.KILLED
        return Ending(ended, "tests/tokenizers/test_x.py::test_y", 1.0, "", {})

    monkeypatch.setattr(faults, "try_fault", ending)
    monkeypatch.setattr(faults, "read_faults", lambda: FAULTS[:3])
    result = invoke(faults.main)
    assert result.exit_code == status
    assert "test_x.py::test_y" in result.output
    assert (f"Not killed: {FAULTS[0].name}" in result.output) is bool(status)


def test_tests_that_fail_without_a_fault_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = Ending(faults.KILLED, "test_x", 1.0, "what pytest says", {})
    monkeypatch.setattr(faults, "try_fault", lambda *_: broken)
    with pytest.raises(IlBenchError, match=r"Without any fault .* must pass; test_x does not"):
        faults.main(only=None, jobs=1, tests="tests", verbose=False)


def test_a_choice_that_matches_nothing_is_an_error() -> None:
    with pytest.raises(IlBenchError, match="No fault's name or module contains quantum"):
        faults.select(FAULTS, ["quantum"])
