"""The ``il-bench`` command."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from il_bench.errors import IlBenchError

if TYPE_CHECKING:
    from il_bench.train import Trainer

os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # before anything imports pygame
HUMAN_DATA = "IL_BENCH_HUMAN_DATA"
VALIDATION_SEEDS = 100_000
MAX_TRAINING_SEED = 99_999

app = typer.Typer(
    help="Train and evaluate imitation-learning policies on PushT.",
    no_args_is_help=True,
    add_completion=False,
)


@app.callback()
def main() -> None:
    """Train and evaluate imitation-learning policies on PushT."""


@app.command()
def train(
    policy: Annotated[str, typer.Argument(help="bc, bet, vqbet, act or diffusion.")],
    data: Annotated[
        str,
        typer.Option(
            help="Demonstrations: a Hub id, a LeRobot folder, a replay buffer (.npz, .zarr), or 'human', "
            f"the folder that the environment variable {HUMAN_DATA} names."
        ),
    ],
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
    """Train POLICY by its recipe; every hyperparameter is in il_bench/recipes/.

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
        _fail(error)
    if finished:
        typer.echo(f"Done. Evaluate it: pytest --benchmark --pyargs il_bench.suite --il-policy {output}")
    else:
        typer.echo(f"Stopped and saved at step {trainer.step}. To go on: the same command with --resume")
        raise typer.Exit(130)


def resolve_data(data: str) -> tuple[str, str | None]:
    """The source that ``--data`` means, and what reports call it (None: by its own name)."""
    if data != "human":
        return data, None
    folder = os.environ.get(HUMAN_DATA)
    if not folder:
        raise IlBenchError(
            f"--data human: the environment variable {HUMAN_DATA} is not set. Point it at the folder with "
            "human_demos.npz, or give --data lerobot/pusht_keypoints to fetch the same data from the Hub."
        )
    return folder, "human"


def _validate(trainer: "Trainer", n_episodes: int) -> tuple[float, float]:
    """success_rate and mean_max_reward of the averaged policy on validation seeds; NaN in a first phase."""
    from il_bench.policies.loading import wrap
    from il_bench.rollout import rollout

    policy = trainer.average.policy
    if getattr(policy, "in_first_phase", False):
        return float("nan"), float("nan")
    wrapped = wrap(policy, trainer.preprocessor, trainer.postprocessor, name="in training")
    outcomes = rollout(wrapped, range(VALIDATION_SEEDS, VALIDATION_SEEDS + n_episodes))
    return outcomes.success_rate, outcomes.mean_max_reward


def _fail(error: IlBenchError) -> NoReturn:
    typer.secho(f"il-bench: {error}", fg="red", err=True)
    sys.exit(2)
