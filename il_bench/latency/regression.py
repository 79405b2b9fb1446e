"""Did a policy become slower since a stored run? Sharper than a threshold, blunter than taking turns.

Two runs see different machines even where the fingerprint is the same: another neighbour, another clock rate,
another hour. Each process therefore times a fixed piece of work between the blocks, the yardstick, and what
is compared is time in units of it. That takes most of a drift out. But a busy machine slows one kind of work
more than another, so the interval is widened by how wrong the correction itself may be. A machine whose
yardstick moved by more than SAME_SPEED is not in the state that it was in, and gates nothing.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from il_bench.errors import IlBenchError
from il_bench.latency.compare import Comparison, Rule, Speed, judge
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


class Stopwatch:
    """Times policies in warm processes, which all policies share."""

    def __init__(self, workers: Sequence[Worker]) -> None:
        self._workers = workers
        self._rng = np.random.default_rng()
        for worker in workers:
            worker.greeting()
            worker.ask({"load": {"policy": None}, "key": YARDSTICK})

    def time(self, name: str, contender: Contender) -> schema.Stored:
        """The row of a policy that the report calls `name`, not compared with anything yet.

        Raises:
            IlBenchError: the policy cannot be timed.
        """
        facts = load(self._workers, [contender] * len(self._workers), name)[0]
        clock: Literal["processor", "wall"] = "processor" if contender.clock == "processor" else "wall"
        blocks: list[list[float]] = [[] for _ in self._workers]  # medians
        yardstick: list[list[float]] = [[] for _ in self._workers]
        if clock == "processor":
            pin_together(self._workers)
        for _ in range(ROUNDS):
            for place in self._rng.permutation(len(self._workers)):
                for key, medians in ((YARDSTICK, yardstick), (name, blocks)):
                    if clock == "processor" or key != YARDSTICK:
                        seconds = np.median(self._workers[place].time_block(key, clock))
                        medians[place].append(float(f"{seconds:.6g}"))
        return schema.Stored(
            policy=name,
            what=contender.what,
            batch=contender.batch,
            device=contender.device,
            verdict="kept",
            clock=clock,
            sha256=facts["sha256"],
            blocks=tuple(map(tuple, blocks)),
            yardstick=tuple(map(tuple, yardstick)) if clock == "processor" else None,
            machine=facts["machine"],
            versions=facts["versions"],
        )


@contextmanager
def stopwatch() -> Iterator[Stopwatch]:
    """Start the processes, and end them."""
    with ExitStack() as stack:
        yield Stopwatch([stack.enter_context(Worker()) for _ in range(PROCESSES)])


def find(path: Path, now: schema.Stored) -> schema.Stored:
    """The row of a stored run that is about the same call as `now`.

    Raises:
        IlBenchError: the file is no report.json, or its run kept no such row.
    """
    rows = schema.load(path).comparisons
    keys = ("policy", "what", "batch", "device")
    for row in rows:
        if all(getattr(row, key) == getattr(now, key) for key in keys):
            return row
    kept = ", ".join(f"{row.policy} on {row.device}" for row in rows) or "nothing"
    raise IlBenchError(
        f"--il-compare: {path} keeps {kept}, and no times of {now.policy} on {now.device}; make it with "
        "--benchmark --il-keep-blocks"
    )


def against(then: schema.Stored, now: schema.Stored, path: Path) -> schema.Stored:
    """`now` with its verdict against `then`, which gates only where machine and clock are the same."""
    differs = differences(*({**row.machine, "clock": row.clock} for row in (then, now)))
    moved = yardstick_change(then, now)
    if abs(moved) > SAME_SPEED:
        differs.append(f"speed: the yardstick takes {math.exp(moved):.2f} times as long as it did")
    found = compare_runs(then, now)
    return now.model_copy(
        update={
            "verdict": found.verdict.value,
            "ratio": found.ratio,
            "low": found.low,
            "high": found.high,
            "against": str(path),
            "gate": not differs,
            "differs": tuple(differs),
        }
    )


def compare_runs(then: schema.Stored, now: schema.Stored) -> Comparison:
    """The time of `now` over that of `then`, in units of the yardstick where both have one."""
    both = then.yardstick is not None and now.yardstick is not None
    extra_sd = math.hypot(RUN_SD * math.sqrt(2.0), CORRECTION_SD * yardstick_change(then, now))
    a, b = (np.asarray(row.blocks) / (np.asarray(row.yardstick) if both else 1.0) for row in (then, now))
    rule = replace(RULE, looks=(max(2, min(a.shape[1], b.shape[1])),))
    return judge(a, b, rule, paired=False, extra_sd=extra_sd)


def yardstick_change(then: schema.Stored, now: schema.Stored) -> float:
    """Log of the yardstick's time over what it was; 0 where there is none."""
    if then.yardstick is None or now.yardstick is None:
        return 0.0
    return math.log(float(np.median(now.yardstick)) / float(np.median(then.yardstick)))


def problem(row: schema.Stored) -> str | None:
    """The sentence that fails a run; None where it passes."""
    if row.verdict != Speed.SLOWER or not row.gate or row.ratio is None:
        return None
    return (
        f"{row.policy}: slower than in {row.against}: {row.ratio:.3f} [{row.low:.3f}, {row.high:.3f}] times "
        f"its time ({row.what}, batch {row.batch}, {row.device})"
    )
