"""The ``il-bench`` command."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from il_bench.demos.cli import app as demos
from il_bench.errors import IlBenchError, fail
from il_bench.latency.cli import compare
from il_bench.protocol import DATA_HELP, SEED_STARTS
from il_bench.report.cli import app as report
from il_bench.suite.cli import evaluate, vocabulary
from il_bench.train.lerobot.options import Options

if TYPE_CHECKING:
    from il_bench.train.loop import Trainer

os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # before anything imports pygame
MAX_TRAINING_SEED = 99_999
PIXELS = "pixels"  # the track that LeRobot's trainer trains


app = typer.Typer(
    help="Train and evaluate imitation-learning policies on PushT.",
    no_args_is_help=True,
    add_completion=False,
)
app.add_typer(demos, name="demos")
app.add_typer(report, name="report")
app.command()(compare)
app.command()(evaluate)
report.command()(vocabulary)


@app.callback()
def main() -> None:
    """Train and evaluate imitation-learning policies on PushT."""


@app.command()
def train(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="POLICY",
            help="bc, bet, vqbet, act, diffusion, or a recipe of your own (.toml). With --track pixels, "
            "flags of lerobot-train may follow after --, and win; or -- and a whole line of it alone.",
        ),
    ],
    data: Annotated[str | None, typer.Option(help=DATA_HELP)] = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder of the run; checkpoints/last in it is the newest.")
    ] = None,
    track: Annotated[str, typer.Option(help="What it sees of the block: keypoints or pixels.")] = "keypoints",
    seed: Annotated[
        int | None,
        typer.Option(min=0, max=MAX_TRAINING_SEED, help="Initialisation, order, noise.  [default: 1]"),
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Instead of the recipe's number of steps.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Instead of the recipe's.")] = None,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, cuda:1, mps.  [default: cpu]", show_default=False)
    ] = None,
    save_every: Annotated[
        int | None, typer.Option(min=1, help="Steps between checkpoints.  [default: 500; the pixel recipe's]")
    ] = None,
    eval_every: Annotated[
        int | None,
        typer.Option(min=0, help="Steps between evaluations; 0: none.  [default: 2000; the pixel recipe's]"),
    ] = None,
    eval_episodes: Annotated[
        int | None, typer.Option(min=1, max=1000, help="Episodes of one evaluation.  [default: 50]")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the output folder's last checkpoint.")
    ] = False,
    print_command: Annotated[
        bool,
        typer.Option("--print-command", help="Print lerobot-train's line, and do not run it (pixels)."),
    ] = False,
) -> None:
    """Train POLICY by its recipe; the shipped ones, with every hyperparameter, are in its train/recipes/.

    On keypoints il_bench trains; Ctrl-C saves and says how to go on. On pixels LeRobot's lerobot-train does.
    """
    try:
        from il_bench.data.sources import resolve_data

        source, name = (None, None) if data is None else resolve_data(data)
        options = Options(
            data=source,
            data_name=name,
            output=output,
            seed=seed,
            steps=steps,
            batch_size=batch_size,
            device=device,
            save_every=save_every,
            eval_every=eval_every,
            eval_episodes=eval_episodes,
            resume=resume,
            print_command=print_command,
        )
        finished = _train(words, track, options)
    except IlBenchError as error:
        fail(error)
    if not finished:
        raise typer.Exit(130)


def _train(words: list[str], track: str, options: Options) -> bool:
    """By the trainer that ``words`` and ``track`` ask for; False if it was interrupted."""
    if words[0].startswith("--") or words[0] == "lerobot-train":
        from il_bench.train.lerobot.command import train_line

        return train_line(words, options)
    if track == PIXELS:
        from il_bench.train.lerobot.command import train_recipe

        return train_recipe(words[0], options, words[1:])
    if words[1:]:
        raise IlBenchError(f"{words[1]!r}: flags of lerobot-train go with --track pixels.")
    if options.print_command:
        raise IlBenchError(
            "--print-command: on keypoints il_bench trains itself (averaged weights, data in memory), and no "
            "lerobot-train line does the same; give --track pixels, or a line of lerobot-train after --."
        )
    return _train_here(words[0], track, options)


def _train_here(policy: str, track: str, options: Options) -> bool:
    from il_bench.train import checkpoint, recipes
    from il_bench.train import log as training_log
    from il_bench.train.loop import Trainer

    source, output = options.needed()
    if checkpoint.exists(output) and not options.resume:
        raise IlBenchError(f"{output}: holds a run already. Add --resume to go on, or give another --output.")
    if options.resume and not checkpoint.exists(output):
        raise IlBenchError(f"{output}: holds no checkpoint to resume; leave --resume out to start.")
    overrides = {"steps": options.steps, "batch_size": options.batch_size}
    recipe = recipes.load(policy, track, {k: v for k, v in overrides.items() if v is not None})
    seed = 1 if options.seed is None else options.seed
    device = options.device or "cpu"
    trainer = Trainer(recipe, source, seed=seed, output=output, device=device, data_name=options.data_name)
    if options.resume:
        checkpoint.restore(trainer)
    first_phase_steps, all_steps = trainer.first_phase_steps, trainer.settings.steps
    with training_log.TrainingLog(
        output, trainer.step, first_phase_steps=first_phase_steps, steps=all_steps
    ) as log:
        finished = trainer.run(
            save_every=options.save_every or 500,
            on_progress=log.progress,
            eval_every=2000 if options.eval_every is None else options.eval_every,
            on_evaluate=lambda t: log.evaluation(t.step, *_validate(t, options.eval_episodes or 50)),
        )
    if finished:
        typer.echo(f"Done. Evaluate it: pytest --benchmark --pyargs il_bench.suite --il-policy {output}")
    else:
        typer.echo(f"Stopped and saved at step {trainer.step}. To go on: the same command with --resume")
    return finished


def _validate(trainer: "Trainer", n_episodes: int) -> tuple[float, float]:
    """success_rate and mean_max_reward of the averaged policy on validation seeds; NaN in a first phase."""
    from il_bench.policies.checkpoint import wrap
    from il_bench.rollout import rollout

    policy, start = trainer.average.policy, SEED_STARTS["validation"]
    if trainer.step <= trainer.first_phase_steps:
        return float("nan"), float("nan")
    wrapped = wrap(policy, trainer.preprocessor, trainer.postprocessor, name="in training")
    outcomes = rollout(wrapped, range(start, start + n_episodes))
    return outcomes.success_rate, outcomes.mean_max_reward
