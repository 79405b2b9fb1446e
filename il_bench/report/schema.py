"""report.json: the machine's view of a run. Every other view is made from it."""

import json
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from il_bench.errors import IlBenchError, wrong_field
from il_bench.files import write_whole
from il_bench.gate import Decision
from il_bench.gate.baselines import GatedMetric, Track
from il_bench.rollout.metrics import METRICS
from il_bench.rollout.outcomes import Episode

SCHEMA: Final[Literal[1]] = 1
MOST_COUNTS: Final = 1024  # of a Vocabulary, so many bars has its histogram
PRODUCTS: Final = "the matrix products of its network"  # a floor of Throughput

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Count = Annotated[int, Field(ge=0)]


class ReportPart(BaseModel):
    """A part of the report; a field it does not know is an error.

    `ORDER`: the fields that tell rows of a section apart, and sort them; empty: its first three.
    """

    ORDER: ClassVar[tuple[str, ...]] = ()

    model_config = ConfigDict(extra="forbid", frozen=True)


class Interval(ReportPart):
    """An estimate and its two-sided 95 % interval."""

    estimate: float
    low: float
    high: float


class TargetResult(ReportPart):
    """A declared target and what the gate said."""

    metric: GatedMetric
    value: Share
    margin: Share
    required: bool
    decision: Decision
    evidence: dict[str, float]


class BaselineResult(ReportPart):
    """The comparison with the measured baseline over `n` episodes."""

    decision: Decision
    n: Count
    evidence: dict[str, float]


class Success(ReportPart):
    """How good one policy is.

    track: ``keypoints`` or ``pixels`` of PushT, or a project's environment, where mean_max_reward is the
        success_rate. decision: the target's. sha256: None for fresh weights. seconds: wall time.
    metrics: by name; a metric that no episode has a value of is left out.
    interval: of which kind the 95 % intervals are, see `gate.verdict.Verdict.sequential`.
    share_outside: of all actions, those outside [0, 512] px, which are carried out as they are.
    """

    policy: str
    track: Track
    data: str
    checkpoint: str
    sha256: str | None
    parameters: Count
    decision: Decision
    target: TargetResult | None
    baseline: BaselineResult | None
    n_episodes: Count
    success_rate: Interval
    mean_max_reward: Interval
    metrics: dict[str, Interval] = {}
    interval: Literal["confidence sequence", "Clopper-Pearson"] = "Clopper-Pearson"
    share_outside: Share
    seconds: Annotated[float, Field(ge=0.0)]
    episodes: tuple[Episode, ...]

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

    def measured(self, metric: str) -> Interval | None:
        """Return a metric by its name, None where it has no value; also of a report without `metrics`."""
        found: Interval | None = self.metrics.get(metric) or getattr(self, metric, None)
        return found


Point = tuple[float, float]


class Move(ReportPart):
    """What one sequence of tokens decodes to: `path`, in px."""

    indices: tuple[Count, ...]
    path: tuple[Point, ...]


class Demonstration(ReportPart):
    """One episode cut into chunks: the tokens of each, its actions, and what the tokens decode to, in px."""

    episode: Count
    indices: tuple[tuple[Count, ...], ...]
    path: tuple[Point, ...]
    decoded: tuple[Point, ...]


class Vocabulary(ReportPart):
    """The moves of a tokenizer that occur, the most used first; only as many as a picture shows.

    A move is one sequence of tokens, all that a chunk has. relative: `moves` begin at the agent; else they
    are places in the arena. n_moves: how many different ones occur; counts: how often each does. first: of a
    residual VQ, what each first token that occurs decodes to alone.
    """

    relative: bool
    n_moves: Count
    counts: tuple[Count, ...]
    moves: tuple[Move, ...]
    demonstration: Demonstration
    first: tuple[Move, ...] = ()


class TokenizerRow(ReportPart):
    """How well one tokenizer keeps actions of episodes that were held out.

    data: whose episodes. l1_px: mean error of a coordinate after a round trip; stage_l1_px: after each stage
        of a residual VQ. usage: share of the codes that occur; perplexity: exp of their entropy; both are
        means over the codebooks. round_trip: share of the chunks whose tokens i have encode(decode(i)) = i.
    fitted_on: what the tokenizer learned from, in `fit_seconds` of one core.
    """

    tokenizer: str
    data: str | None = None
    codebook_size: Count
    num_quantizers: Count
    bits_per_chunk: float
    l1_px: float
    stage_l1_px: tuple[float, ...] | None = None
    usage: Share
    perplexity: float
    round_trip: Share | None = None
    n_chunks: Count | None = None
    fitted_on: str | None = None
    fit_seconds: float | None = None
    vocabulary: Vocabulary | None = None


