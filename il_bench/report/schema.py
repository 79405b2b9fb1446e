"""report.json: the machine's view of a run. Every other view is made from it."""

import math
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import ConfigDict, Field, ValidationError, model_validator

from il_bench.errors import IlBenchError, wrong_field
from il_bench.files import parse_json, read_whole, write_whole, writing
from il_bench.gate import Decision
from il_bench.gate.baselines import Track
from il_bench.gate.measured import GatedMetric
from il_bench.gate.sequential import LostAndWon
from il_bench.report.rows import (
    Count,
    Interval,
    Latency,
    ReportPart,
    Share,
    Stored,
    Text,
    Throughput,
    TokenizerRow,
)
from il_bench.rollout.metrics import METRICS
from il_bench.rollout.outcomes import Episode, Outcomes

SCHEMA: Final[Literal[1]] = 1
_AGAIN: Final = "make the report again"


class TargetResult(ReportPart):
    """A declared target and the gate's decision.

    told: what the episodes show, and how many more would decide. source: where the value comes from.
    """

    metric: GatedMetric
    value: Share
    margin: Share
    required: bool
    decision: Decision
    evidence: dict[str, float]
    told: Text = ""
    source: Text | None = None


class BaselineResult(ReportPart):
    """The comparison with the measured baseline: the first `n` episodes decided it.

    was, now: the metric of the baseline's episodes and the new ones, over all seeds that both have.
    lost, won: the seeds whose value is lower now, and higher.
    told: the same in words, and how many more episodes would decide.
    accepted: whether FAIL does not fail the run (--il-accept-regression). margin: the loss that PASS rules
        out; None in older reports.
    """

    decision: Decision
    n: Count
    evidence: dict[str, float]
    told: Text = ""
    margin: Share | None = None
    was: Share | None = None
    now: Share | None = None
    lost: tuple[Count, ...] = ()
    won: tuple[Count, ...] = ()
    accepted: bool = False

    @property
    def beside(self) -> LostAndWon | None:
        """Both policies side by side; older reports have none."""
        if self.was is None or self.now is None:
            return None
        return LostAndWon(self.was, self.now, self.lost, self.won)


class OnKeypoints(ReportPart):
    """What seeing costs: a policy on images beside its name's baseline on keypoints, on the same `n` seeds.

    keypoints, pixels: the success rates. lost, won: how many seeds only the one on keypoints solves, and only
    the one on images. p: how probable so uneven a split is if both were equally good (McNemar's exact test).
    """

    n: Count
    keypoints: Share
    pixels: Share
    lost: Count
    won: Count
    p: Share


class Success(ReportPart):
    """How good one policy is.

    track: ``keypoints`` or ``pixels`` of PushT, or a project's environment, where mean_max_reward is the
        success_rate. decision: the target's. sha256: None for untrained weights. seconds: wall time.
    metrics: by name, without those that no episode has a value of.
    interval: the kind of the 95 % intervals, see `gate.verdict.Verdict.sequential`.
    share_outside: share of the actions that lie outside [0, 512] px; they are not clipped.
    on_keypoints: of a policy on images whose name has a baseline on keypoints, on test seeds.
    """

    policy: Text
    track: Track
    data: Text
    checkpoint: Text
    sha256: Text | None
    parameters: Count
    decision: Decision
    target: TargetResult | None
    baseline: BaselineResult | None
    n_episodes: Count
    success_rate: Interval
    mean_max_reward: Interval
    metrics: dict[str, Interval] = Field({})
    interval: Literal["confidence sequence", "Clopper-Pearson"] = "Clopper-Pearson"
    share_outside: Share
    seconds: Annotated[float, Field(ge=0.0)]
    episodes: tuple[Episode, ...]
    on_keypoints: OnKeypoints | None = None

    @model_validator(mode="after")
    def _intervals_within_the_metrics_range(self) -> Self:
        for name, metric in METRICS.items():
            low, high = metric.low, float("inf") if metric.high is None else metric.high
            for place, interval in (
                (name, getattr(self, name, None)),
                (f"metrics.{name}", self.metrics.get(name)),
            ):
                for field, value in interval or ():
                    if not low <= value <= high:
                        raise ValueError(f"{place}.{field} = {value}: need a number in [{low:g}, {high:g}]")
        return self

    @model_validator(mode="after")
    def _numbers_follow(self) -> Self:
        """A file that was edited by hand is no report: its numbers must be those of its episodes."""
        if not self.episodes:
            return self  # taken out to make the file small: nothing to compare with
        found = Outcomes.from_records([episode.model_dump() for episode in self.episodes])
        numbers = {
            "n_episodes": (self.n_episodes, found.n),
            "share_outside": (self.share_outside, found.share_outside),
        }
        for name, metric in METRICS.items():
            for place, interval in (
                (name, getattr(self, name, None)),
                (f"metrics.{name}", self.metrics.get(name)),
            ):
                if interval is not None:
                    numbers[f"{place}.estimate"] = interval.estimate, metric.estimate(found)
                    numbers[f"{place}.low"] = interval.low, min(interval.low, metric.estimate(found))
                    numbers[f"{place}.high"] = interval.high, max(interval.high, metric.estimate(found))
        for place, (said, true) in numbers.items():
            if not math.isclose(said, true, rel_tol=1e-9, abs_tol=1e-9):
                raise ValueError(
                    f"{place} is {said:.6g}, but its episodes give {true:.6g}: it was changed by hand"
                )
        return self

    @model_validator(mode="after")
    def _decisions_follow(self) -> Self:
        """The row's decision is its target's, and no decision contradicts its evidence."""
        decision = Decision.NOT_GATED if self.target is None else self.target.decision
        if self.decision != decision:
            raise ValueError(f"decision is {self.decision}, but its target gives {decision}")
        for name, gate in (("target", self.target), ("baseline", self.baseline)):
            if gate is not None and (said := _contradiction(gate.decision, gate.evidence)):
                raise ValueError(f"{name}.decision is {gate.decision}, but {said}: it was changed by hand")
        return self

    def measured(self, metric: str) -> Interval | None:
        """Return a metric by its name, or None; older reports have no `metrics`."""
        found: Interval | None = self.metrics.get(metric) or getattr(self, metric, None)
        return found


