"""Did a policy become slower since a stored run? Sharper than a threshold, blunter than taking turns.

Two runs see different machines even where the fingerprint is the same: another neighbour, another clock rate.
So each process also times a fixed piece of work between the blocks, the yardstick, and what is compared is
time in units of it. That takes most of a drift out. But a busy machine slows one kind of work more than
another, so the interval is widened by how wrong the correction may be. A machine whose yardstick moved by
more than SAME_SPEED is not in the state that it was in, and gates nothing.
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

ROUNDS = 64
#: Standard deviation in log time between runs of the same thing on one machine, beyond what processes show
#: and the yardstick takes out. Two runs cannot show it. So it is assumed: in 12 runs on a busy machine it was
#: 0.041 (bc) and 0.036 (act).
RUN_SD = 0.04
#: Share of the yardstick's own change by which the correction may be wrong, as a standard deviation.
CORRECTION_SD = 0.5
SAME_SPEED = 0.10  # in log time
RULE = Rule(margin=0.20, looks=(ROUNDS,))
YARDSTICK = "yardstick"  # what workers call it
#: Times a contender, which the report calls by a name, in warm processes: its row, not compared yet.
Stopwatch = Callable[[str, Contender], schema.Stored]


@contextmanager
def stopwatch() -> Iterator[Stopwatch]:
    """Start the processes, which all contenders share, and end them."""
    with ExitStack() as stack:
        workers = [stack.enter_context(Worker()) for _ in range(PROCESSES)]
        for worker in workers:
            worker.greeting()
            worker.ask({"load": {"policy": None}, "key": YARDSTICK})
        yield partial(time_beside_yardstick, workers, np.random.default_rng())


def time_beside_yardstick(
    workers: Sequence[Worker], rng: np.random.Generator, name: str, contender: Contender
) -> schema.Stored:
    """Time a contender, block by block beside the yardstick; IlBenchError where it cannot be timed."""
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
    return schema.Stored(
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


def find(path: Path, now: schema.Stored) -> schema.Stored:
    """The row of a stored run that is about the same call as `now`; an IlBenchError where there is none."""
    rows, same_call = schema.load(path).comparisons, attrgetter("policy", "what", "batch", "device")
    for row in rows:
        if same_call(row) == same_call(now):
            return row
    kept = ", ".join(f"{row.policy} on {row.device}" for row in rows) or "nothing"
    raise IlBenchError(
        f"--il-compare: {path} keeps {kept}, and no times of {now.policy} on {now.device}; make it with "
        "--benchmark --il-keep-blocks"
    )


def against(then: schema.Stored, now: schema.Stored, path: Path) -> schema.Stored:
    """`now` with its verdict against `then`, which gates only where machine and clock are the same.

    What is compared is time in units of the yardstick where both have one.
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


def problem(row: schema.Stored) -> str | None:
    """The sentence that fails a run; None where it passes."""
    if row.verdict != Speed.SLOWER or not row.gate or row.ratio is None:
        return None
    return (
        f"{row.policy}: slower than in {row.against}: {row.ratio:.3f} [{row.low:.3f}, {row.high:.3f}] times "
        f"its time ({row.what}, batch {row.batch}, {row.device})"
    )