class Throughput(ReportPart):
    """How many of `what` a second.

    reference, floor: what it is compared with, timed in turns with it. A floor is work that hardly any
        implementation can leave out (None in older reports: PRODUCTS).
    peak_memory_mb: the most that one call holds of its own.
    """

    what: str
    batch: Count
    device: str
    per_second: float
    ratio_to_reference: float | None
    reference: str | None
    ratio_to_floor: float | None = None
    floor: str | None = None
    peak_memory_mb: float | None = None


class Latency(ReportPart):
    """How long one call takes, in ms of one control step, over `n` calls.

    A call that serves `steps` control steps is divided by that. A percentile is None where n is too small.
    what: a `protocol.TimedCall`, or ``fresh process``: a new one, whose only call is `first_call_ms`.
    peak_memory_mb: the most that one call holds of its device's memory beyond what was there; of a fresh
        process, all of the device's. resident_mb: peak memory of the process on the host.
    processed: with the checkpoint's pre- and post-processing. sampler: of a diffusion policy, with its steps.
    share_of_period: p50 over the control period of 10 Hz; above 1 it is too slow. jitter: interquartile range
        over median. first_call_ms: after loading (`load_ms`) or a change of `mode`, compilation included.
    warm_up: untimed calls after it, and whether times became `stable`. cpu_share: processor time over wall
        time. event_ratio: the device's own time of a call over the wall's. clock: ``wall``, or a timer that
        other processes do not disturb. state: of the device just after: clocks, what slowed it, load.
    """

    ORDER: ClassVar[tuple[str, ...]] = ("policy", "sampler", "mode", "device", "batch", "processed", "what")

    policy: str
    what: str
    batch: Count
    device: str
    mode: str
    n: Count
    p50_ms: float | None
    p90_ms: float | None
    p99_ms: float | None
    peak_memory_mb: float | None
    processed: bool = True
    sampler: str | None = None
    steps: Count = 1
    share_of_period: float | None = None
    jitter: float | None = None
    first_call_ms: float | None = None
    load_ms: float | None = None
    warm_up: Count | None = None
    stable: bool | None = None
    cpu_share: float | None = None
    event_ratio: float | None = None
    clock: str = "wall"
    resident_mb: float | None = None
    state: dict[str, Any] | None = None
    flops: Count | None = None
    floor_ms: float | None = None
    ratio_to_floor: float | None = None


class Stored(ReportPart):
    """The time of one call in several processes, kept for a later --il-compare, and what one showed.

    verdict: ``slower``, ``faster``, ``equivalent`` or ``inconclusive`` against the run in the file `against`;
        ``kept`` where there was nothing to compare with. ratio: to that run's time, with its 95 % interval.
    gate: whether ``slower`` fails the run. differs: what is not as it was there; no gate then.
    blocks: seconds of a call, a row a process and a median a block. yardstick: seconds of a fixed piece of
        work, block by block beside it; None where the clock is not the processor's.
    """

    ORDER: ClassVar[tuple[str, ...]] = ("policy", "what", "batch")

    policy: str
    what: str
    batch: Count
    device: str
    verdict: str
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    against: str | None = None
    gate: bool = False
    differs: tuple[str, ...] = ()
    clock: Literal["processor", "wall"]
    sha256: str | None
    blocks: tuple[tuple[float, ...], ...]
    yardstick: tuple[tuple[float, ...], ...] | None = None
    machine: dict[str, Any]
    versions: dict[str, str]


class Report(ReportPart):
    """A whole run."""

    model_config = ConfigDict(extra="forbid", frozen=True, serialize_by_alias=True, validate_by_name=True)

    schema_: Annotated[Literal[1], Field(alias="schema")] = SCHEMA
    created: datetime
    environment: dict[str, Any]
    success: tuple[Success, ...] = ()
    tokenizers: tuple[TokenizerRow, ...] = ()
    throughput: tuple[Throughput, ...] = ()
    latency: tuple[Latency, ...] = ()
    comparisons: tuple[Stored, ...] = ()


SECTIONS: dict[str, type[ReportPart]] = {
    "success": Success,
    "tokenizers": TokenizerRow,
    "throughput": Throughput,
    "latency": Latency,
    "comparisons": Stored,
}


def load(path: Path) -> Report:
    """Read a report.json.

    Raises:
        IlBenchError: unreadable, of another schema, or a field is missing, unknown or wrong; it names it.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise IlBenchError(f"{path}: not a readable report.json: {error}") from error
    found = data.get("schema") if isinstance(data, dict) else None
    if found != SCHEMA:
        raise IlBenchError(
            f"{path}: schema is {found!r}, this il_bench reads {SCHEMA}; make the report again"
        )
    try:
        return Report.model_validate(data)
    except ValidationError as error:
        raise IlBenchError(f"{path}: {wrong_field(error)}; make the report again") from error


def save(path: Path, report: Report) -> None:
    """Write report.json whole or not at all, whatever interrupts it."""
    write_whole(path, report.model_dump_json(indent=1).encode() + b"\n")
