"""The verdict on a finished run: against a target, or against an older run."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from il_bench.errors import IlBenchError
from il_bench.finished.runs import FinishedRun, FinishedTask
from il_bench.gate import Decision, GateResult, check_baseline, check_target, stats
from il_bench.gate.fixed import CONFIDENCE, Difference, TwoCounts, check_counts, compare, times_as_many
from il_bench.gate.power import MOST
from il_bench.protocol import MAX_EPISODES
from il_bench.rollout.metrics import DEFAULT_METRIC

RISK = 0.05
#: The row of several tasks together.
TOGETHER = "all tasks"


@dataclass(frozen=True)
class ComparedTask:
    """One task, or all together, in two runs. difference: None where the gate is sequential."""

    name: str
    new: FinishedTask
    old: FinishedTask
    result: GateResult
    difference: Difference | None


@dataclass(frozen=True)
class ComparedRuns:
    """A run against an older one.

    how: which tests, and why these. tasks: sorted by name; if they are several, all together come last.
    alone: tasks that only one of the runs has, and which. outlook: how many episodes would decide.
    """

    how: str
    alpha: float
    tasks: tuple[ComparedTask, ...]
    alone: Mapping[str, str]
    outlook: str = ""

    @property
    def overall(self) -> ComparedTask:
        """The only task, or all together."""
        return self.tasks[-1]

    @property
    def decision(self) -> Decision:
        """FAIL if a task fails or all together do, else what all together give."""
        failed = any(task.result.decision is Decision.FAIL for task in self.tasks)
        return Decision.FAIL if failed else self.overall.result.decision


def interval(task: FinishedTask) -> tuple[float, float]:
    """Return the 95 % interval of a task's success rate."""
    if task.stops_early and task.outcomes is not None:
        return stats.confidence_sequence(np.array(task.outcomes, np.float64), CONFIDENCE)
    return stats.clopper_pearson(task.successes, task.n, CONFIDENCE)


def together(run: FinishedRun) -> FinishedTask:
    """Return all tasks as one."""
    early = [task.name for task in run.tasks if task.stops_early]
    if len(run.tasks) == 1:
        return run.tasks[0]
    if early:
        raise IlBenchError(
            f"{run.path}: {early[0]} ended when its gates were decided; gate each task by itself"
        )
    return FinishedTask(TOGETHER, run.successes, run.n)


def mean_max_reward(run: FinishedRun) -> tuple[float, float, float]:
    """Return the mean of the best rewards and its 95 % interval; IlBenchError unless the file has them."""
    values = _max_rewards(run)
    if run.tasks[0].stops_early:
        ends = stats.confidence_sequence(values, CONFIDENCE)
    else:
        ends = stats.mean_interval(values, CONFIDENCE, np.random.default_rng(0))
    return float(values.mean()), *ends


def _max_rewards(run: FinishedRun) -> stats.Floats:
    """Return the best rewards of a run of one task (N,), in [0, 1]."""
    task = run.tasks[0]
    if len(run.tasks) > 1:
        raise IlBenchError(
            f"{run.path}: holds {len(run.tasks)} tasks; of several, only the success_rate is tested"
        )
    if task.max_rewards is None:
        raise IlBenchError(
            f"{run.path}: {task.name} holds no max_reward of each episode, so its mean_max_reward cannot be"
            " tested; give a file that has them, or a target for success_rate"
        )
    values = np.array(task.max_rewards, np.float64)
    if (wrong := values[(values < 0) | (values > 1)]).size:
        raise IlBenchError(
            f"{run.path}: {task.name} has a max_reward of {wrong[0]:g}; mean_max_reward is tested where"
            " rewards lie in [0, 1], as in PushT; give a target for success_rate"
        )
    return values


def against_target(
    run: FinishedRun, target: float, margin: float, metric: str = DEFAULT_METRIC
) -> GateResult:
    """Test the success rate over all tasks, or the mean best reward of one.

    No exact test is known for means: they keep the sequential one, of the first MAX_EPISODES episodes.
    """
    if metric != DEFAULT_METRIC:
        values = _max_rewards(run)[:MAX_EPISODES]
        return check_target(values, target=target, margin=margin, alpha=RISK, beta=RISK, metric=metric)
    task = together(run)
    if task.stops_early:
        values = np.array(task.outcomes, np.float64)[:MAX_EPISODES]
        return check_target(values, target=target, margin=margin, alpha=RISK, beta=RISK)
    return check_counts(task.successes, task.n, target=target, margin=margin, alpha=RISK, beta=RISK)


