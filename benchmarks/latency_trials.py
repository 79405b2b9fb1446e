"""Is the latency gate quiet, and is it sharp? Trials of `il-bench compare`'s rule, hundreds, on this machine.

In a trial A is timed against A, or against A made 10 % slower: each of its calls is held until it has taken
1.1 times its time. Nothing else differs, so "faster" or "slower" of A against A is false, and so is anything
but "slower" or "inconclusive" of the planted one. Everything is as `il-bench compare` does it but for the
processes: they stay warm, and every trial draws anew which of them play A and which B, so that how they
differ is drawn anew as well; now and then one is replaced by a fresh one. All of it quiet, and again while
another process multiplies matrices for as long as it gets a core.

Beside it the rule of pytest-benchmark, `--benchmark-compare-fail=mean:10%`, by pytest-benchmark itself: a
warm process that has the policy loaded is forked, and the fork is a whole pytest run. A's results are saved,
and each run is compared with the last that was, seconds before; between two CI jobs there are days. Forks of
one process share its memory layout: that, too, spares this rule part of the noise.

Each trial is a line of --output; an interrupted run goes on where it was. Exits 1 where a claim fails.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from il_bench.errors import IlBenchError
from il_bench.gate import stats
from il_bench.latency.compare import Rule, TimeBlock, compare
from il_bench.latency.contenders import KEY, PROCESSES, Contender, load
from il_bench.latency.processes import BLOCK_SECONDS, Worker, pin_together

SAME, PLANTED = 1.0, 1.1  # times A's time
POOL = 2 * PROCESSES + 4
FRESH_EVERY = 40  # trials, after which one process of the pool is replaced
TRIAL_SECONDS = 20.0
FOREIGN = 4  # warm processes for pytest-benchmark
FOREIGN_SECONDS = 0.3  # its --benchmark-max-time
FORKED = Path(__file__).parent / "forked_pytest.py"
LOAD = """
import numpy
a = numpy.random.default_rng(0).random((700, 700))
while True:
    a = a @ a
    a /= a.max()
"""


class Part(StrEnum):
    """What can be run apart."""

    QUIET = "quiet"
    LOADED = "loaded"
    FOREIGN = "pytest-benchmark"
    FOREIGN_LOADED = "pytest-benchmark-loaded"


class Results:
    """The trials so far, in a file that grows by a line a trial."""

    def __init__(self, path: Path, about: dict[str, Any]) -> None:
        """Go on with the file; it must be of trials like these."""
        self._path = path
        self.trials: list[dict[str, Any]] = []
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.write_text(json.dumps(about) + "\n", encoding="utf-8")
        first, *lines = path.read_text(encoding="utf-8").splitlines()
        if json.loads(first) != about:
            sys.exit(f"{path}: trials of other settings ({first}); give another --output")
        self.trials = [json.loads(line) for line in lines]

    def add(self, **trial: Any) -> None:
        """Keep a trial."""
        self.trials.append(trial)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(trial) + "\n")

    def of(self, part: Part, stretch: float) -> list[dict[str, Any]]:
        """The trials of a part whose B took so many times A's time."""
        return [t for t in self.trials if t["part"] == part.value and t["stretch"] == stretch]

    def missing(self, part: Part, equal: int, planted: int, rng: np.random.Generator) -> list[float]:
        """The `stretch` of B in each trial that is still to be run, mixed."""
        wanted = {SAME: equal, PLANTED: planted}
        left = [stretch for stretch, n in wanted.items() for _ in range(n - len(self.of(part, stretch)))]
        return [float(stretch) for stretch in rng.permutation(left)]


class Pool:
    """Warm processes with the policy loaded."""

    def __init__(self, stack: ExitStack, contender: Contender, size: int) -> None:
        """Start them; they end with the stack."""
        self._stack, self._contender, self._oldest = stack, contender, 0
        self.workers: list[Worker] = []
        self.started = 0
        self.workers = self._fresh(size)

    def _fresh(self, n: int) -> list[Worker]:
        found = [self._stack.enter_context(Worker()) for _ in range(n)]
        for worker in found:
            worker.greeting()
        load(found, [self._contender] * n)
        self.started += n
        return found

    def renew(self) -> None:
        """Replace the oldest."""
        self.workers[self._oldest].close()
        self.workers[self._oldest : self._oldest + 1] = self._fresh(1)
        self._oldest = (self._oldest + 1) % len(self.workers)

    def draw(self, rng: np.random.Generator, stretch: float) -> tuple[list[TimeBlock], list[TimeBlock]]:
        """Processes for A and for B, drawn from the pool."""
        pin_together(self.workers)  # the core that is quietest now
        drawn = [self.workers[place] for place in rng.permutation(len(self.workers))[: 2 * PROCESSES]]

        def timed(workers: list[Worker], stretch: float) -> list[TimeBlock]:
            clock = self._contender.clock
            return [partial(worker.time_block, KEY, clock, stretch=stretch) for worker in workers]

        return timed(drawn[:PROCESSES], SAME), timed(drawn[PROCESSES:], stretch)


