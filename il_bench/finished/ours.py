"""Our own files of finished runs: a row of report.json, and what `il-bench evaluate --output` writes."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from il_bench.errors import IlBenchError, printable, wrong_field
from il_bench.finished.runs import WAY_OUT, FinishedTask
from il_bench.protocol import CONTEXT
from il_bench.report import schema

_EARLY = "confidence sequence"


def row_of(path: Path, policy: str | None) -> FinishedTask:
    """Return the episodes of one policy of a report; `policy` may be left out where there is only one."""
    report = [row for row in schema.load(path).success if row.policy not in CONTEXT or row.policy == policy]
    policies = [row.policy for row in report]
    rows = {
        row.policy if policies.count(row.policy) == 1 else f"{row.policy}.{row.track}": row for row in report
    }
    names = ", ".join(rows) or "none"
    if policy is None and len(rows) != 1:
        raise IlBenchError(f"{path}: holds {len(rows)} policies ({names}); name one with --policy")
    if policy is not None and policy not in rows:
        raise IlBenchError(f"{path}: --policy {printable(policy)}: it holds {names}")
    row = next(iter(rows.values())) if policy is None else rows[policy]
    early = row.interval == _EARLY
    episodes = sorted(row.episodes, key=lambda each: each.seed)
    if episodes:
        outcomes, seeds = [each.success for each in episodes], tuple(each.seed for each in episodes)
        rewards = tuple(each.max_reward for each in episodes)
        return FinishedTask.of(row.policy, outcomes, seeds=seeds, stops_early=early, max_rewards=rewards)
    if early:
        raise IlBenchError(
            f"{path}: {row.policy}.episodes were taken out, and without them a run that ended when its gates"
            " were decided cannot be gated again; give the whole report"
        )
    return _counted(path, row.policy, row.success_rate.estimate, row.n_episodes)


class _Rate(BaseModel):
    model_config = ConfigDict(strict=True)

    estimate: Annotated[float, Field(ge=0, le=1)]


class _Evaluation(BaseModel):
    """The fields that count; others are none of ours."""

    model_config = ConfigDict(strict=True)

    policy: str = ""
    success_rate: _Rate
    n_episodes: Annotated[int, Field(ge=0, lt=2**31)]
    interval: Literal["Clopper-Pearson"] = "Clopper-Pearson"


def evaluation_of(path: Path, fields: dict[str, Any]) -> FinishedTask:
    """Return the counts of an evaluation."""
    try:
        found = _Evaluation.model_validate(fields)
    except ValidationError as error:
        raise IlBenchError(f"{path}: {wrong_field(error)}; {WAY_OUT}") from None
    return _counted(path, found.policy or path.stem, found.success_rate.estimate, found.n_episodes)


def _counted(path: Path, name: str, rate: float, n: int) -> FinishedTask:
    k = round(rate * n)
    if abs(rate * n - k) > 1e-6 * max(n, 1):
        raise IlBenchError(
            f"{path}: success_rate.estimate = {rate:g} is not a whole number of successes out of "
            f"n_episodes = {n}; evaluate again"
        )
    return FinishedTask(printable(name), k, n)
