"""The rule behind `il-bench compare`: its error rates, what ends it, and what it says."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial

import numpy as np
import pytest

from il_bench.errors import IlBenchError
from il_bench.latency.cli import verdict_line
from il_bench.latency.compare import Comparison, Rule, Speed, compare, judge, partner

RULE = Rule()
PROCESSES = 6
RUNS = 150


def effects(kind: str, sd: float, n: int, rng: np.random.Generator) -> np.ndarray:
    """How processes of one side differ, in log time."""
    if kind == "normal":
        return rng.normal(0.0, sd, n)
    if kind == "two kinds":  # as where memory happens to lie well or badly
        return 2.0 * sd * rng.integers(0, 2, n)
    return sd * rng.exponential(1.0, n)


def blocks(
    kind: str, effect: float, rng: np.random.Generator, *, sd: float = 0.015, noise: float = 0.04
) -> tuple[np.ndarray, np.ndarray]:
    """Blocks of A and B, (6, 64) s: processes differ, the machine drifts, now and then there is a jolt."""
    rounds = RULE.looks[-1]
    sides = effects(kind, sd, 2 * PROCESSES, rng) + effect * (np.arange(2 * PROCESSES) >= PROCESSES)
    drift = np.cumsum(rng.normal(0.0, 0.05, rounds))
    jolts = (rng.random((2 * PROCESSES, rounds)) < 0.1) * rng.exponential(0.3, (2 * PROCESSES, rounds))
    logs = sides[:, None] + drift + rng.normal(0.0, noise, (2 * PROCESSES, rounds)) + jolts
    return np.exp(logs[:PROCESSES]), np.exp(logs[PROCESSES:])


def verdicts(kind: str, effect: float, rng: np.random.Generator) -> Counter[Speed]:
    """What is said in so many runs, each looked at as `compare` does."""
    return Counter(until_decided(*blocks(kind, effect, rng)).verdict for _ in range(RUNS))


def until_decided(a: np.ndarray, b: np.ndarray) -> Comparison:
    for look in RULE.looks:
        found = judge(a[:, :look], b[:, :look], RULE)
        if found.verdict is not Speed.INCONCLUSIVE:
            break
    return found


@pytest.mark.parametrize("kind", ["normal", "two kinds", "skewed"])
def test_two_of_a_kind_are_not_told_apart_and_ten_per_cent_are(kind: str) -> None:
    rng = np.random.default_rng(0)
    same, planted = verdicts(kind, 0.0, rng), verdicts(kind, np.log(1.1), rng)
    assert same[Speed.SLOWER] + same[Speed.FASTER] <= 2  # 0.5 expected at most
    assert same[Speed.EQUIVALENT] >= 0.8 * RUNS
    assert planted[Speed.SLOWER] >= 0.95 * RUNS
    assert planted[Speed.FASTER] + planted[Speed.EQUIVALENT] == 0


def test_the_interval_misses_the_truth_no_more_often_than_it_says() -> None:
    rng = np.random.default_rng(1)
    found = [until_decided(*blocks("normal", 0.03, rng)) for _ in range(RUNS)]
    missed = sum(not each.low <= np.exp(0.03) <= each.high for each in found)
    assert missed <= 0.05 * RUNS + 7  # two standard deviations


def test_what_lies_on_the_margin_is_seldom_called_equivalent() -> None:
    found = verdicts("normal", np.log1p(RULE.margin), np.random.default_rng(2))
    assert found[Speed.EQUIVALENT] <= 0.025 * RUNS + 5
    assert found[Speed.FASTER] == 0


def test_a_rule_that_counts_calls_instead_of_processes_would_cry_wolf() -> None:
    """Two processes of the same side a side, a million calls each: the calls' own interval is hair-thin."""
    rng = np.random.default_rng(3)
    few = [blocks("normal", 0.0, rng, sd=0.02, noise=0.001) for _ in range(RUNS)]
    naive = sum(abs(np.log(b[0]).mean() - np.log(a[0]).mean()) > 0.01 for a, b in few)
    ours = sum(judge(a[:2], b[:2], RULE).verdict in (Speed.SLOWER, Speed.FASTER) for a, b in few)
    assert naive > RUNS / 2
    assert ours <= 2


