"""The ``il-bench`` command."""

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from il_bench.command import DATA_HELP, fail, resolve_data
from il_bench.demos.cli import app as demos
from il_bench.errors import IlBenchError
from il_bench.latency.cli import compare
from il_bench.options import MAX_EPISODES, SEED_STARTS
from il_bench.report.cli import app as report

if TYPE_CHECKING:
    from il_bench.train import Trainer

os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # before anything imports pygame
MAX_TRAINING_SEED = 99_999


class SeedRange(StrEnum):
    """Validation seeds are for choosing, test seeds for numbers that are reported."""

    TEST = "test"
    VALIDATION = "validation"


app = typer.Typer(
    help="Train and evaluate imitation-learning policies on PushT.",
    no_args_is_help=True,
    add_completion=False,
)
app.add_typer(demos, name="demos")
app.add_typer(report, name="report")
app.command()(compare)


@app.callback()
def main() -> None:
    """Train and evaluate imitation-learning policies on PushT."""


@app.command()
def train(
    policy: Annotated[
        str, typer.Argument(help="bc, bet, vqbet, act, diffusion, or a recipe of your own (.toml).")
    ],
    data: Annotated[str, typer.Option(help=DATA_HELP)],
    output: Annotated[Path, typer.Option(help="Folder of the run; checkpoints/last in it is the newest.")],
    track: Annotated[str, typer.Option(help="keypoints.")] = "keypoints",
    seed: Annotated[
        int, typer.Option(min=0, max=MAX_TRAINING_SEED, help="Initialisation, order, noise.")
    ] = 1,
    steps: Annotated[int | None, typer.Option(min=1, help="Instead of the recipe's number of steps.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Instead of the recipe's.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps.")] = "cpu",
    save_every: Annotated[int, typer.Option(min=1, help="Steps between checkpoints.")] = 500,
    eval_every: Annotated[int, typer.Option(min=0, help="Steps between evaluations; 0: none.")] = 2000,
    eval_episodes: Annotated[
        int, typer.Option(min=1, max=1000, help="Validation seeds of one evaluation.")
    ] = 50,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the output folder's last checkpoint.")
    ] = False,
) -> None:
    """Train POLICY by its recipe; the shipped ones, with every hyperparameter, are in il_bench/recipes/.

    Ctrl-C saves and says how to go on.
    """
    try:
        source, name = resolve_data(data)
        from il_bench import checkpoint, recipes, training_log
        from il_bench.train import Trainer

        if checkpoint.exists(output) and not resume:
            raise IlBenchError(
                f"{output}: holds a run already. Add --resume to go on, or give another --output."
            )
        if resume and not checkpoint.exists(output):
            raise IlBenchError(f"{output}: holds no checkpoint to resume; leave --resume out to start.")
        overrides = {k: v for k, v in (("steps", steps), ("batch_size", batch_size)) if v is not None}
        recipe = recipes.load(policy, track, overrides)
        trainer = Trainer(recipe, source, seed=seed, output=output, device=device, data_name=name)
        if resume:
            checkpoint.restore(trainer)
        with training_log.TrainingLog(output, trainer.step) as log:
            finished = trainer.run(
                save_every=save_every,
                on_progress=log.progress,
                eval_every=eval_every,
                on_evaluate=lambda t: log.evaluation(t.step, *_validate(t, eval_episodes)),
            )
    except IlBenchError as error:
        fail(error)
    if finished:
        typer.echo(f"Done. Evaluate it: pytest --benchmark --pyargs il_bench.suite --il-policy {output}")
    else:
        typer.echo(f"Stopped and saved at step {trainer.step}. To go on: the same command with --resume")
        raise typer.Exit(130)


@app.command()
def evaluate(
    policy: Annotated[
        str, typer.Argument(help="A shipped policy by name, a checkpoint folder, or a Hub id.")
    ],
    output: Annotated[Path | None, typer.Option(help="Write the numbers to this JSON file too.")] = None,
    seeds: Annotated[SeedRange, typer.Option(help="Which start states.")] = SeedRange.VALIDATION,
    episodes: Annotated[int, typer.Option(min=1, max=MAX_EPISODES, help="The first so many of them.")] = 200,
    workers: Annotated[int, typer.Option(min=1, help="Processes; the result does not depend on it.")] = 1,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps.")] = "cpu",
) -> None:
    """Roll POLICY out and print its rates with 95 % intervals. Gates are `pytest --benchmark`."""
    try:
        from il_bench import environment
        from il_bench.baselines import Baselines
        from il_bench.policies.loading import PolicyLoader
        from il_bench.report.schema import write_whole
        from il_bench.report.success import judge
        from il_bench.rollout import rollout

        loader = PolicyLoader(policy, device)
        loaded = loader()
        start = SEED_STARTS[seeds.value]
        with _episodes_bar(episodes) as on_block:
            outcomes = rollout(loader, range(start, start + episodes), workers=workers, on_block=on_block)
        fingerprint = environment.fingerprint(device)
        row = judge(loaded.name, loaded, outcomes, baselines=Baselines(), fingerprint=fingerprint).row
        for name in ("success_rate", "mean_max_reward"):
            value = getattr(row, name)
            typer.echo(f"{name} {value.estimate:.3f} [{value.low:.3f}, {value.high:.3f}]")
        if output is not None:
            facts = row.model_dump(mode="json", exclude={"decision", "target", "baseline", "episodes"})
            facts |= {"seeds": [start, start + episodes - 1], "environment": environment.describe()}
            write_whole(output, (json.dumps(facts, indent=2) + "\n").encode())
    except IlBenchError as error:
        fail(error)


@contextmanager
def _episodes_bar(episodes: int) -> Iterator[Callable[[int, int], None] | None]:
    if not sys.stderr.isatty():
        yield None
        return
    with typer.progressbar(length=episodes, label="episodes", file=sys.stderr) as bar:
        yield lambda done, total: bar.update(episodes * done // total - bar.pos)


def _validate(trainer: "Trainer", n_episodes: int) -> tuple[float, float]:
    """success_rate and mean_max_reward of the averaged policy on validation seeds; NaN in a first phase."""
    from il_bench.policies.loading import wrap
    from il_bench.rollout import rollout

    policy, start = trainer.average.policy, SEED_STARTS["validation"]
    if getattr(policy, "in_first_phase", False):
        return float("nan"), float("nan")
    wrapped = wrap(policy, trainer.preprocessor, trainer.postprocessor, name="in training")
    outcomes = rollout(wrapped, range(start, start + n_episodes))
    return outcomes.success_rate, outcomes.mean_max_reward
