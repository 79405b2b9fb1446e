"""How often is the gate wrong, and after how many episodes does it answer?

Simulates episodes whose true rate is known, hands every simulated run to the gate itself, and counts the
verdicts. At the target a FAIL is wrong, at target - margin and below a PASS is; in between both say the truth
("< target", "> target - margin"). The share of wrong verdicts is shown with its upper 95 % bound (Clopper &
Pearson's, one-sided), beside what was declared. For comparison the rule in common use: 50 episodes, and
whatever reaches the target passes.

The evidence is evaluated after every episode, and its first crossing decides. The suite looks at whole blocks
of episodes only, so it decides the same and has rolled out a little more, which is counted too. Where another
gate of the policy takes longer it rolls out more still, which decides nothing of this one and is not counted.
Targets are tested at alpha, as one's own given by --il-target is, and at alpha divided over all gates in
baselines.json, as those declared there are.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from scipy import stats as scipy_stats

from il_bench.gate import Decision, GateResult, baselines, check_baseline, check_target, stats
from il_bench.protocol import BLOCK_SIZE, MAX_EPISODES

TARGETS, REWARD_TARGET, MARGINS = (0.65, 0.85, 0.92), 0.90, (0.05, 0.10)
ALPHA = BETA = 0.05
NAIVE_EPISODES = 50
OLD_RATE, BASELINE_MARGIN, LARGE_LOSS = 0.85, 0.05, -0.10
# Shares of seeds on which the old and the new policy both succeed or both do not: as between two checkpoints
# of one training, and about as between strangers.
AGREEMENTS = (0.85, 0.75)
CHUNK = 500
RATES = ("target", "margin", "true rate")
RATES_AT = ("target", "margin", "alpha", "true rate")
VERDICTS = ("FAIL %", "PASS %", "INCON. %", "episodes", "blocks", "wrong is", "upper %", "allowed %", "held")

Runs = tuple[NDArray[np.generic], ...]
Draw = Callable[[np.random.Generator, int], Runs]
Judge = Callable[..., GateResult]


@dataclass(frozen=True)
class Situation:
    """A row: a truth to simulate, the rule that judges it, and the verdict that would be wrong.

    about: what the first columns say. truth: the rate, mean or change. draw: from a generator and R to arrays
    (R, N), one or several. judge: is given one run of each array. wrong: None where no verdict is.
    """

    about: tuple[str, ...]
    truth: float
    draw: Draw
    judge: Judge
    wrong: Decision | None
    alpha: float = ALPHA

    @property
    def allowed(self) -> float:
        """The declared probability of the wrong verdict."""
        return self.alpha if self.wrong is Decision.FAIL else BETA


@dataclass(frozen=True)
class Simulated:
    """One run: what it was judged, and the sum of its (new) values over the blocks rolled out for that."""

    result: GateResult
    total: float

    @property
    def rolled_out(self) -> int:
        """Episodes in whole blocks, up to the one in which the verdict fell."""
        return min(-(-self.result.n // BLOCK_SIZE) * BLOCK_SIZE, MAX_EPISODES)


@dataclass(frozen=True)
class Study:
    """A table: its title, what its first columns are called, and its rows."""

    title: str
    columns: tuple[str, ...]
    situations: list[Situation]


def successes(rng: np.random.Generator, runs: int, *, p: float) -> Runs:
    """Independent successes at rate `p`."""
    return (rng.random((runs, MAX_EPISODES)) < p,)


@cache
def unsolved_rewards() -> NDArray[np.float64]:
    """Best rewards of 1,000 unsolved episodes, as trained policies leave them.

    On PushT about seven in ten end near the goal, at a reward around 0.93, the others anywhere below.
    """

    def quantiles(n: int, a: float, b: float) -> NDArray[np.float64]:
        return np.asarray(scipy_stats.beta.ppf((np.arange(n) + 0.5) / n, a, b))

    return np.concatenate([quantiles(720, 40, 3), quantiles(280, 1, 2.5)])


def rewards(rng: np.random.Generator, runs: int, *, mean: float, near_misses: bool) -> Runs:
    """Best rewards of this mean: 1 for the solved; for the others those of trained policies, or 0."""
    shape = (runs, MAX_EPISODES)
    others = unsolved_rewards() if near_misses else np.zeros(1)
    solved = (mean - others.mean()) / (1 - others.mean())
    return (np.where(rng.random(shape) < solved, 1.0, rng.choice(others, shape)),)


def pairs(rng: np.random.Generator, runs: int, *, change: float, agreement: float) -> Runs:
    """Successes (new, old) on the same seeds: rates OLD_RATE + change and OLD_RATE, equal on `agreement`."""
    lost, gained = (1 - agreement - change) / 2, (1 - agreement + change) / 2
    old = rng.random((runs, MAX_EPISODES)) < OLD_RATE
    flips = rng.random((runs, MAX_EPISODES)) < np.where(old, lost / OLD_RATE, gained / (1 - OLD_RATE))
    return old ^ flips, old


def gate_rule(target: float, margin: float, alpha: float = ALPHA, metric: str = "success_rate") -> Judge:
    """The gate's target test."""
    return partial(check_target, target=target, margin=margin, alpha=alpha, beta=BETA, metric=metric)