@contextmanager
def load_on_a_core() -> Iterator[None]:
    """Keep one core busy."""
    process = subprocess.Popen([sys.executable, "-c", LOAD], env=dict(os.environ, OMP_NUM_THREADS="1"))
    try:
        yield
    finally:
        process.kill()
        process.wait()


def ours(
    part: Part, results: Results, todo: list[float], contender: Contender, rng: np.random.Generator
) -> None:
    """Trials by the rule of `il-bench compare`."""
    with ExitStack() as stack:
        pool = Pool(stack, contender, POOL)
        stack.enter_context(load_on_a_core() if part is Part.LOADED else nullcontext())
        for number, stretch in enumerate(todo):
            if number and number % FRESH_EVERY == 0:
                pool.renew()
            start = time.monotonic()
            found = compare(*pool.draw(rng, stretch), Rule(), rng, seconds=TRIAL_SECONDS)
            results.add(
                part=part.value,
                stretch=stretch,
                verdict=found.verdict.value,
                ratio=round(found.ratio, 4),
                interval=[round(found.low, 4), round(found.high, 4)],
                rounds=found.rounds,
                process_sd=[round(each, 4) for each in found.process_sd],
                noise=round(found.noise, 3),
                seconds=round(time.monotonic() - start, 2),
                processes=pool.started,
            )
            say(part, number + 1, len(todo), results)


def foreign(
    part: Part, results: Results, todo: list[float], contender: Contender, rng: np.random.Generator
) -> None:
    """Trials by pytest-benchmark's rule: each run is compared with the last one that was saved."""
    with ExitStack() as stack:
        storage = stack.enter_context(tempfile.TemporaryDirectory())
        command = (sys.executable, "-W", "ignore", str(FORKED), contender.policy, str(FOREIGN_SECONDS))
        servers = [stack.enter_context(Worker(command=command)) for _ in range(FOREIGN)]
        for server in servers:
            server.greeting()
        stack.enter_context(load_on_a_core() if part is Part.FOREIGN_LOADED else nullcontext())

        def run(stretch: float, *options: str) -> bool:
            server = servers[rng.integers(len(servers))]
            return bool(server.ask({"stretch": stretch, "storage": storage, "options": options})["regressed"])

        run(SAME, "--benchmark-save=a")
        for number, stretch in enumerate(todo):
            start = time.monotonic()
            saving = ["--benchmark-save=a"] if stretch == SAME else []
            regressed = run(stretch, "--benchmark-compare", "--benchmark-compare-fail=mean:10%", *saving)
            seconds = round(time.monotonic() - start, 2)
            verdict = "slower" if regressed else "passed"
            results.add(part=part.value, stretch=stretch, verdict=verdict, seconds=seconds)
            say(part, number + 1, len(todo), results)


def say(part: Part, done: int, of: int, results: Results) -> None:
    """Say now and then how far it is."""
    if done % 20 and done != of:
        return
    counts = [
        f"{name} {dict(Counter(t['verdict'] for t in results.of(part, stretch)))}"
        for name, stretch in (("A/A", SAME), ("+10 %", PLANTED))
    ]
    print(f"{part.value}: {done} of {of}; {'; '.join(counts)}", flush=True)


def upper(k: int, n: int) -> float:
    """The exact upper 95 % bound of a rate."""
    return stats.clopper_pearson(k, n, 0.90)[1] if n else 1.0


