"""Is B slower than A? Both are timed in turns, in several processes each, until the answer is clear.

Two processes that run the same code on the same machine differ by some per cent for as long as they live:
their memory lies elsewhere, so caches and branch predictors collide elsewhere (Curtsinger and Berger,
STABILIZER, ASPLOS 2013; Kalibera and Jones, Rigorous Benchmarking in Reasonable Time, ISMM 2013). So the unit
is the process, a random effect, however many calls it makes.

The machine changes within milliseconds, by far more than the difference in question. So blocks are short. A
process of A and one of B take theirs one after the other, as a pair, and only the difference of the pair is
used. In every round each process has another partner, so that the levels of all of them can be told apart.
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

#: Standard deviation in log time between processes that run the same. It is assumed where a few happen to
#: agree better; measured spreads lie at and above it.
PROCESS_SD = 0.005
POLISHING = 20  # turns of the median polish; it changes little after a few

Array = NDArray[np.float64]


class Speed(StrEnum):
    """What is shown of B's speed, compared with A's."""

    SLOWER = "slower"
    FASTER = "faster"
    EQUIVALENT = "equivalent"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True)
class Rule:
    """When to say what.

    Attributes:
        margin: B within 1 / (1 + margin) and 1 + margin times A's time counts as equivalent.
        alpha: how often, at most, two that take the same time are called slower or faster.
        beta: how often, at most, two that are further apart than the margin are called equivalent; the
            interval that is reported has confidence 1 - beta.
        looks: numbers of rounds, ascending, after which the data are looked at. Each look spends an equal
            share of the error rates (Bonferroni), so they hold wherever it stops.

    Raises:
        IlBenchError: a value out of its bounds, named.
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
            raise IlBenchError(f"looks: {self.looks} are no ascending numbers of rounds from 2 on")


@dataclass(frozen=True)
class Comparison:
    """B's time over A's: an estimate and its interval, which holds wherever the rule stopped.

    Attributes:
        processes: of A and of B. `rounds`: blocks of each process.
        process_sd: spread between processes of A and of B in log time, noise that is left included.
        noise: share of the interval's variance that more rounds would remove; the rest takes processes.
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


#: Seconds of each of some calls in a row, at least one, made by one process.
TimeBlock = Callable[[], Sequence[float]]
#: Hears of each round: what the last look found, None before the first.
OnRound = Callable[[Comparison | None], object]


def judge(a: Array, b: Array, rule: Rule, *, paired: bool = True, extra_sd: float = 0.0) -> Comparison:
    """What the blocks show, as one of the rule's looks.

    Args:
        a, b: (processes, rounds) seconds of a call, medians of blocks. Every process of both took its block
            in every round.
        paired: whether process i of A took its block beside `partner(i, round)` of B: what the machine did to
            both is then taken out.
        extra_sd: of a difference in log time that these data cannot show, such as between two runs.

    Raises:
        IlBenchError: fewer than two processes of A or B, or one of a pair is missing.
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
    """Which process of B is beside one of A in a round: within `processes` rounds, each of them once."""
    return (process + number) % processes


def _levels_of_pairs(a: Array, b: Array) -> tuple[list[Array], float]:
    """The level of each process, from what the two of each pair differ by; and the noise (`_noise`).

    A median polish (Tukey, Exploratory Data Analysis, 1977), so that a few disturbed blocks change nothing.
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
    """Variance of the blocks' mean level that comes of blocks that differ within a process.

    A median's variance is pi / 2 times a mean's; the blocks' spread is taken from their quartiles.
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

    Args:
        a, b: warm processes, two or more, as many of A as of B.
        rng: of the order of the pairs in a round, and of who of a pair is first.
        seconds: at most about so long; what is there then is the last look.
        clock: seconds since whenever.

    Raises:
        IlBenchError: fewer than two processes of A or B, or unequally many; whatever a process says.
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
    """(2, processes) medians of a block of each process."""
    medians = np.empty((2, len(a)))
    for first in rng.permutation(len(a)):
        second = partner(first, number, len(b))
        for side in rng.permutation(2):
            process, place = ((a[first], first), (b[second], second))[side]
            medians[side, place] = np.median(process())
    return medians