def _contradiction(decision: Decision, evidence: dict[str, float]) -> str | None:
    """Say how a decision contradicts the evidence of its gate, None if it does not."""
    for kind, decisions in (("fail", (Decision.FAIL, Decision.BELOW_TARGET)), ("pass", (Decision.PASS,))):
        if kind in evidence and f"{kind}_at" in evidence:
            reached = evidence[kind] >= evidence[f"{kind}_at"]
            if decision in decisions and not reached:
                return f"its evidence does not reach evidence.{kind}_at"
            if decision is Decision.INCONCLUSIVE and reached:
                return f"its evidence reaches evidence.{kind}_at"
    return None


class Stress(ReportPart):
    """How good one policy is while one thing is changed, at several levels, on the same seeds each time.

    arm, about, unit: what is changed, in words, and what a level counts. levels: rising in severity; the
    undisturbed episodes come before them in `success`, `success_rate`, `mean_max_reward` and `endings`.
    seeds: the first and the last. success: "1" or "0" for each seed. success_rate: with Clopper-Pearson's
    interval. difference: of each level to the undisturbed, paired by seed, with its bootstrap interval.
    area: under the curve of success over the levels, each step to the next one counted alike.
    targets: by level, written as in "0.5", the targets that baselines.json declares, and their decisions.
    """

    ORDER: ClassVar[tuple[str, ...]] = ("policy", "track", "arm")

    policy: Text
    track: Track
    sha256: Text | None
    arm: Text
    about: Text
    unit: Text
    levels: tuple[float, ...]
    seeds: tuple[Count, Count]
    n_episodes: Count
    success: tuple[Annotated[str, Field(pattern="^[01]+$")], ...]
    success_rate: tuple[Interval, ...]
    difference: tuple[Interval, ...]
    mean_max_reward: tuple[Share, ...]
    endings: tuple[dict[str, Count], ...] = ()
    area: Interval
    targets: dict[str, TargetResult] = Field({})

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        n = len(self.levels)
        if unknown := self.targets.keys() - {f"{level:g}" for level in self.levels}:
            raise ValueError(f"targets.{min(unknown)}: no such level")
        for name, least in (("success", 1), ("success_rate", 1), ("difference", 0), ("mean_max_reward", 1)):
            if len(getattr(self, name)) != n + least:
                raise ValueError(f"{name} has {len(getattr(self, name))} values; {n} levels give {n + least}")
        for outcomes, rate in zip(self.success, self.success_rate, strict=True):
            found = outcomes.count("1") / len(outcomes)
            if len(outcomes) != self.n_episodes or not math.isclose(rate.estimate, found, abs_tol=1e-9):
                raise ValueError(
                    f"success_rate {rate.estimate:.6g} does not follow from success ({found:.6g})"
                )
        return self


class Report(ReportPart):
    """A whole run. `environment`: of `machine.describe`, and the `seconds` that each stage took."""

    model_config = ConfigDict(extra="forbid", frozen=True, serialize_by_alias=True, validate_by_name=True)

    schema_: Annotated[Literal[1], Field(alias="schema")] = SCHEMA
    created: datetime
    environment: dict[str, Any]
    success: tuple[Success, ...] = ()
    stress: tuple[Stress, ...] = ()
    tokenizers: tuple[TokenizerRow, ...] = ()
    throughput: tuple[Throughput, ...] = ()
    latency: tuple[Latency, ...] = ()
    comparisons: tuple[Stored, ...] = ()


SECTIONS: dict[str, type[ReportPart]] = {
    "success": Success,
    "stress": Stress,
    "tokenizers": TokenizerRow,
    "throughput": Throughput,
    "latency": Latency,
    "comparisons": Stored,
}


def load(path: Path) -> Report:
    """Read and check a report.json; an IlBenchError names what is wrong in it."""
    content = read_whole(path, "name the report.json of a run")
    found = parse_json(content, path, _AGAIN).get("schema")
    if found is None:
        raise IlBenchError(f"{path}: not a report.json (it has no schema); name the report.json of a run")
    if type(found) is not int or found != SCHEMA:
        raise IlBenchError(f"{path}: schema is {found!r:.60}, but this il_bench reads {SCHEMA}; {_AGAIN}")
    try:
        return Report.model_validate_json(content, strict=True)
    except ValidationError as error:
        raise IlBenchError(f"{path}: {wrong_field(error)}; {_AGAIN}") from error


def save(path: Path, report: Report) -> None:
    """Write report.json, whole or not at all. Raises IlBenchError if it cannot be written."""
    with writing(path, "use another folder with --il-report"):
        write_whole(path, report.model_dump_json(indent=1).encode() + b"\n")