def naive_rule(target: float, margin: float) -> Judge:
    """50 episodes; PASS if their mean reaches the target, else FAIL; no margin."""

    def judge(values: NDArray[np.generic]) -> GateResult:
        reached = values[:NAIVE_EPISODES].mean() >= target
        return GateResult(Decision.PASS if reached else Decision.FAIL, "", NAIVE_EPISODES)

    return judge


def wrong_at(truth: float, target: float, floor: float) -> Decision | None:
    """The verdict that says an untruth there: FAIL says "< target", PASS "> floor"."""
    return Decision.FAIL if truth >= target else Decision.PASS if truth <= floor else None


def truths(target: float, margin: float) -> Iterator[tuple[float, Decision | None]]:
    """What to simulate, and what is wrong there: at the target, half-way down, at target - margin."""
    for truth in (target, target - margin / 2, target - margin):
        yield truth, wrong_at(truth, target, target - margin)


def of_rates(n_gates: int) -> list[Situation]:
    """success_rate against a target, at alpha and at alpha divided over the declared gates."""
    return [
        Situation(
            (f"{target:.2f}", f"{margin:.2f}", f"{alpha:.5f}", f"{p:.3f}"),
            p,
            partial(successes, p=p),
            gate_rule(target, margin, alpha),
            wrong,
            alpha,
        )
        for target in TARGETS
        for margin in MARGINS
        for alpha in (ALPHA, ALPHA / n_gates)
        for p, wrong in truths(target, margin)
    ]


def of_naive_rates() -> list[Situation]:
    """success_rate against a target, by the naive rule."""
    return [
        Situation(
            (f"{target:.2f}", f"{margin:.2f}", f"{p:.3f}"),
            p,
            partial(successes, p=p),
            naive_rule(target, margin),
            wrong,
        )
        for target in TARGETS
        for margin in MARGINS
        for p, wrong in truths(target, margin)
    ]


def of_rewards() -> list[Situation]:
    """mean_max_reward against a target, where the unsolved are mostly near misses, and where they are 0."""
    return [
        Situation(
            ("near" if near_misses else "zero", f"{margin:.2f}", f"{mean:.3f}"),
            mean,
            partial(rewards, mean=mean, near_misses=near_misses),
            gate_rule(REWARD_TARGET, margin, metric="mean_max_reward"),
            wrong,
        )
        for near_misses in (True, False)
        for margin in MARGINS
        for mean, wrong in truths(REWARD_TARGET, margin)
    ]


def of_pairs(n_gates: int) -> list[Situation]:
    """success_rate against a measured baseline, at alpha and at alpha divided over the declared gates."""
    return [
        Situation(
            (f"{agreement:.2f}", f"{alpha:.5f}", f"{change:+.3f}"),
            change,
            partial(pairs, change=change, agreement=agreement),
            partial(check_baseline, margin=BASELINE_MARGIN, alpha=alpha, beta=BETA),
            wrong_at(change, 0.0, -BASELINE_MARGIN),
            alpha,
        )
        for agreement in AGREEMENTS
        for alpha in (ALPHA, ALPHA / n_gates)
        for change in (0.0, -BASELINE_MARGIN / 2, -BASELINE_MARGIN, LARGE_LOSS)
    ]


def simulate(situation: Situation, runs: int, rng: np.random.Generator) -> Iterator[Simulated]:
    """Judge so many runs, drawn a chunk at a time."""
    for start in range(0, runs, CHUNK):
        drawn = situation.draw(rng, min(CHUNK, runs - start))
        totals = np.cumsum(drawn[0], axis=-1, dtype=np.float64)
        for run, total in zip(zip(*drawn, strict=True), totals, strict=True):
            judged = Simulated(situation.judge(*run), 0.0)
            yield replace(judged, total=float(total[judged.rolled_out - 1]))


