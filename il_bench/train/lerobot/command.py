"""``il-bench train`` where LeRobot's own trainer does the work: recipes for images, lines of LeRobot's."""

import typer
from lerobot.utils.device_utils import is_torch_device_available

from il_bench.errors import IlBenchError
from il_bench.train import first_phase, recipes
from il_bench.train.lerobot import data, plan, resume, run
from il_bench.train.lerobot.options import Options
from il_bench.train.lerobot.plan import Plan

SAVED = "Stopped. The last checkpoint is of step {step}. To go on: the same command with --resume"


def train_recipe(policy: str, options: Options, extra: list[str]) -> bool:
    """Train ``policy`` by its recipe for images; False if it was interrupted.

    Args:
        policy: a policy's name, or the path of a recipe.
        options: as given on the command line.
        extra: words of ``lerobot-train``'s command line that win over the recipe.

    Raises:
        IlBenchError: for whatever does not fit, before anything is trained.
    """
    source, output = options.needed()
    overrides = {"steps": options.steps, "batch_size": options.batch_size}
    overrides |= {"save_freq": options.save_every, "env_eval_freq": options.eval_every}
    recipe = recipes.load_pixels(policy, {k: v for k, v in overrides.items() if v is not None})
    given = data.flags_of(source) | {
        "policy.device": options.device or "cpu",
        "seed": str(1 if options.seed is None else options.seed),
        "output_dir": str(output),
    }
    if options.eval_episodes is not None:
        given["eval.n_episodes"] = str(options.eval_episodes)
    return _train(plan.from_recipe(recipe, given, extra), options)


def train_line(words: list[str], options: Options) -> bool:
    """Train by a command line of ``lerobot-train``, an older one perhaps; False if it was interrupted.

    Args:
        words: the line.
        options: il-bench's, given before the line: added to it.

    Raises:
        IlBenchError: for whatever does not fit, before anything is trained.
    """
    names = {
        "dataset.root": options.data,
        "output_dir": options.output,
        "seed": options.seed,
        "steps": options.steps,
        "batch_size": options.batch_size,
        "policy.device": options.device,
        "save_freq": options.save_every,
        "env_eval_freq": options.eval_every,
        "eval.n_episodes": options.eval_episodes,
    }
    made = plan.from_line(words, {name: str(value) for name, value in names.items() if value is not None})
    if not options.print_command and "config_path" not in made.flags:
        data.check(made.flags)
    return _train(made, options)


def _train(made: Plan, options: Options) -> bool:
    output, start = made.output, 0
    if options.resume:
        if output is None or not resume.exists(output):
            raise IlBenchError(f"{output}: holds no checkpoint to resume; leave --resume out to start.")
        start, made = resume.saved_step(output), resume.plan(made, output)
    for note in made.notes:
        typer.secho(f"il-bench: {note}", fg="yellow", err=options.print_command)
    if options.print_command:
        typer.echo(made.command())
        return True
    if output is not None and output.exists() and not options.resume and "config_path" not in made.flags:
        raise IlBenchError(f"{output}: is there already. Add --resume to go on, or give another --output.")
    _check_device(made.flags.get("policy.device"))
    if start < made.first_phase_steps:
        steps = int(made.flags.get("steps", options.steps or 0) or made.first_phase_steps + 1)
        typer.secho(f"il-bench: {first_phase.ahead(made.first_phase_steps, steps)}", fg="yellow")
    if run.run(made, start_step=start):
        if output is not None:
            typer.echo(f"Done. Evaluate it: il-bench evaluate {output}")
        return True
    typer.echo(SAVED.format(step=0 if output is None else resume.saved_step(output)))
    return False


def _check_device(device: str | None) -> None:
    try:
        there = device is None or is_torch_device_available(device)
    except ValueError:  # a kind of device that LeRobot has never heard of
        there = False
    if not there:
        raise IlBenchError(f"{device}: no such device here; give --device cpu, or run it where there is one.")
