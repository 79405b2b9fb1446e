"""The rows of report.json that decide nothing: tokenizers, throughput, latency, and what is kept to compare.

And what all rows are made of. `schema` holds the whole.
"""

from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from il_bench.errors import printable

MOST_COUNTS: Final = 1024  # of a Vocabulary: its histogram has so many bars
PRODUCTS: Final = "the matrix products of its network"  # a floor of Throughput

#: Names come from folders and users, and may hold what no file and no picture can.
Text = Annotated[str, BeforeValidator(lambda value: printable(value) if isinstance(value, str) else value)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Count = Annotated[int, Field(ge=0)]


class ReportPart(BaseModel):
    """A part of the report; an unknown field is an error.

    `ORDER`: the fields that tell the rows of a section apart and sort them; if empty, the first three.
    """

    ORDER: ClassVar[tuple[str, ...]] = ()

    model_config = ConfigDict(extra="forbid", frozen=True)


class Interval(ReportPart):
    """An estimate and its two-sided 95 % interval."""

    estimate: float
    low: float
    high: float


Point = tuple[float, float]


class Move(ReportPart):
    """The `path` in px that one sequence of tokens decodes to."""

    indices: tuple[Count, ...]
    path: tuple[Point, ...]


class Demonstration(ReportPart):
    """One episode in chunks: the tokens of each, its actions, and what the tokens decode to, in px."""

    episode: Count
    indices: tuple[tuple[Count, ...], ...]
    path: tuple[Point, ...]
    decoded: tuple[Point, ...]


class Vocabulary(ReportPart):
    """The moves of a tokenizer that occur, the most used first, as many as a picture shows.

    A move is what all tokens of a chunk stand for together. relative: `moves` begin at the agent, instead of
    being places in the arena. n_moves: how many different moves occur; counts: how often each does. first:
    what each first token of a residual VQ decodes to alone.
    """

    relative: bool
    n_moves: Count
    counts: tuple[Count, ...]
    moves: tuple[Move, ...]
    demonstration: Demonstration
    first: tuple[Move, ...] = ()


class TokenizerRow(ReportPart):
    """How well one tokenizer keeps the actions of held-out episodes.

    data: whose episodes. l1_px: mean error of a coordinate after a round trip; stage_l1_px: after each stage
        of a residual VQ. usage: share of the codes that occur; perplexity: exp of their entropy; both are
        means over the codebooks. round_trip: share of the chunks whose tokens i have encode(decode(i)) = i.
    fitted_on: what the tokenizer learned from, in `fit_seconds` of one core.
    """

    tokenizer: Text
    data: Text | None = None
    codebook_size: Count
    num_quantizers: Count
    bits_per_chunk: float
    l1_px: float
    stage_l1_px: tuple[float, ...] | None = None
    usage: Share
    perplexity: float
    round_trip: Share | None = None
    n_chunks: Count | None = None
    fitted_on: Text | None = None
    fit_seconds: float | None = None
    vocabulary: Vocabulary | None = None


class Throughput(ReportPart):
    """How much of `what` gets done per second.

    reference, floor: other work, timed in turns with it. A floor is work that hardly any implementation can
        leave out (None in older reports: PRODUCTS).
    peak_memory_mb: the most memory that one call adds.
    """

    what: Text
    batch: Count
    device: Text
    per_second: float
    ratio_to_reference: float | None
    reference: Text | None
    ratio_to_floor: float | None = None
    floor: Text | None = None
    peak_memory_mb: float | None = None


class Latency(ReportPart):
    """How long one call takes, in ms a control step, over `n` calls.

    The time of a call is divided by the `steps` that it serves. A percentile is None where n is too small.
    quantiles_ms: share of the calls and the ms that it took at most, from the fastest call to the slowest,
        without shares that n is too small for; None in older reports.
    what: a `protocol.TimedCall`, or ``fresh process``: only the first call, in a process that just started.
    peak_memory_mb: the most device memory that one call adds; with ``fresh process``, all that is in use.
    resident_mb: peak memory of the process on the host.
    processed: with the checkpoint's pre- and post-processing. sampler: a diffusion policy's, with its steps.
    share_of_period: p50 over the control period of 10 Hz; above 1 it is too slow. jitter: interquartile range
        over median. first_call_ms: after loading (`load_ms`) or a change of `mode`, compilation included.
    warm_up: calls after it that do not count; stable: whether their times settled. cpu_share: processor time
        over wall time. event_ratio: the device's own time of a call over wall time. clock: ``wall``, or a
        timer that other processes do not disturb. state: the device's clocks, what slowed it, and its load.
    """

    ORDER: ClassVar[tuple[str, ...]] = ("policy", "sampler", "mode", "device", "batch", "processed", "what")

    policy: Text
    what: Text
    batch: Count
    device: Text
    mode: Text
    n: Count
    p50_ms: float | None
    p90_ms: float | None
    p99_ms: float | None
    peak_memory_mb: float | None
    quantiles_ms: tuple[tuple[Share, float], ...] | None = None
    processed: bool = True
    sampler: Text | None = None
    steps: Count = 1
    share_of_period: float | None = None
    jitter: float | None = None
    first_call_ms: float | None = None
    load_ms: float | None = None
    warm_up: Count | None = None
    stable: bool | None = None
    cpu_share: float | None = None
    event_ratio: float | None = None
    clock: Text = "wall"
    resident_mb: float | None = None
    state: dict[str, Any] | None = None
    flops: Count | None = None
    floor_ms: float | None = None
    ratio_to_floor: float | None = None


class Stored(ReportPart):
    """The times of one call in several processes, kept for a later --il-compare, and this run's comparison.

    verdict: ``slower``, ``faster``, ``equivalent`` or ``inconclusive`` compared with the run in the file
        `against`; ``kept`` without one. ratio: to that run's time, with its 95 % interval.
    gate: whether ``slower`` fails the run. differs: what has changed since that run; then nothing gates.
    blocks: median seconds of a call in each block, a row for each process. yardstick: the same for a fixed
        piece of work timed beside it; None unless the clock is the processor's.
    """

    ORDER: ClassVar[tuple[str, ...]] = ("policy", "what", "batch")

    policy: Text
    what: Text
    batch: Count
    device: Text
    verdict: Text
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    against: Text | None = None
    gate: bool = False
    differs: tuple[Text, ...] = ()
    clock: Literal["processor", "wall"]
    sha256: Text | None
    blocks: tuple[tuple[float, ...], ...]
    yardstick: tuple[tuple[float, ...], ...] | None = None
    machine: dict[str, Any]
    versions: dict[str, str]
