"""Do the tokenizers' tests notice every mutant that mutmut makes of il_bench/tokenizers?

Runs mutmut, as pyproject.toml configures it, in mutants/. Then it looks every survivor up in mutants.toml,
where it is argued why no test can tell it from the original, or should. Exit status 1 if one is
not there, or if one is there that did not survive.

mutmut changes one expression of one function at a time. It leaves alone what is outside of functions, and
functions with a decorator, of which the planted faults (faults.py) have some.
"""

import re
import shutil
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.faults import ROOT, run
from il_bench.errors import IlBenchError

LIST = Path(__file__).with_suffix(".toml")
WORK = ROOT / "mutants"
MUTMUT = Path(sys.executable).with_name("mutmut")
PACKAGE = "il_bench.tokenizers."

KILLED, SURVIVED = "killed", "survived"
# A test run that crashes is noticed; one that takes too long may only have been on a busy machine.
NOTICED = (KILLED, "segfault")
KINDS = ("equivalent", "speed", "text", "margin", "default")


@dataclass(frozen=True)
class Mutant:
    """One change: ``new`` lines for the ``old`` ones of ``function`` (module.Class.name), not indented."""

    function: str
    old: str
    new: str


@dataclass(frozen=True)
class Argument:
    """Why a mutant may survive. kind: one of KINDS, as mutants.toml explains them."""

    kind: str
    why: str


def read_arguments(path: Path = LIST) -> dict[Mutant, Argument]:
    """The survivors that are argued in ``path``.

    Raises:
        IlBenchError: for a kind that there is not, and for a mutant that is there twice.
    """
    found: dict[Mutant, Argument] = {}
    for group in tomllib.loads(path.read_text(encoding="utf-8"))["argument"]:
        if group["kind"] not in KINDS:
            raise IlBenchError(f"{path.name}: kind {group['kind']!r}; give one of {', '.join(KINDS)}.")
        for old, new in group["mutants"]:
            mutant = Mutant(group["function"], old, new)
            if mutant in found:
                raise IlBenchError(f"{path.name}: {mutant.function} has {new!r} for {old!r} twice.")
            found[mutant] = Argument(group["kind"], group["why"])
    return found


def mutmut(*arguments: str, show: bool = False) -> str:
    """What mutmut prints.

    Raises:
        IlBenchError: with its last lines, where it fails.
    """
    done = subprocess.run(
        [MUTMUT, *arguments], cwd=ROOT, stdout=None if show else subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        last = "\n".join((done.stdout or "").splitlines()[-20:])
        raise IlBenchError(f"mutmut {' '.join(arguments)} failed with exit status {done.returncode}. {last}")
    return done.stdout or ""


def endings() -> dict[str, str]:
    """Of each mutant, by mutmut's name, how it ended in mutmut's words."""
    lines = re.findall(r"^ +(\S+): (.+)$", mutmut("results", "--all", "true"), re.MULTILINE)
    found = {name: status for name, status in lines if name.startswith(PACKAGE)}
    if not found:
        raise IlBenchError(f"mutmut names no mutant of {PACKAGE}; let it run first, or look at its version.")
    return found


def mutant(name: str) -> Mutant:
    """What mutmut calls ``name``, out of the diff that it shows."""
    lines = [line for line in mutmut("show", name).splitlines() if not line.startswith(("---", "+++", "#"))]
    old, new = ("\n".join(line[1:].strip() for line in lines if line.startswith(sign)) for sign in "-+")
    return Mutant(function_of(name), old, new)


def function_of(name: str) -> str:
    """``module.Class.function`` of mutmut's name for a mutant."""
    module, _, mangled = name.removeprefix(PACKAGE).rpartition(".")
    mangled = mangled.partition("__mutmut_")[0]
    parts = mangled.removeprefix("xǁ").split("ǁ") if "ǁ" in mangled else [mangled.removeprefix("x_")]
    return ".".join([module, *parts])


def table_of(statuses: dict[str, str], argued: dict[Mutant, Argument], alive: Iterable[Mutant]) -> Table:
    """Mutants by module: how many, killed, and survivors by what is argued."""
    counts: dict[str, Counter[str]] = {}
    for name, status in statuses.items():
        count = counts.setdefault(function_of(name).partition(".")[0], Counter())
        count.update(["mutants", status])
    for each in alive:
        kind = argued[each].kind if each in argued else "not argued"
        counts[each.function.partition(".")[0]][kind] += 1
    columns = ["mutants", KILLED, *KINDS, "not argued"]
    columns += sorted(set(statuses.values()) - {KILLED, SURVIVED})
    table = Table("module", *columns, title="mutmut over il_bench/tokenizers")
    for module, count in [*counts.items(), ("all", sum(counts.values(), Counter()))]:
        table.add_row(module, *[str(count[column]) for column in columns])
    return table


def main(
    again: Annotated[bool, typer.Option(help="Keep what an interrupted run has found.")] = False,
    start: Annotated[
        bool, typer.Option("--run/--no-run", help="Run mutmut first; without, judge what it found before.")
    ] = True,
    jobs: Annotated[int, typer.Option(min=1, help="Mutants tried at the same time.")] = 1,
    verbose: Annotated[bool, typer.Option(help="Print every survivor with its argument.")] = False,
) -> None:
    """Make mutants and see which no test notices."""
    argued = read_arguments()
    if start:
        if not again:
            shutil.rmtree(WORK, ignore_errors=True)
        mutmut("run", "--max-children", str(jobs), show=True)
    statuses = endings()
    alive = [mutant(name) for name, status in statuses.items() if status not in NOTICED]
    Console(width=160).print(table_of(statuses, argued, alive))
    for each in alive:
        argument = argued.get(each)
        if verbose or argument is None:
            said = f"{argument.kind}: {argument.why}" if argument else "NOT ARGUED"
            print(f"\n{each.function}: {said}\n- {each.old}\n+ {each.new}")
    stale = argued.keys() - set(alive)
    for each in stale:
        print(f"\n{each.function}: argued, but it did not survive; take it out of {LIST.name}\n+ {each.new}")
    missing = sum(each not in argued for each in alive)
    if missing:
        print(f"{missing} survivors are not argued in {LIST.name}.")
    if missing or stale:
        raise typer.Exit(1)


if __name__ == "__main__":
    run(main)
