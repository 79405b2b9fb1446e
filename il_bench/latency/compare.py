"""Is B slower than A? Both are timed in turns, in several processes each, until the answer is clear.

Two processes that run the same code on the same machine differ by some per cent for as long as they live:
their memory lies elsewhere, so caches and branch predictors collide elsewhere (Curtsinger and Berger,
STABILIZER, ASPLOS 2013; Kalibera and Jones, Rigorous Benchmarking in Reasonable Time, ISMM 2013). So the unit
is the process, a random effect, however many calls it makes.

The machine changes within milliseconds, by far more than the difference in question. So blocks of calls are
short: a process of A and one of B take theirs one after the other, and only the difference of this pair
counts. In every round the processes have other partners, which tells the levels of all of them apart.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray
from scipy import special

from il_bench.errors import IlBenchError

#: The least standard deviation in log time between processes that run the same, if a few happen to agree
#: better. Measured spreads lie at and above it.
PROCESS_SD = 0.005
POLISHING = 20  # iterations of the median polish; a few would do

Array = NDArray[np.float64]


class Speed(StrEnum):
    """The verdict on B's speed, compared with A's."""

    SLOWER = "slower"
    FASTER = "faster"
    EQUIVALENT = "equivalent"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True)
class Rule:
    """When to give which verdict.

    margin: B is equivalent if it takes between 1 / (1 + margin) and 1 + margin times A's time.
    alpha: how often, at most, contenders that take the same time are called slower or faster.
    beta: how often, at most, contenders further apart than the margin are called equivalent; the reported
        interval has confidence 1 - beta.
    looks: after how many rounds the data are looked at, ascending. Each look spends an equal share of the
        error rates (Bonferroni), so they hold wherever the comparison stops.
    """

    margin: float = 0.05
    alpha: float = 0.002
    beta: float = 0.05
    looks: tuple[int, ...] = (8, 32, 128, 512)

    def __post_init__(self) -> None:
        for name, most in (("margin", 1.0), ("alpha", 0.5), ("beta", 0.5)):
            if not 0.0 < getattr(self, name) < most:
                raise IlBenchError(
                    f"{name}: {getattr(self, name):g} is out of range; give a number between 0 and {most:g}, "
                    f"such as {getattr(Rule, name):g}"
                )
        if not self.looks or self.looks[0] < 2 or list(self.looks) != sorted(set(self.looks)):
            raise IlBenchError(f"looks: {self.looks} are not ascending numbers of rounds from 2 on")


@dataclass(frozen=True)
class Comparison:
    """B's time over A's: an estimate and its interval, which holds wherever the comparison stopped.

    processes: of A and of B. rounds: blocks of each process.
    process_sd: spread in log time between the processes of A and of B, including the noise that is left.
    noise: share of the interval's variance that more rounds would remove; the rest needs more processes.
    seconds: median time of a call of A and of B.
    """

    verdict: Speed
    ratio: float
    low: float
    high: float
    confidence: float
    margin: float
    processes: tuple[int, int]
    rounds: int
    process_sd: tuple[float, float]
    noise: float
    seconds: tuple[float, float]


#: Makes one process call at least once, and returns the seconds of each call.
TimeBlock = Callable[[], Sequence[float]]
#: Called after each round with the result of the last look, None before the first.
OnRound = Callable[[Comparison | None], object]


def judge(a: Array, b: Array, rule: Rule, *, paired: bool = True, extra_sd: float = 0.0) -> Comparison:
    """Compare the blocks, as one of the rule's looks.

    a, b: (processes, rounds) seconds of a call, the median of each block.
    paired: whether process i of A took its block beside `partner(i, round)` of B. Then what the machine did
        to both cancels out.
    extra_sd: standard deviation of a difference in log time that these data cannot show, as between two runs.
    """
    if min(len(a), len(b)) < 2 or (paired and len(a) != len(b)):
        raise IlBenchError(
            f"processes: {len(a)} and {len(b)} cannot show how much processes differ; use 2 or more of each, "
            "as many of A as of B"
        )
    logs = np.log(a), np.log(b)
    if paired:
        levels, noise = _levels_of_pairs(*logs)
    else:
        levels, noise = [np.median(each, axis=1) for each in logs], sum(map(_noise, logs))
    spreads = [max(float(each.std(ddof=1)), PROCESS_SD) for each in levels]
    parts = [spread**2 / len(each) for spread, each in zip(spreads, levels, strict=True)]
    freedom = sum(parts) ** 2 / sum(p**2 / (len(each) - 1) for p, each in zip(parts, levels, strict=True))
    estimate = float(levels[1].mean() - levels[0].mean())

    def half_width(miss: float) -> float:
        tail = miss / len(rule.looks) / 2
        seen = special.stdtrit(freedom, tail) ** 2 * sum(parts)  # Student's t
        return math.sqrt(seen + (special.ndtri(tail) * extra_sd) ** 2)

    inner, outer = half_width(rule.beta), half_width(rule.alpha)
    verdict = Speed.INCONCLUSIVE
    if abs(estimate) + inner <= math.log1p(rule.margin):  # first: within the margin nobody is slower
        verdict = Speed.EQUIVALENT
    elif abs(estimate) > outer:
        verdict = Speed.SLOWER if estimate > 0 else Speed.FASTER
    return Comparison(
        verdict=verdict,
        ratio=math.exp(estimate),
        low=math.exp(estimate - inner),
        high=math.exp(estimate + inner),
        confidence=1.0 - rule.beta,
        margin=rule.margin,
        processes=(len(a), len(b)),
        rounds=a.shape[1],
        process_sd=(spreads[0], spreads[1]),
        noise=min(1.0, noise / (sum(parts) + extra_sd**2)),
        seconds=(float(np.median(a)), float(np.median(b))),
    )


def partner(process: int, number: int, processes: int) -> int:
    """The process of B beside one of A in a round; within `processes` rounds, each process of B once."""
    return (process + number) % processes


def _levels_of_pairs(a: Array, b: Array) -> tuple[list[Array], float]:
    """The level of each process, from the differences of the pairs, and the `_noise`.

    It is a median polish (Tukey, Exploratory Data Analysis, 1977): a few disturbed blocks change nothing.
    """
    n, rounds = a.shape
    partners = (np.arange(n)[:, None] + np.arange(rounds)) % n  # `partner`, of all at once
    found = np.take_along_axis(b, partners, axis=0) - a
    back = np.argsort(partners, axis=0)  # which process of A was beside each of B
    of_a, of_b = np.zeros(n), np.zeros(n)
    for _ in range(POLISHING):
        of_a = np.median(of_b[partners] - found, axis=1)
        of_b = np.median(of_a[back] + np.take_along_axis(found, back, axis=0), axis=1)
    rest = found - of_b[partners] + of_a[:, None]
    return [of_a, of_b], _noise(rest)


def _noise(blocks: Array) -> float:
    """The variance of the mean level that the spread of blocks within a process causes.

    A median's variance is pi / 2 times a mean's. The spread is estimated from quartiles.
    """
    low, high = np.quantile(blocks, (0.25, 0.75), axis=1)
    return float(math.pi / 2 * (((high - low) / 1.349) ** 2).mean() / blocks.size)


def compare(
    a: Sequence[TimeBlock],
    b: Sequence[TimeBlock],
    rule: Rule,
    rng: np.random.Generator,
    *,
    seconds: float = math.inf,
    clock: Callable[[], float] = time.monotonic,
    on_round: OnRound = lambda last: None,
) -> Comparison:
    """Let all processes take blocks in turns, pair by pair, until the verdict is clear.

    a, b: warm processes, as many of A as of B, two or more.
    rng: draws the order of the pairs in a round, and of the two of each pair.
    seconds: the most to spend, about; then comes the last look.
    """
    rounds: list[Array] = []
    start, found = clock(), None
    while found is None or found.verdict is Speed.INCONCLUSIVE:
        rounds.append(_round(a, b, len(rounds), rng))
        elapsed = clock() - start
        is_last = len(rounds) == rule.looks[-1] or (elapsed >= seconds and len(rounds) >= 2)
        if is_last or len(rounds) in rule.looks:
            blocks = np.stack(rounds, axis=2)
            found = judge(blocks[0], blocks[1], rule)
        on_round(found)
        if is_last:
            break
    assert found is not None
    return found


def _round(a: Sequence[TimeBlock], b: Sequence[TimeBlock], number: int, rng: np.random.Generator) -> Array:
    """Let each process take a block; return the medians, (2, processes), of A and of B."""
    medians = np.empty((2, len(a)))
    for first in rng.permutation(len(a)):
        second = partner(first, number, len(b))
        for contender in rng.permutation(2):
            process, place = ((a[first], first), (b[second], second))[contender]
            medians[contender, place] = np.median(process())
    return medians
