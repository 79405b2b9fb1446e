"""Do the tokenizers' property tests notice a broken quantizer?

Plants the faults listed in faults.toml one at a time, in il_bench's tokenizers and in what they stand on
(LeRobot's and vector-quantize-pytorch's quantizers), runs tests/tokenizers, and prints which test failed
first. A fault that no test notices survives; exit status 1 if one does.

No file is touched: a fault is put into a module's source while that is imported, in a process of its own.
Those processes are forked from one that has the big libraries loaded, hypothesis is made repeatable and told
not to shrink, and the tests that each fault names run first.
"""

import multiprocessing
import os
import sys
import tempfile
import time
import tomllib
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from multiprocessing.connection import Connection
from pathlib import Path
from types import CodeType, ModuleType
from typing import Annotated

import pytest
import typer
from rich.console import Console
from rich.table import Table

from il_bench.errors import IlBenchError

ROOT = Path(__file__).parent.parent
LIST = Path(__file__).with_suffix(".toml")
TESTS = "tests/tokenizers"
REPEATABLE = "benchmarks.repeatable"

# What takes long to import and no fault is planted in; LeRobot and what is tested come after the fork.
PRELOADED = [
    *("torch", "torch._dynamo", "torchvision", "datasets", "diffusers.models.transformers"),
    *("diffusers.models.unets", "av", "cv2", "draccus", "einops", "einx", "loguru", "gymnasium", "pygame"),
    *("hypothesis.extra.numpy", "pandas", "scipy.stats", "sklearn.cluster"),
]

# How a fault can end. Only the first is as it should be.
KILLED = "killed"
SURVIVED = "SURVIVED"
ONLY_XPASS = "ONLY XPASS"  # an expected failure passed, no other test failed: no property noticed
NOT_IMPORTED = "NOT IMPORTED"  # the tests do not use the module at all
NOT_RUN = "NOT RUN"  # the tests could not be collected: the fault is a typing error, no test
NO_END = "NO END"  # the tests went on for so long that they were stopped

PATIENCE = 1800  # seconds for one fault, or ten times what the tests take without one


@dataclass(frozen=True)
class Fault:
    """One error in one quantizer.

    name: unique. module: dotted name of the module it is planted in. old: a text that occurs exactly once in
    the module's source. new: what stands there instead. first: parts of the ids of the tests to run first.
    """

    name: str
    module: str
    old: str
    new: str
    first: tuple[str, ...] = ()

    def planted_in(self, source: str) -> str:
        """The module's source with the fault.

        Raises:
            IlBenchError: where ``old`` does not occur exactly once.
        """
        found = source.count(self.old)
        if found != 1:
            raise IlBenchError(
                f"Fault {self.name!r}: its old text occurs {found} times in {self.module}, not once; "
                f"bring {LIST.name} up to date with that module."
            )
        return source.replace(self.old, self.new)


def read_faults(path: Path = LIST) -> list[Fault]:
    """The faults listed in ``path``, whose tables are modules."""
    modules = tomllib.loads(path.read_text(encoding="utf-8"))["module"]
    return [
        Fault(one["name"], module["name"], one["old"], one["new"], tuple(one.get("first", module["first"])))
        for module in modules
        for one in module["fault"]
    ]


# In the process that is forked for one fault.


class Planter(MetaPathFinder):
    """Import hook that imports one module with a fault in it; ``used`` says whether that has happened."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        self.used = False

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Let the usual finder find the module, and change only how its source is read."""
        if fullname != self.fault.module:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.origin is not None:
            spec.loader = PlantedLoader(self, fullname, spec.origin)
        return spec

    def install(self) -> None:
        """From now on the module is imported with the fault.

        Raises:
            IlBenchError: where the module has been imported already.
        """
        if self.fault.module in sys.modules:
            raise IlBenchError(f"{self.fault.module} is imported already; no fault can be planted in it.")
        sys.meta_path.insert(0, self)


