"""`eval_info.json`, as `lerobot-eval` writes it.

    {"per_task": [{"task_group": "pusht", "task_id": 0, "metrics": {"successes": [true, ..], ..}}, ..],
     "per_group": {"pusht": {"pc_success": 90.0, "n_episodes": 10, ..}}, "overall": {..}}

Newer versions than 0.6.1 add `n_success` and `pc_success_ci95` to every part, and to tasks what groups have.
Older ones than 0.4 knew one task: `per_episode`, with seeds, and `aggregated`.
"""

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from il_bench.errors import IlBenchError, wrong_field
from il_bench.finished.runs import WAY_OUT, FinishedRun, FinishedTask, rewards_of

FORM = "LeRobot's eval_info.json"
#: Percent: who rounds a rate rounds it to a digit.
_ROUNDED = 0.051


Seed = Annotated[int, Field(ge=0, lt=2**63)]


def _flag(value: Any) -> Any:
    return bool(value) if type(value) in (int, float) and value in (0, 1) else value


class _Counted(BaseModel):
    """What LeRobot says of a task, a group or all; other fields are none of ours."""

    model_config = ConfigDict(strict=True, frozen=True)

    n_episodes: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    n_success: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    pc_success: float | None = None

    def counts(self, place: str) -> tuple[int, int] | None:
        """Return successes and episodes, None where it does not say; raise ValueError if it is wrong."""
        if self.n_episodes is None:
            return None
        k = self.n_success
        if k is None and self.pc_success is not None and self.pc_success == self.pc_success:
            k = round(min(max(self.pc_success, 0.0), 100.0) / 100 * self.n_episodes)
        if k is None:
            return None
        self.agree(k, self.n_episodes, place)
        return k, self.n_episodes

    def agree(self, k: int, n: int, place: str) -> None:
        """Raise ValueError unless it says that `k` of `n` episodes succeed, or nothing."""
        if self.n_episodes not in (None, n):
            raise ValueError(f"{place}.n_episodes = {self.n_episodes}, but there are {n}")
        if self.n_success not in (None, k) or k > n:
            raise ValueError(f"{place}.n_success = {self.n_success}, but {k} of {n} episodes succeed")
        if self.pc_success is not None and n and not abs(self.pc_success - 100 * k / n) < _ROUNDED:
            raise ValueError(f"{place}.pc_success = {self.pc_success:g}, but {k} of {n} episodes succeed")


class _Metrics(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True)

    successes: list[Annotated[bool, BeforeValidator(_flag)]]
    seeds: list[Seed] | None = None  # il_bench's files have these two, LeRobot's do not
    stops_early: bool = False
    max_rewards: Any = None

    def task(self, name: str, place: str) -> FinishedTask:
        """Return the episodes. Raises ValueError unless each seed is there once."""
        seeds = None if self.seeds is None else tuple(self.seeds)
        if seeds is not None and (len(seeds), len(set(seeds))) != (len(self.successes),) * 2:
            raise ValueError(f"{place}.seeds: need one for each of {len(self.successes)} episodes, each once")
        rewards = rewards_of(self.max_rewards, len(self.successes))
        return FinishedTask.of(
            name, self.successes, seeds=seeds, stops_early=self.stops_early, max_rewards=rewards
        )


class _Task(_Counted):
    task_group: str = ""
    task_id: int | str = 0
    metrics: _Metrics | None = None

    def task(self, place: str) -> FinishedTask:
        """Return its episodes. Raises ValueError if it says nothing of them, or contradicts itself."""
        name = f"{self.task_group}/{self.task_id}" if self.task_group else str(self.task_id)
        if self.metrics is not None:
            self.agree(sum(self.metrics.successes), len(self.metrics.successes), place)
            return self.metrics.task(name, f"{place}.metrics")
        if (counts := self.counts(place)) is None:
            raise ValueError(f"{place}: neither metrics.successes nor n_success and n_episodes")
        return FinishedTask(name, *counts)


class _EvalInfo(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True)

    per_task: list[_Task] = []
    per_group: dict[str, _Counted] = {}
    overall: _Counted | None = None


class _OldEpisode(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True)

    success: Annotated[bool, BeforeValidator(_flag)]
    seed: Seed | None = None
    max_reward: Any = None


class _OldEvalInfo(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True)

    per_episode: list[_OldEpisode]
    aggregated: _Counted | None = None


def run_of(path: Path, fields: dict[str, Any]) -> FinishedRun:
    """Take the fields of the file at `path`; IlBenchError names the one that is wrong."""
    try:
        tasks = _old(fields) if "per_episode" in fields else _tasks(_EvalInfo.model_validate(fields))
    except ValidationError as error:
        raise IlBenchError(f"{path}: {wrong_field(error)}; {WAY_OUT}") from None
    except ValueError as error:
        raise IlBenchError(f"{path}: {error}; it was changed by hand, evaluate again") from None
    return FinishedRun(FORM, tuple(tasks), path)


def _tasks(info: _EvalInfo) -> list[FinishedTask]:
    tasks = [each.task(f"per_task.{i}") for i, each in enumerate(info.per_task)]
    names = [task.name for task in tasks]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"per_task holds {twice} twice")
    if not tasks:
        counts = info.overall and info.overall.counts("overall")
        if not counts:
            raise ValueError("per_task is empty, and overall has no n_episodes and pc_success")
        return [FinishedTask("all", *counts)]
    for group, part in info.per_group.items():
        of_group = [task for task, each in zip(tasks, info.per_task, strict=True) if each.task_group == group]
        part.agree(sum(t.successes for t in of_group), sum(t.n for t in of_group), f"per_group.{group}")
    if info.overall is not None:
        info.overall.agree(sum(t.successes for t in tasks), sum(t.n for t in tasks), "overall")
    return tasks


def _old(fields: dict[str, Any]) -> list[FinishedTask]:
    info = _OldEvalInfo.model_validate(fields)
    outcomes = [each.success for each in info.per_episode]
    seeds = tuple(each.seed for each in info.per_episode if each.seed is not None)
    if len(set(seeds)) < len(seeds):
        raise ValueError("per_episode: a seed occurs twice")
    if info.aggregated is not None:
        info.aggregated.agree(sum(outcomes), len(outcomes), "aggregated")
    kept = seeds if len(seeds) == len(outcomes) > 0 else None
    rewards = rewards_of([each.max_reward for each in info.per_episode], len(outcomes))
    return [FinishedTask.of("all", outcomes, seeds=kept, max_rewards=rewards)]
