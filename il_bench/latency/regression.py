"""Has a policy become slower since a stored run? Sharper than a threshold, blunter than taking turns.

Even with the same fingerprint, two runs see different machines: other neighbours, another clock rate. So each
process also times a fixed piece of work between its blocks, the yardstick, and times are compared in units of
it. That removes most of a drift. But a busy machine slows some work more than other work, so the interval is
widened by how wrong the correction may be. A machine whose yardstick changed by more than SAME_SPEED is too
different, and gates nothing.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from operator import attrgetter
from pathlib import Path

import numpy as np

from il_bench.errors import IlBenchError
from il_bench.latency.compare import Rule, Speed, judge
from il_bench.latency.contenders import PROCESSES, Contender, load
from il_bench.latency.processes import Worker, pin_together
from il_bench.machine import differences
from il_bench.report import schema
from il_bench.report.rows import Stored

ROUNDS = 64
#: Standard deviation in log time between runs of the same call on one machine, beyond what processes show and
#: the yardstick removes. Two runs cannot show it, so it is assumed: 12 runs on a busy machine had 0.041 (bc)
#: and 0.036 (act).
RUN_SD = 0.04
#: How wrong the correction may be, as a standard deviation, in shares of the yardstick's own change.
CORRECTION_SD = 0.5
SAME_SPEED = 0.10  # in log time
RULE = Rule(margin=0.20, looks=(ROUNDS,))
YARDSTICK = "yardstick"  # the workers' name for it
#: Takes a name for the report and a contender, times it in warm processes, and returns its row.
Stopwatch = Callable[[str, Contender], Stored]


@contextmanager
def stopwatch() -> Iterator[Stopwatch]:
    """Start the processes that all contenders share, and end them afterwards."""
    with ExitStack() as stack:
        workers = [stack.enter_context(Worker()) for _ in range(PROCESSES)]
        for worker in workers:
            worker.greeting()
            worker.ask({"load": {"policy": None}, "key": YARDSTICK})
        yield partial(time_beside_yardstick, workers, np.random.default_rng())


def time_beside_yardstick(
    workers: Sequence[Worker], rng: np.random.Generator, name: str, contender: Contender
) -> Stored:
    """Time a contender, block by block beside the yardstick; return its row, not compared yet."""
    facts = load(workers, [contender] * len(workers), name)[0]
    keys = (YARDSTICK, name) if contender.clock == "processor" else (name,)
    medians: dict[str, list[list[float]]] = {key: [[] for _ in workers] for key in keys}
    if contender.clock == "processor":
        pin_together(workers)
    for _ in range(ROUNDS):
        for place in rng.permutation(len(workers)):
            for key, blocks in medians.items():
                seconds = np.median(workers[place].time_block(key, contender.clock))
                blocks[place].append(float(f"{seconds:.6g}"))
    kept = {key: tuple(map(tuple, blocks)) for key, blocks in medians.items()}
    return Stored(
        policy=name,
        what=contender.what,
        batch=contender.batch,
        device=contender.device,
        verdict="kept",
        clock=contender.clock,
        sha256=facts["sha256"],
        blocks=kept[name],
        yardstick=kept.get(YARDSTICK),
        machine=facts["machine"],
        versions=facts["versions"],
    )


def find(path: Path, now: Stored) -> Stored:
    """The row of a stored run for the same call as `now`; an IlBenchError if there is none."""
    rows, same_call = schema.load(path).comparisons, attrgetter("policy", "what", "batch", "device")
    for row in rows:
        if same_call(row) == same_call(now):
            return row
    kept = ", ".join(f"{row.policy} on {row.device}" for row in rows) or "nothing"
    raise IlBenchError(
        f"--il-compare: {path} keeps {kept}, but no times of {now.policy} on {now.device}; make it with "
        "--benchmark --il-keep-blocks"
    )


def against(then: Stored, now: Stored, path: Path) -> Stored:
    """`now` with its verdict against `then`, which gates only if machine and clock are the same.

    Times are compared in units of the yardstick if both rows have one.
    """
    differs = differences(*({**row.machine, "clock": row.clock} for row in (then, now)))
    moved = 0.0  # log of the yardstick's time over what it was
    a, b = np.asarray(then.blocks), np.asarray(now.blocks)
    if then.yardstick is not None and now.yardstick is not None:
        moved = math.log(float(np.median(now.yardstick)) / float(np.median(then.yardstick)))
        a, b = a / np.asarray(then.yardstick), b / np.asarray(now.yardstick)
    if abs(moved) > SAME_SPEED:
        differs.append(f"speed: the yardstick takes {math.exp(moved):.2f} times as long as it did")
    rule = replace(RULE, looks=(max(2, min(a.shape[1], b.shape[1])),))
    extra_sd = math.hypot(RUN_SD * math.sqrt(2.0), CORRECTION_SD * moved)
    found = judge(a, b, rule, paired=False, extra_sd=extra_sd)
    shown = {"verdict": found.verdict.value, "ratio": found.ratio, "low": found.low, "high": found.high}
    gate = {"against": str(path), "gate": not differs, "differs": tuple(differs)}
    return now.model_copy(update=shown | gate)


def problem(row: Stored) -> str | None:
    """The sentence that fails the run, or None."""
    if row.verdict != Speed.SLOWER or not row.gate or row.ratio is None:
        return None
    return (
        f"{row.policy}: slower than in {row.against}: {row.ratio:.3f} [{row.low:.3f}, {row.high:.3f}] times "
        f"its time ({row.what}, batch {row.batch}, {row.device})"
    )