def table_of(results: Results) -> Table:
    """A row for each part and each truth."""
    columns = ("slower", "faster", "equivalent", "inconclusive", "false", "upper 95 %", "median s")
    table = Table("rule", "machine", "B is", "trials", *columns)
    for part in Part:
        is_foreign = part in (Part.FOREIGN, Part.FOREIGN_LOADED)
        rule = "mean:10%" if is_foreign else "il-bench compare"
        machine = "one core loaded" if part in (Part.LOADED, Part.FOREIGN_LOADED) else "quiet"
        for stretch, truth in ((SAME, "A"), (PLANTED, "10 % slower")):
            trials = results.of(part, stretch)
            if not trials:
                continue
            counts, n = Counter(t["verdict"] for t in trials), len(trials)
            wrong = false_verdicts(trials, stretch)
            cells = [
                str(counts[v]) if not is_foreign or v == "slower" else "-"
                for v in ("slower", "faster", "equivalent", "inconclusive")
            ]
            seconds = float(np.median([t["seconds"] for t in trials]))
            table.add_row(
                rule, machine, truth, str(n), *cells, str(wrong), f"{upper(wrong, n):.2%}", f"{seconds:.1f}"
            )
    return table


def false_verdicts(trials: list[dict[str, Any]], stretch: float) -> int:
    """How many of the verdicts are false; what pytest-benchmark lets pass of a slowdown is one."""
    false = {"slower", "faster"} if stretch == SAME else {"faster", "equivalent", "passed"}
    return sum(t["verdict"] in false for t in trials)


def claims(results: Results) -> list[tuple[str, bool]]:
    """What is claimed of our rule, and whether these trials hold it up."""
    found = []
    equal, planted = results.of(Part.QUIET, SAME), results.of(Part.QUIET, PLANTED)
    if equal and planted:
        slower = sum(t["verdict"] == "slower" for t in equal)
        bound = upper(slower, len(equal))
        found.append(
            (f'"slower" of A against A: {slower} of {len(equal)}, at most {bound:.2%}', bound <= 0.02)
        )
        hits = sum(t["verdict"] == "slower" for t in planted)
        found.append((f"a slowdown of 10 % found: {hits} of {len(planted)}", hits >= 0.95 * len(planted)))
    equal, planted = results.of(Part.LOADED, SAME), results.of(Part.LOADED, PLANTED)
    if equal and planted:
        every = equal + planted
        wrong = false_verdicts(equal, SAME) + false_verdicts(planted, PLANTED)
        bound = upper(wrong, len(every))
        found.append(
            (
                f"false verdicts with a core loaded: {wrong} of {len(every)}, at most {bound:.2%}",
                wrong <= 0.01 * len(every),
            )
        )
        decided = sum(t["verdict"] != "inconclusive" for t in every)
        found.append((f"decided with a core loaded: {decided} of {len(every)}", decided >= 0.5 * len(every)))
    return found


def main(
    part: Annotated[list[Part] | None, typer.Option(help="Only this; repeat it for several.")] = None,
    policy: Annotated[str, typer.Option(help="What is timed.")] = "bc",
    equal: Annotated[int, typer.Option(min=0, help="Trials of A against A, a part.")] = 300,
    planted: Annotated[int, typer.Option(min=0, help="Trials of A against A + 10 %, a part.")] = 100,
    output: Annotated[Path, typer.Option(help="A line a trial; goes on where it ended.")] = Path(
        "runs/latency_trials.jsonl"
    ),
    seed: Annotated[int, typer.Option(min=0, help="Of the draws.")] = 0,
) -> None:
    """Run what is missing of the trials and print the tables."""
    contender = Contender(policy)
    about = {"policy": policy, "block_seconds": BLOCK_SECONDS, "processes": PROCESSES, "rule": vars(Rule())}
    results = Results(output, json.loads(json.dumps(about)))
    start = time.monotonic()
    for number, each in enumerate(Part):
        if part and each not in part:
            continue
        rng = np.random.default_rng([seed, number, len(results.trials)])
        # Beside a load, fewer: of the other rule it is enough to see that it does no better.
        share = {Part.LOADED: 2, Part.FOREIGN_LOADED: 3}.get(each, 1)
        todo = results.missing(each, equal // share, planted // share, rng)
        if not todo:
            continue
        try:
            if each in (Part.QUIET, Part.LOADED):
                ours(each, results, todo, contender, rng)
            else:
                foreign(each, results, todo, contender, rng)
        except IlBenchError as error:
            sys.exit(f"{each.value}: {error}; what is finished is in {output}")
    console = Console(width=150)
    console.print(table_of(results))
    found = claims(results)
    for claim, holds in found:
        console.print(f"{'holds' if holds else 'DOES NOT HOLD'}: {claim}", highlight=False)
    console.print(f"{policy}, new chunk, batch 1; {time.monotonic() - start:.0f} s", highlight=False)
    raise typer.Exit(not all(holds for _, holds in found))


if __name__ == "__main__":
    typer.run(main)
