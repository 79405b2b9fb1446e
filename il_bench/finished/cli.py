"""The command that needs no rollout: `il-bench gate`. `il-bench --help` loads this module."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from il_bench.errors import IlBenchError, fail
from il_bench.files import given_path
from il_bench.protocol import MARGIN
from il_bench.rollout.metrics import DEFAULT_METRIC, METRICS, target_of

if TYPE_CHECKING:
    from il_bench.finished.judged import ComparedRuns
    from il_bench.finished.runs import FinishedRun

_SEED_HELP = "The --seed that lerobot-eval had for {}; its file holds no seeds."


def gate(
    file: Annotated[
        Path,
        typer.Argument(
            help="eval_info.json of lerobot-eval, report.json, a CSV (seed,success), or what"
            " `il-bench evaluate --output` writes; or the folder of one."
        ),
    ],
    target: Annotated[
        str | None,
        typer.Option(metavar="METRIC=VALUE", help="The target to reach, such as success_rate=0.8."),
    ] = None,
    margin: Annotated[
        float,
        typer.Option(help="A PASS shows a rate above VALUE - margin, or above the old run's rate - margin."),
    ] = MARGIN,
    against: Annotated[Path | None, typer.Option(metavar="OLD", help="Compare with this older file.")] = None,
    start_seed: Annotated[int | None, typer.Option(min=0, help=_SEED_HELP.format("FILE"))] = None,
    against_start_seed: Annotated[int | None, typer.Option(min=0, help=_SEED_HELP.format("OLD"))] = None,
    policy: Annotated[
        str | None, typer.Option(help="Which policy to gate, if report.json holds several.")
    ] = None,
) -> None:
    """Gate a finished run from its FILE: against a target, an older run, or both.

    No rollout, any task. Exit status 1: FAIL. 6: the target is INCONCLUSIVE. 0: otherwise.
    """
    try:
        wanted = None if target is None else _wanted(target, margin)
        if against is None and against_start_seed is not None:
            raise IlBenchError("--against-start-seed: there is no --against whose seeds it could be")
        from il_bench.finished import judged, reading
        from il_bench.gate import exit_status

        run = reading.read(given_path(file), policy)
        gates = {}
        _tell_rates(run)
        if wanted is not None:
            metric, value = wanted
            if metric != DEFAULT_METRIC:
                found, digits = judged.mean_max_reward(run), METRICS[metric].digits
                typer.echo(f"{metric} {METRICS[metric].text(*found, digits=digits)}")
            result = judged.against_target(run, value, margin, metric)
            typer.echo(f"target {target}: {result}")
            gates["target"] = {"decision": result.decision, "required": True}
        if against is not None:
            old = reading.read(given_path(against), policy)
            compared = judged.against_run(run, old, margin, (start_seed, against_start_seed))
            _tell_comparison(compared, old)
            gates["baseline"] = {"decision": compared.decision}
        if not gates:
            typer.echo("NOT GATED; give --target success_rate=VALUE or --against OLD")
    except IlBenchError as error:
        fail(error)
    if status := exit_status([gates]):
        raise typer.Exit(status)


def _wanted(target: str, margin: float) -> tuple[str, float]:
    if not 0 < margin < 1:
        raise IlBenchError(f"--margin: {margin:g}; need a number between 0 and 1, such as {MARGIN}")
    return target_of(target, "--target", margin)


def _tell_rates(run: "FinishedRun") -> None:
    from il_bench.finished import judged

    parts = [*run.tasks, judged.together(run)] if len(run.tasks) > 1 else run.tasks
    width = max(len(part.name) for part in parts)
    typer.echo(f"{run.path}: {run.form}")
    for part in parts:
        low, high = judged.interval(part)
        rate = f"{part.successes / part.n:.3f} [{low:.3f}, {high:.3f}]"
        typer.echo(f"{part.name:{width}}  {DEFAULT_METRIC} {rate}, {part.successes:,} of {part.n:,} episodes")


def _tell_comparison(found: "ComparedRuns", old: "FinishedRun") -> None:
    from il_bench.gate.fixed import p_text

    several = len(found.tasks) > 1
    divided = (
        f"; alpha {found.alpha:.2g} each, 0.05 divided by {len(found.tasks)} comparisons" if several else ""
    )
    typer.echo(f"against {old.path}: {found.how}{divided}")
    for name, why in found.alone.items():
        typer.echo(f"{name}: not compared, {why}")
    width = max(len(task.name) for task in found.tasks)
    for task in found.tasks:
        was, now = task.old.successes / task.old.n, task.new.successes / task.new.n
        told = f"was {was:.3f}, is {now:.3f}"
        if task.difference is not None:
            d, low, high, p = task.difference
            told += f", difference {d:+.3f} [{low:+.3f}, {high:+.3f}], {p_text(p)}"
        typer.echo(f"{task.name:{width}}  {task.result.decision} ({task.result.shown}); {told}")
    if found.outlook:
        typer.echo(found.outlook)