def test_drift_of_the_machine_is_nobodys_doing() -> None:
    """A machine that becomes three times as slow half-way, for both sides: nothing is seen of it."""
    slowing = np.where(np.arange(8) < 4, 1.0, 3.0)
    a = (1.0 + 0.001 * np.arange(PROCESSES))[:, None] * slowing
    found = judge(a, a[::-1], RULE)
    assert found.verdict is Speed.EQUIVALENT
    assert found.ratio == pytest.approx(1.0, abs=1e-3)
    assert found.high < 1.02


def test_what_the_machine_does_to_a_pair_is_nobodys_doing() -> None:
    """A pair finds it half as fast, the next three times: the levels of processes come out all the same."""
    rng = np.random.default_rng(10)
    a, b = 1.0 + 0.01 * np.arange(PROCESSES), 1.2 + 0.01 * np.arange(PROCESSES)[::-1]
    times = rng.choice([0.5, 1.0, 3.0], (PROCESSES, 12))  # of each pair, in each round
    of_a = a[:, None] * times
    of_b = np.empty_like(of_a)
    for first, number in np.ndindex(*times.shape):
        second = partner(first, number, PROCESSES)
        of_b[second, number] = b[second] * times[first, number]
    found = judge(of_a, of_b, RULE)
    assert np.log(found.ratio) == pytest.approx(np.log(b).mean() - np.log(a).mean(), abs=1e-9)
    assert found.process_sd == pytest.approx((np.log(a).std(ddof=1), np.log(b).std(ddof=1)), rel=1e-6)
    apart = judge(of_a, of_b, RULE, paired=False)
    assert apart.high - apart.low > 5 * (found.high - found.low)


def test_a_few_disturbed_blocks_change_nothing() -> None:
    rng = np.random.default_rng(4)
    a, b = (np.exp(rng.normal(0.0, 0.005, (PROCESSES, 16))) for _ in range(2))
    calm = judge(a, b, RULE)
    b[:, 5] *= 4.0  # a round in which another program took the machine from B
    a[2, :3] *= 2.0
    disturbed = judge(a, b, RULE)
    assert disturbed.verdict is calm.verdict is Speed.EQUIVALENT
    assert disturbed.ratio == pytest.approx(calm.ratio, abs=0.01)


def test_faster_is_the_mirror_of_slower() -> None:
    rng = np.random.default_rng(5)
    a, b = blocks("normal", np.log(1.3), rng)
    there, back = judge(a, b, RULE), judge(b, a, RULE)
    assert (there.verdict, back.verdict) == (Speed.SLOWER, Speed.FASTER)
    # Not to the bit: the other way round, other processes are partners.
    assert there.ratio == pytest.approx(1.0 / back.ratio, rel=0.005)
    assert there.low == pytest.approx(1.0 / back.high, rel=0.01)


def test_processes_that_happen_to_agree_are_not_believed_to_the_bit() -> None:
    """Six equal times a side have no spread; the interval still has the width that processes have."""
    found = judge(np.full((PROCESSES, 4), 1.0), np.full((PROCESSES, 4), 1.004), RULE)
    assert found.verdict is Speed.EQUIVALENT
    assert found.high - found.low > 0.01


def test_what_runs_cannot_show_widens_the_interval() -> None:
    rng = np.random.default_rng(6)
    a, b = blocks("normal", np.log(1.06), rng, sd=0.001, noise=0.001)
    assert judge(a, b, RULE, paired=False).verdict is not judge(a, b, RULE, extra_sd=0.05).verdict
    assert judge(a, b, RULE, extra_sd=0.05).verdict is Speed.INCONCLUSIVE