def verdicts(situation: Situation, simulated: Sequence[Simulated]) -> list[str]:
    """The cells of a row that come of its runs."""
    runs, counts = len(simulated), Counter(run.result.decision for run in simulated)
    shares = [counts[d] / runs for d in (Decision.FAIL, Decision.PASS, Decision.INCONCLUSIVE)]
    cells = [f"{100 * share:.2f}" for share in shares]
    cells.append(f"{np.mean([run.result.n for run in simulated]):.0f}")
    cells.append(f"{np.mean([run.rolled_out for run in simulated]):.0f}")
    if situation.wrong is None:
        return [*cells, "neither", "", "", ""]
    lower, upper = stats.clopper_pearson(counts[situation.wrong], runs, 0.90)  # 5 % beyond either end
    held = "yes" if upper <= situation.allowed else "NO" if lower > situation.allowed else "unclear"
    return [*cells, situation.wrong, f"{100 * upper:.2f}", f"{100 * situation.allowed:.3g}", held]


@cache
def intervals(k: int, n: int) -> tuple[tuple[float, float], tuple[float, float]]:
    """The 95 % intervals after k successes in n episodes: Clopper-Pearson and confidence sequence."""
    return stats.clopper_pearson(k, n), stats.confidence_sequence(np.arange(n) < k)


def coverage(truth: float, simulated: Sequence[Simulated]) -> list[str]:
    """How often each interval, taken where the suite stops, misses the true rate, and its mean width."""
    found = np.array([intervals(round(run.total), run.rolled_out) for run in simulated])  # (R, 2, 2)
    missed = ((found[..., 0] > truth) | (found[..., 1] < truth)).mean(axis=0)
    widths = (found[..., 1] - found[..., 0]).mean(axis=0)
    return [f"{100 * missed[0]:.2f}", f"{widths[0]:.3f}", f"{100 * missed[1]:.2f}", f"{widths[1]:.3f}"]


def studies(n_gates: int) -> list[Study]:
    """All tables; the first is the one whose intervals are looked at too."""
    rate_title = f"success_rate against a target, the gate, {n_gates} gates"
    naive_title = f"success_rate, the rule '{NAIVE_EPISODES} episodes, rate >= target'"
    reward_title = f"mean_max_reward against a target of {REWARD_TARGET:.2f}, the gate"
    pair_title = f"against a baseline at {OLD_RATE:.2f}, margin {BASELINE_MARGIN:.2f}, {n_gates} gates"
    return [
        Study(rate_title, RATES_AT, of_rates(n_gates)),
        Study(naive_title, RATES, of_naive_rates()),
        Study(reward_title, ("unsolved", "margin", "true mean"), of_rewards()),
        Study(pair_title, ("agreement", "alpha", "change"), of_pairs(n_gates)),
    ]


def tables(chosen: Sequence[Study], runs: int, seed: int, progress: Progress) -> list[Table]:
    """Simulate every row; each has a generator of its own."""
    stopped = Table(
        *RATES_AT,
        *("Clopper-Pearson misses %", "width", "confidence sequence misses %", "width"),
        title="95 % intervals for success_rate where the suite stops",
    )
    drawn = []
    task = progress.add_task("simulating", total=sum(len(study.situations) for study in chosen))
    for number, study in enumerate(chosen):
        table = Table(*study.columns, *VERDICTS, title=study.title)
        group = study.situations[0].about[:-1]
        for row, situation in enumerate(study.situations):
            if situation.about[:-1] != group:
                table.add_section()
                group = situation.about[:-1]
            rng = np.random.default_rng([seed, number, row])
            simulated = list(simulate(situation, runs, rng))
            table.add_row(*situation.about, *verdicts(situation, simulated))
            if number == 0 and situation.wrong is not None:
                stopped.add_row(*situation.about, *coverage(situation.truth, simulated))
            progress.advance(task)
        drawn.append(table)
    return [*drawn, stopped]


def main(
    runs: Annotated[int, typer.Option(min=1, help="Simulated runs a row.")] = 20_000,
    seed: Annotated[int, typer.Option(min=0, help="Of the simulated episodes.")] = 0,
    gates: Annotated[
        int | None, typer.Option(min=1, help="Gates that share alpha; by default, all in baselines.json.")
    ] = None,
) -> None:
    """Print the gate's error rates, and those of a naive rule."""
    n_gates = gates or max(1, baselines.load(baselines.default_path()).n_gates)
    with Progress(transient=True, console=Console(stderr=True)) as progress:
        simulated = tables(studies(n_gates), runs, seed, progress)
    console = Console(width=136)
    console.print(f"{runs:,} runs a row of at most {MAX_EPISODES:,} episodes, seed {seed}, beta {BETA:g};")
    console.print("episodes: the mean number until the verdict, all of them where there is none;")
    console.print(f"blocks: the mean number rolled out for it, in whole blocks of {BLOCK_SIZE};")
    console.print("upper: the upper 95 % bound of the wrong verdict's share; held: whether that is allowed;")
    console.print("unsolved: the reward of episodes that are no success, as of trained policies or 0;")
    console.print("agreement: the share of seeds with the same outcome for the new and the old policy")
    for table in simulated:
        console.print(table)


if __name__ == "__main__":
    typer.run(main)