class PlantedLoader(SourceFileLoader):
    """Compiles the changed source, and neither reads nor writes cached bytecode."""

    def __init__(self, planter: Planter, fullname: str, path: str) -> None:
        super().__init__(fullname, path)
        self.planter = planter

    def get_code(self, fullname: str) -> CodeType:
        """The module's code with the fault."""
        self.planter.used = True
        source = Path(self.path).read_text(encoding="utf-8")
        return compile(self.planter.fault.planted_in(source), self.path, "exec", dont_inherit=True)


@dataclass(eq=False)  # pytest wants its plugins hashable
class Recorder:
    """A pytest plugin: runs likely tests first, stops at the first failure, remembers it.

    first: parts of ids of tests to run first. seconds: of each test without a fault; short ones run early.
    """

    first: tuple[str, ...] = ()
    seconds: dict[str, float] = field(default_factory=dict)
    failed: str | None = None
    passed_unexpectedly: str | None = None
    not_collected: bool = False
    took: dict[str, float] = field(default_factory=dict)

    def pytest_collection_modifyitems(self, session: pytest.Session, items: list[pytest.Item]) -> None:
        """Sort the tests."""
        self._session = session

        def key(item: pytest.Item) -> tuple[int, float]:
            hints = (place for place, part in enumerate(self.first) if part in item.nodeid)
            return next(hints, len(self.first)), self.seconds.get(item.nodeid, 0.0)

        items.sort(key=key)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """A test module that cannot be imported."""
        self.not_collected |= report.failed

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Remember the first failure and stop there; an expected failure that passed is none."""
        self.took[report.nodeid] = self.took.get(report.nodeid, 0.0) + report.duration
        if not report.failed:
            return
        if str(report.longrepr).startswith("[XPASS(strict)]"):
            self.passed_unexpectedly = self.passed_unexpectedly or report.nodeid
        elif self.failed is None:
            self.failed = report.nodeid
            self._session.shouldstop = "a test noticed the fault"


@dataclass(frozen=True)
class Ending:
    """How a fault ended, the test that says so, seconds, what pytest said, seconds of each test that ran."""

    how: str
    test: str
    seconds: float
    output: str
    took: dict[str, float]


def run_tests(tests: str, fault: Fault | None, recorder: Recorder, answer: Connection, output: str) -> None:
    """Run the tests with ``fault``; sends how it ended, the test, and the seconds of each."""
    with open(output, "w", encoding="utf-8") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.chdir(ROOT)
    try:
        planter = Planter(fault) if fault else None
        if planter:
            planter.install()
        # Assertions as they are: rewriting them costs more than collecting the tests.
        options = ["-q", "-p", "no:cacheprovider", "-p", REPEATABLE, "--tb=short", "--assert=plain"]
        pytest.main([tests, *options], plugins=[recorder])
        answer.send((*verdict(recorder, used=not planter or planter.used), recorder.took))
    except BaseException:
        traceback.print_exc()
        answer.send((NOT_RUN, "", {}))


def verdict(recorder: Recorder, *, used: bool) -> tuple[str, str]:
    """How a fault ended and the test that says so."""
    if recorder.not_collected or not recorder.took:
        return NOT_RUN, ""
    if not used:
        return NOT_IMPORTED, ""
    if recorder.failed is not None:
        return KILLED, recorder.failed
    if recorder.passed_unexpectedly is not None:
        return ONLY_XPASS, recorder.passed_unexpectedly
    return SURVIVED, ""


# In the process that the user started.


def try_fault(tests: str, fault: Fault | None, seconds: dict[str, float]) -> Ending:
    """Fork a process, plant ``fault`` there, wait for the tests, which take ``seconds`` each without it."""
    context = multiprocessing.get_context("forkserver")
    limit = max(PATIENCE, 10 * sum(seconds.values()))
    recorder = Recorder(fault.first if fault else (), seconds)
    start = time.perf_counter()
    with tempfile.NamedTemporaryFile("r", suffix=".log", encoding="utf-8") as output:
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=run_tests, args=(tests, fault, recorder, theirs, output.name))
        process.start()
        theirs.close()
        try:
            if ours.poll(limit):
                how, test, took = ours.recv()
            else:
                process.terminate()
                how, test, took = NO_END, "", {}
            process.join()
        except EOFError:
            process.join()
            how, test, took = KILLED, f"(the process died, exit code {process.exitcode})", {}
        return Ending(how, test, time.perf_counter() - start, output.read(), took)


def try_all(
    tests: str, faults: list[Fault], seconds: dict[str, float], jobs: int
) -> Iterator[tuple[Fault, Ending]]:
    """Every fault with its ending, as they end, ``jobs`` at a time."""
    with ThreadPoolExecutor(jobs) as pool:
        running = {pool.submit(try_fault, tests, fault, seconds): fault for fault in faults}
        for future in as_completed(running):
            yield running[future], future.result()


def table_of(faults: list[Fault], endings: dict[str, Ending]) -> Table:
    """The faults in the order of the list."""
    table = Table(title=f"{len(faults)} planted faults, one at a time")
    for column in ("fault", "where", "killed by", "s"):
        table.add_column(column, overflow="fold")
    for fault in faults:
        ending = endings[fault.name]
        package, *_, module = fault.module.split(".")
        words = [] if ending.how == KILLED else [ending.how]
        found = " ".join([*words, ending.test.removeprefix(f"{TESTS}/")])
        table.add_row(fault.name, f"{package}: {module}", found, f"{ending.seconds:.0f}")
    return table


def select(faults: list[Fault], only: list[str]) -> list[Fault]:
    """The faults whose name or module contains one of ``only``, an IlBenchError if none does; all without."""
    chosen = [f for f in faults if not only or any(part in f.name or part in f.module for part in only)]
    if not chosen:
        raise IlBenchError(f"No fault's name or module contains {' or '.join(only)}; see {LIST.name}.")
    return chosen


def prepare(scratch: str) -> None:
    """Say what the processes to come load before they are forked, and how they compute.

    scratch: a folder for what hypothesis stores.
    """
    os.environ.update({"OMP_NUM_THREADS": "1", "SDL_VIDEODRIVER": "dummy", "HF_HUB_OFFLINE": "1"})
    os.environ.update({"PYTHONWARNINGS": "ignore", "HYPOTHESIS_STORAGE_DIRECTORY": scratch})
    multiprocessing.get_context("forkserver").set_forkserver_preload(PRELOADED)


def main(
    only: Annotated[list[str] | None, typer.Option(help="Faults whose name or module contains this.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Faults tried at the same time.")] = 1,
    tests: Annotated[str, typer.Option(help="The tests that are to notice.")] = TESTS,
    verbose: Annotated[bool, typer.Option(help="Print what pytest says to each.")] = False,
) -> None:
    """Plant every fault and see which test notices."""
    faults = select(read_faults(), only or [])
    start = time.perf_counter()
    whole = try_fault(tests, None, {})
    if whole.how != SURVIVED:
        print(whole.output)
        raise IlBenchError(f"Without any fault {tests} must pass; {whole.test or 'it'} does not.")
    print(f"{len(whole.took)} tests pass without a fault, in {whole.seconds:.0f} s.", flush=True)
    endings: dict[str, Ending] = {}
    for fault, ending in try_all(tests, faults, whole.took, jobs):
        endings[fault.name] = ending
        progress = f"{len(endings)}/{len(faults)}"
        print(f"{progress} {fault.name}: {ending.how} {ending.test}, {ending.seconds:.0f} s", flush=True)
        if verbose or ending.how == NOT_RUN:
            print(ending.output)
    Console(width=180).print(table_of(faults, endings))
    survivors = [name for name, ending in endings.items() if ending.how != KILLED]
    print(f"{len(faults) - len(survivors)} of {len(faults)} killed in {time.perf_counter() - start:.0f} s.")
    if survivors:
        print("Not killed: " + "; ".join(sorted(survivors)))
        raise typer.Exit(1)


def run(command: Callable[..., None]) -> None:
    """Run a command line; an error is one sentence."""
    try:
        typer.run(command)
    except IlBenchError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        prepare(scratch)
        run(main)
