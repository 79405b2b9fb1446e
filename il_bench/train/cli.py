"""The `il-bench train` command."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from il_bench.errors import IlBenchError, fail
from il_bench.files import given_path
from il_bench.machine import check_device
from il_bench.protocol import DATA_HELP, KEYPOINTS, LAST_TRAINING_SEED, PIXELS, SEED_STARTS
from il_bench.train import TrainOptions

if TYPE_CHECKING:
    from il_bench.train.loop import Trainer
    from il_bench.train.recipes import Recipe

#: Where the recipes of heads on an eye lie, beside those of the tracks.
_HEADS = "heads"
#: Policies with a recipe; `recipes.names` would import pydantic for `--help`.
_SHIPPED = sorted(recipe.stem for recipe in Path(__file__).parent.glob(f"recipes/{KEYPOINTS}/*.toml"))


def train(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="POLICY",
            help=f"{', '.join(_SHIPPED)}, or a recipe of your own (.toml); eye, for policies on images. With "
            "--track pixels and without --eye, flags of lerobot-train may follow after --; they override "
            "the recipe. Or give -- and a whole lerobot-train command.",
        ),
    ],
    data: Annotated[str | None, typer.Option(help=DATA_HELP)] = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder for the run; checkpoints/last in it is the newest.")
    ] = None,
    eye: Annotated[
        Path | None,
        typer.Option(
            help="On images, train everything but the image encoder, on this eye: the folder of "
            "`il-bench train eye`, or its file."
        ),
    ] = None,
    track: Annotated[str, typer.Option(help="What the policy sees: keypoints or pixels.")] = KEYPOINTS,
    seed: Annotated[
        int | None,
        typer.Option(
            min=0, max=LAST_TRAINING_SEED, help="Seed of initialisation, order and noise.  [default: 1]"
        ),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Training steps; more than before, with --resume, extend a run.  [default: the recipe's]",
        ),
    ] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="[default: the recipe's]")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps.  [default: cpu]")] = None,
    save_every: Annotated[
        int | None, typer.Option(min=1, help="Steps between checkpoints.  [default: 500; the pixel recipe's]")
    ] = None,
    eval_every: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Steps between evaluations on validation seeds; 0 for none.  "
            "[default: 2000; the pixel recipe's]",
        ),
    ] = None,
    eval_episodes: Annotated[
        int | None, typer.Option(min=1, max=1000, help="Episodes in each evaluation.  [default: 50]")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue from the last checkpoint in the output folder.")
    ] = False,
    print_command: Annotated[
        bool,
        typer.Option("--print-command", help="Print the lerobot-train command without running it (pixels)."),
    ] = False,
) -> None:
    """Train POLICY with its recipe. Every hyperparameter of the shipped ones is in il_bench/train/recipes/.

    Keypoint policies train in il_bench's own loop: Ctrl-C saves and says how to continue. So do policies on
    pixels with --eye; without it, lerobot-train does the training.
    """
    try:
        from il_bench.data.names import resolve_data

        source, name = (None, None) if data is None else resolve_data(data)
        options = TrainOptions(
            data=source,
            data_name=name,
            output=output,
            eye=eye,
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


def _train(words: list[str], track: str, options: TrainOptions) -> bool:
    """Train with the trainer that ``words`` and ``track`` ask for; False if it was interrupted."""
    if words[0] == "eye":
        return _train_eye(words, options)
    is_command = words[0].startswith("--") or words[0] == "lerobot-train"
    if options.eye is not None:
        if is_command:
            raise IlBenchError(
                "--eye: lerobot-train has no flag for it; name a policy, as in `train act --eye EYE`."
            )
        track = _HEADS
    if not is_command:  # what names nothing is refused before anything heavy is imported
        from il_bench.train import recipes

        recipes.check_name(words[0], track)
    if options.device is not None:
        check_device(options.device)
    if is_command or track == PIXELS:
        from il_bench.train.lerobot import command

        return command.train_command(words, options) if is_command else command.train_recipe(words, options)
    if words[1:]:
        raise IlBenchError(f"{words[1]!r}: flags of lerobot-train need --track pixels.")
    if options.print_command:
        raise IlBenchError(
            "--print-command: on keypoints il_bench trains itself (averaged weights, data in memory), and no "
            "lerobot-train command does the same; give --track pixels, or a lerobot-train command after --."
        )
    return _train_by_own_loop(words[0], track, options)


def _train_eye(words: list[str], options: TrainOptions) -> bool:
    from il_bench.train.pixels.commands import train_eye  # takes seconds

    refused = {"--data": options.data, "--eye": options.eye, "--device": options.device}
    if given := [*words[1:], *(name for name, value in refused.items() if value is not None)]:
        raise IlBenchError(
            f"{given[0]}: does not apply to the eye, which draws its own images; leave it out."
        )
    finished = train_eye(options, typer.echo)
    typer.echo(
        f"Done. Train a policy on it: il-bench train POLICY --eye {options.output} --data DATA --output RUN"
        if finished
        else "Stopped and saved. To continue: the same command with --resume"
    )
    return finished


def _train_by_own_loop(policy: str, track: str, options: TrainOptions) -> bool:
    trainer, start = _trainer(policy, track, options), SEED_STARTS["validation"]
    from il_bench.data import statistics
    from il_bench.policies.checkpoint import wrap
    from il_bench.rollout import rollout
    from il_bench.train.log import Display, Progress, TrainingLog

    if trainer.computed_statistics:
        told = statistics.told(trainer.computed_statistics)
        typer.secho(f"{trainer.source}: {told}", fg="yellow", err=True)
    seeds = range(start, start + (options.eval_episodes or 50))
    steps = {"steps": trainer.settings.steps, "residual_vq_steps": trainer.residual_vq_steps}
    with Display(trainer.settings.steps) as display:
        if trainer.extended and trainer.extended[-1].at == trainer.step:
            display.say(_extended(trainer))
        log = TrainingLog(trainer.output, trainer.step, display.say, **steps)

        def on_progress(at: Progress) -> None:
            display.show(at)
            log.training(**asdict(at))

        def on_evaluate() -> None:
            if log.has_policy(trainer.step):
                parts = trainer.whole_policy, trainer.preprocessor, trainer.postprocessor
                found = rollout(wrap(*parts, name="in training"), seeds)
                log.evaluation(trainer.step, found.success_rate, found.mean_max_reward)

        finished = trainer.run(
            save_every=options.save_every or 500,
            on_progress=on_progress,
            eval_every=_eval_every(options),
            on_evaluate=on_evaluate,
        )
    evaluate = f"pytest --benchmark --pyargs il_bench.suite --il-policy {trainer.output}"
    stopped = f"Stopped and saved at step {trainer.step}. To continue: the same command with --resume"
    typer.echo(f"Done. Evaluate it: {evaluate}" if finished else stopped)
    return finished


def _extended(trainer: "Trainer") -> str:
    before, steps = trainer.extended[-1].steps, trainer.settings.steps
    return (
        f"step {trainer.step}: extended from {before} to {steps} steps; the learning rate "
        f"moves to the schedule of {steps} steps within {trainer.settings.warmup_steps} steps"
    )


def _eval_every(options: TrainOptions) -> int:
    if options.eval_every is not None:
        return options.eval_every
    return 0 if options.eye else 2000  # an evaluation on images takes longer than the training between two


def _trainer(policy: str, track: str, options: TrainOptions) -> "Trainer":
    """A new run, or the one in the output folder with --resume."""
    from il_bench.train import checkpoints, recipes

    source, output = options.data_and_output()
    found = checkpoints.newest(output)
    if found and not options.resume:
        raise IlBenchError(f"{output}: already holds a run; add --resume, or give another --output.")
    if options.resume and not found:
        raise IlBenchError(f"{output}: holds no checkpoint to resume; leave --resume out to start.")
    recipe = recipes.load(policy, track, options.given_as({"steps": "steps", "batch_size": "batch_size"}))
    trainer = _new_trainer(recipe, source, output, options)
    if options.resume:
        trainer.restore()
    return trainer


def _new_trainer(recipe: "Recipe", source: str, output: Path, options: TrainOptions) -> "Trainer":
    given: dict[str, Any] = {
        "seed": 1 if options.seed is None else options.seed,
        "output": output,
        "device": options.device or "cpu",
        "data_name": options.data_name,
    }
    if options.eye is not None:
        from il_bench.train.pixels.heads import HeadTrainer

        return HeadTrainer(recipe, source, eye=given_path(options.eye), on_seen=_tell_seen, **given)
    from il_bench.train.loop import Trainer  # takes seconds

    return Trainer(recipe, source, **given)


def _tell_seen(done: int, frames: int) -> None:
    typer.echo(f"The eye has seen {done:,} of {frames:,} frames.")