def against_run(
    new: FinishedRun, old: FinishedRun, margin: float, starts: tuple[int | None, int | None] = (None, None)
) -> ComparedRuns:
    """Compare task by task, and all together.

    starts: the first seeds of both runs, where the files hold no seeds; episode i then has seed start + i.
    """
    before = {task.name: _seeded(task, starts[1], old) for task in old.tasks}
    after = {task.name: _seeded(task, starts[0], new) for task in new.tasks}
    if len(before) == len(after) == 1:  # two runs of one task each are of the same, whatever they call it
        before = dict(zip(after, before.values(), strict=True))
    names = sorted(after.keys() & before.keys(), key=_natural)
    alone = dict.fromkeys(sorted(after.keys() - before.keys(), key=_natural), "only the new run has it")
    alone |= dict.fromkeys(sorted(before.keys() - after.keys(), key=_natural), "only the old run has it")
    if not names:
        raise IlBenchError(
            f"{new.path}, {old.path}: they have no task in common, such as {min(alone, key=_natural)}"
        )
    alpha = RISK / (len(names) + 1 if len(names) > 1 else 1)
    pairs = [(after[name], before[name]) for name in names]
    if any(task.stops_early for pair in pairs for task in pair):
        return _sequential(pairs[0], margin, new, old)
    reason = next(filter(None, (_unpairable(*pair) for pair in pairs)), None)
    strata = [_counts(*pair, is_paired=reason is None) for pair in pairs]
    found = [_compared(name, [counts], margin, alpha) for name, counts in zip(names, strata, strict=True)]
    if len(found) > 1:
        found.append(_compared(TOGETHER, strata, margin, alpha))
    how = (
        "paired by seed: McNemar's exact test"
        if reason is None
        else f"unpaired ({reason}): Fisher's exact test"
    )
    compared = ComparedRuns(f"{how}, Newcombe's interval", alpha, tuple(found), alone)
    if compared.decision is not Decision.INCONCLUSIVE:
        return compared
    factor = times_as_many(strata, margin=margin, alpha=alpha, beta=RISK)
    said = f"about {factor:.2g} times as many" if factor else f"more than {MOST:,}"
    return replace(compared, outlook=f"two new runs of {said} episodes would decide (4 times in 5)")


def _compared(name: str, strata: list[TwoCounts], margin: float, alpha: float) -> ComparedTask:
    result, difference = compare(strata, margin=margin, alpha=alpha, beta=RISK)
    new = FinishedTask(name, sum(each.new for each in strata), sum(each.n_new for each in strata))
    old = FinishedTask(name, sum(each.old for each in strata), sum(each.n_old for each in strata))
    return ComparedTask(name, new, old, result, difference)


def _seeded(task: FinishedTask, start: int | None, run: FinishedRun) -> FinishedTask:
    if start is None:
        return task
    if task.seeds is not None and task.seeds[0] != start:
        raise IlBenchError(
            f"{run.path}: its seeds begin at {task.seeds[0]}, not at {start}; leave the start seed out"
        )
    if task.outcomes is None:
        raise IlBenchError(
            f"{run.path}: {task.name} has counts, not outcomes, so no start seed can pair them"
        )
    seeds = task.seeds or tuple(range(start, start + task.n))
    return FinishedTask.of(task.name, task.outcomes, seeds=seeds, stops_early=task.stops_early)


def _unpairable(new: FinishedTask, old: FinishedTask) -> str | None:
    """Say why the episodes of a task are not pairs, None if they are."""
    if new.outcomes is None or old.outcomes is None:
        return "counts only"
    if new.seeds is None or old.seeds is None:
        return "no seeds in the files; give --start-seed and --against-start-seed"
    if new.n != old.n:
        return f"{new.n} episodes against {old.n}"
    return None if set(new.seeds) == set(old.seeds) else "other seeds"


def _counts(new: FinishedTask, old: FinishedTask, *, is_paired: bool) -> TwoCounts:
    lost = None
    if is_paired:
        before = dict(zip(old.seeds or (), old.outcomes or (), strict=True))
        pairs = zip(new.seeds or (), new.outcomes or (), strict=True)
        lost = sum(before[seed] and not success for seed, success in pairs)
    return TwoCounts(new.successes, new.n, old.successes, old.n, lost)


def _sequential(
    pair: tuple[FinishedTask, FinishedTask], margin: float, new: FinishedRun, old: FinishedRun
) -> ComparedRuns:
    """Compare runs of which one ended when its gates were decided: by evidence that allows for it."""
    values: list[Any] = []
    for task, run in zip(pair, (new, old), strict=True):
        if task.seeds is None or task.outcomes is None:
            raise IlBenchError(
                f"{run.path}: it holds no seeds, but the other run ended when its gates were decided, so only"
                " pairs can be compared; give the start seed, or run the other with --il-episodes"
            )
        values.append(dict(zip(task.seeds, task.outcomes, strict=True)))
    after, before = values
    seeds = sorted(after.keys() & before.keys())[:MAX_EPISODES]
    if not seeds:
        raise IlBenchError(f"{new.path}, {old.path}: they have no seed in common")
    columns = [np.array([each[seed] for seed in seeds], np.float64) for each in values]
    result = check_baseline(*columns, margin=margin, alpha=RISK, beta=RISK, seeds=seeds)
    parts = [FinishedTask.of(pair[0].name, [each[seed] for seed in seeds]) for each in values]
    how = (
        f"paired by {len(seeds)} shared seeds: a sequential test, as a run ended when its gates were decided"
    )
    return ComparedRuns(how, RISK, (ComparedTask(pair[0].name, parts[0], parts[1], result, None),), {})


def _natural(name: str) -> list[tuple[int, int, str]]:
    """Sort task 10 after task 9."""
    parts = re.findall(r"\d+|\D", name)
    return [(0, len(part.lstrip("0")), part) if part.isdecimal() else (1, 0, part) for part in parts]
