"""`il-bench plan`: how many episodes a verdict will take, and what so many can see, before anything runs."""

from collections.abc import Iterator
from typing import Annotated

import typer

from il_bench import zoo
from il_bench.errors import IlBenchError, fail
from il_bench.protocol import BLOCK_SIZE, MARGIN, MAX_EPISODES, PIXELS, SEED_STARTS

_RISK = 0.05
_USUAL = 200  # episodes, as a second number of them to say a smallest drop for
_SHARE = 0.9


def plan(
    target: Annotated[float, typer.Option(help="The success rate that you want to show, such as 0.85.")],
    margin: Annotated[
        float, typer.Option(help="A PASS shows a rate above the target minus this margin.")
    ] = MARGIN,
    true_rate: Annotated[
        float | None,
        typer.Option(help="The success rate that you expect. Default: several rates side by side."),
    ] = None,
    episodes: Annotated[
        int, typer.Option(min=1, max=MAX_EPISODES, help="The most episodes that you want to run.")
    ] = MAX_EPISODES,
    policy: Annotated[
        str | None,
        typer.Option(help="Roll out 50 episodes of this policy, to estimate how long they take here."),
    ] = None,
) -> None:
    """Say how many episodes a verdict on a success rate takes, and what drop they would detect.

    Exact for independent episodes; the suite's sequential test, at alpha = beta = 0.05.
    """
    try:
        if not 0 < margin < target < 1:
            raise IlBenchError(f"--target: {target:g}, --margin: {margin:g}; need 0 < margin < target < 1")
        if true_rate is not None and not 0 <= true_rate <= 1:
            raise IlBenchError(f"--true-rate: {true_rate:g}; need a share from 0 to 1")
        if policy is not None:
            zoo.find(policy)  # what names nothing is refused before anything heavy is imported
        for line in told(target, margin, true_rate, episodes):
            typer.echo(line)
        if policy is not None:
            seconds = _seconds_of_a_block(policy)
            blocks = -(-episodes // BLOCK_SIZE)
            typer.echo(
                f"{policy}: {seconds:.1f} s for {BLOCK_SIZE} episodes here, in one process; all {episodes:,}"
                f" would take {_duration(seconds * blocks)}, in W processes about a W-th of it"
            )
    except IlBenchError as error:
        fail(error)


def told(target: float, margin: float, true_rate: float | None, n: int) -> Iterator[str]:
    """Yield the lines about at most `n` episodes."""
    from il_bench.gate.power import CHANCE, drop_below_target

    floor, above = target - margin, min(target + margin, (1 + target) / 2)
    usual = (above, target, target - margin / 2, floor, max(floor - margin, 0.0))
    by, of_file = f"{_SHARE:.0%} decided by", f"file of {n:,}"
    rows: list[tuple[str, ...]] = [("true rate", "PASS", "FAIL", "INCONCLUSIVE", "episodes", by, of_file)]
    rows += [_row(rate, target, margin, n) for rate in (usual if true_rate is None else (true_rate,))]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    yield f"target {target:g}, margin {margin:g}, at most {n:,} episodes, alpha = beta = {_RISK:g}, exact"
    for row in rows:
        yield "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
    yield f"episodes: the mean, in whole blocks of {BLOCK_SIZE}; {of_file}: `il-bench gate`'s word on one"
    for most in sorted({min(_USUAL, n), n}):
        drop = drop_below_target(target, margin, _RISK, _RISK, most)
        said = "no drop, however large" if drop is None else f"a rate of {target - drop:.3f}"
        yield f"{most:,} episodes find {said} (FAIL in {CHANCE:.0%} of all runs)"


def _row(rate: float, target: float, margin: float, n: int) -> tuple[str, ...]:
    from il_bench.gate.fixed import chances
    from il_bench.gate.power import course

    found = course(rate, target, margin, _RISK, _RISK, n)
    passed, failed = float(found.passed.sum()), float(found.fail.sum())
    by = found.within(_SHARE)
    file_failed, file_passed = chances(rate, n, target=target, margin=margin, alpha=_RISK, beta=_RISK)
    return (
        f"{rate:.3f}",
        *(f"{share:.1%}" for share in (passed, failed, max(1 - passed - failed, 0.0))),
        f"{found.mean(BLOCK_SIZE):,.0f}",
        f"{n:,}: {found.decided[-1]:.0%}" if by is None else f"{by:,}",
        f"PASS {file_passed:.1%}, FAIL {file_failed:.1%}",
    )


def _seconds_of_a_block(policy: str) -> float:
    """Roll a block of validation seeds out in this process; return its wall time."""
    from il_bench.policies.checkpoint import load_policy
    from il_bench.rollout import rollout

    loaded = load_policy(policy)
    if loaded.track == PIXELS:
        typer.echo(f"On images, {BLOCK_SIZE} episodes take minutes on a CPU.", err=True)
    first = SEED_STARTS["validation"]
    return rollout(loaded, range(first, first + BLOCK_SIZE)).seconds


def _duration(seconds: float) -> str:
    return (
        f"{seconds:.0f} s"
        if seconds < 120
        else f"{seconds / 60:.0f} min"
        if seconds < 7200
        else f"{seconds / 3600:.1f} h"
    )