def test_it_says_what_would_help() -> None:
    """Noisy blocks call for more of them, processes that differ for more processes."""
    rng = np.random.default_rng(7)
    noisy = judge(*(each[:, :8] for each in blocks("normal", 0.0, rng, sd=0.001, noise=0.3)), RULE)
    uneven = judge(*blocks("normal", 0.0, rng, sd=0.2, noise=0.001), RULE)
    assert noisy.verdict is uneven.verdict is Speed.INCONCLUSIVE
    assert "--budget" in verdict_line(noisy, is_last=False)
    assert "--processes" in verdict_line(noisy, is_last=True)
    assert "--processes" in verdict_line(uneven, is_last=False)


Fakes = list[Callable[[], Sequence[float]]]


def sides(a: Iterable[float], b: Iterable[float], turns: list[str] | None = None) -> tuple[Fakes, Fakes]:
    """Processes of A and B whose calls take about so many seconds; they note their turns."""

    def fake(name: str, seconds: float) -> Sequence[float]:
        if turns is not None:
            turns.append(name)
        return [seconds, seconds * 1.001, seconds * 50]  # the last one was disturbed

    of_a, of_b = (
        [partial(fake, f"{side}{i}", seconds) for i, seconds in enumerate(times)]
        for side, times in (("a", a), ("b", b))
    )
    return of_a, of_b


def test_every_process_takes_one_block_a_round_in_an_order_that_changes() -> None:
    turns: list[str] = []
    times = 1.0 + 0.002 * np.arange(PROCESSES)
    found = compare(*sides(times, 1.2 * times, turns), RULE, np.random.default_rng(0))
    assert (found.verdict, found.rounds) == (Speed.SLOWER, RULE.looks[0])
    assert found.ratio == pytest.approx(1.2)
    rounds = [turns[i : i + 2 * PROCESSES] for i in range(0, len(turns), 2 * PROCESSES)]
    assert len(rounds) == RULE.looks[0]
    assert all(len(set(each)) == 2 * PROCESSES for each in rounds)
    assert len({tuple(each) for each in rounds}) == len(rounds)
    # Interleaved: nobody's blocks come first in every round.
    assert {name[0] for each in rounds for name in each[:3]} == {"a", "b"}


def test_it_looks_on_until_the_last_look_and_then_is_inconclusive() -> None:
    rng = np.random.default_rng(8)
    heard: list[Comparison | None] = []
    found = compare(*sides(*rng.lognormal(0, 0.3, (2, 4))), RULE, rng, on_round=heard.append)
    assert (found.verdict, found.rounds) == (Speed.INCONCLUSIVE, RULE.looks[-1])
    assert [None if each is None else each.rounds for each in heard[6:9]] == [None, 8, 8]
    assert len(heard) == RULE.looks[-1]


def test_the_budget_ends_it() -> None:
    now, rng = iter(range(0, 10_000, 10)), np.random.default_rng(9)
    uneven = sides(*rng.lognormal(0, 0.3, (2, 4)))
    assert compare(*uneven, RULE, rng, seconds=60.0, clock=lambda: float(next(now))).rounds == 6


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"margin": 0.0}, "margin"),
        ({"margin": 5.0}, "margin"),
        ({"alpha": 0.7}, "alpha"),
        ({"beta": 0.0}, "beta"),
        ({"looks": (4, 4)}, "looks"),
        ({"looks": (1, 2)}, "looks"),
    ],
)
def test_a_rule_out_of_bounds_is_refused_by_name(values: dict[str, float], name: str) -> None:
    with pytest.raises(IlBenchError, match=name):
        Rule(**values)  # type: ignore[arg-type]


def test_one_process_a_side_is_refused() -> None:
    with pytest.raises(IlBenchError, match=r"processes: 1 and 1.*use 2 or more"):
        compare(*sides([1.0], [1.0]), RULE, np.random.default_rng(0))
