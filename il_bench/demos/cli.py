"""The `il-bench demos` commands."""

import json
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from il_bench import machine
from il_bench.errors import IlBenchError, fail
from il_bench.files import given_path
from il_bench.protocol import DATA_HELP
from il_bench.rollout import executors, progress
from il_bench.rollout.options import AddressOption, ExecutorOption

if TYPE_CHECKING:
    from il_bench.demos.check import Finding
    from il_bench.demos.states import States

app = typer.Typer(
    help="Make demonstrations with PushT's expert, merge, draw, check and describe them.",
    no_args_is_help=True,
)
_MAX_SHOWN = 10
_Output = Annotated[Path, typer.Option(help="Folder for the new LeRobotDataset.")]
_Workers = Annotated[int, typer.Option(min=1, help="Number of processes; it does not change the data.")]


@contextmanager
def _one_line(kept: str = "") -> Iterator[None]:
    """Print an error in one line and exit 2; on Ctrl-C, say what is kept and exit 130."""
    try:
        yield
    except IlBenchError as error:
        fail(error)
    except KeyboardInterrupt:
        if not kept:
            raise
        typer.echo(f"Stopped; finished {kept} are kept. Repeat the command to continue", err=True)
        raise typer.Exit(130) from None


@app.command(epilog="Example: il-bench demos make --episodes 1000 --seed 1000 --output runs/expert")
def make(
    episodes: Annotated[int, typer.Option(min=1, help="Number of start states.")],
    output: _Output,
    seed: Annotated[int, typer.Option(min=0, help="Of the first start state; all are below 100000.")] = 0,
    noise: Annotated[
        float,
        typer.Option(
            help="Disturb the executed actions, but record the expert's (DART): the standard deviation of "
            "each action's angle (radians) and length (log)."
        ),
    ] = 0.0,
    from_policy: Annotated[
        str | None,
        typer.Option(
            help="Let this policy drive first (DAgger): a shipped name, a checkpoint folder or a Hub id."
        ),
    ] = None,
    takeover_max: Annotated[
        int | None,
        typer.Option(help="With --from-policy: the expert takes over after 0 to this many steps (200)."),
    ] = None,
    only_unsolved: Annotated[
        bool,
        typer.Option(
            "--only-unsolved",
            help="With --from-policy: leave out episodes that it solves before the takeover.",
        ),
    ] = False,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Number of processes; it does not change the data. Default: 1, or on a Ray cluster as many "
            "as it has room for.",
        ),
    ] = None,
    executor: ExecutorOption = None,
    address: AddressOption = None,
) -> None:
    """Let the expert solve PushT and write a LeRobotDataset.

    Ctrl-C keeps what is finished; repeat the command to continue.
    """
    with _one_line(kept="blocks of episodes"):
        executors.check(executor, address)
        from il_bench.demos.make import TAKEOVER_MAX, make_demos

        if from_policy is None and (only_unsolved or takeover_max is not None):
            option = "--only-unsolved" if only_unsolved else "--takeover-max"
            raise IlBenchError(f"{option}: no policy drives before the expert; add --from-policy")
        with _progress(episodes) as on_block:
            made = make_demos(
                output,
                episodes=episodes,
                seed=seed,
                noise=noise,
                from_policy=from_policy,
                takeover_max=TAKEOVER_MAX if takeover_max is None else takeover_max,
                only_unsolved=only_unsolved,
                workers=workers or 1,
                executor=executors.of_options(executor, address, workers, machine.fingerprint),
                on_progress=on_block,
            )
    kept = [episode for episode in made.episodes if episode is not None]
    frames = sum(episode.steps for episode in kept)
    typer.echo(f"{given_path(output).resolve()}: {len(kept)} episodes, {frames} frames")
    if left_out := [str(episode.seed) for episode in made.left_out]:
        more = f" and {len(left_out) - _MAX_SHOWN} more" if len(left_out) > _MAX_SHOWN else ""
        seeds = ", ".join(left_out[:_MAX_SHOWN])
        typer.echo(f"Left out, not solved within 300 steps: {len(left_out)} (seeds {seeds}{more})")


@app.command(epilog="Example: il-bench demos merge expert runs/expert --output runs/all")
def merge(
    sources: Annotated[list[str], typer.Argument(help="Two or more. " + DATA_HELP)], output: _Output
) -> None:
    """Join SOURCES, in this order, into one LeRobotDataset."""
    with _one_line():
        from il_bench.data.names import resolve_data
        from il_bench.demos.merge import merge_demos

        resolved = [resolve_data(source, "merge") for source in sources]
        names = [name or Path(source).name for source, name in resolved]
        say = partial(typer.secho, fg="yellow", err=True)
        merged = merge_demos([source for source, _ in resolved], output, names, say)
    typer.echo(f"{output}: {merged.num_episodes} episodes, {merged.num_frames} frames")


@app.command(epilog="Example: il-bench demos align human --mirror --output runs/human")
def align(
    source: Annotated[str, typer.Argument(help=DATA_HELP)],
    output: _Output,
    mirror: Annotated[
        bool, typer.Option("--mirror", help="Append the mirror image of each demonstration.")
    ] = False,
) -> None:
    """Move each demonstration in SOURCE as a whole, so that the block ends at the goal.

    People stop a few px short of it. Away from the walls PushT is the same everywhere, so their actions are
    right there too.
    """
    with _one_line():
        from il_bench.data.names import resolve_data
        from il_bench.demos.align import align_demos

        where, name = resolve_data(source, "align")
        written = align_demos(where, output, mirror=mirror, name=name)
    typer.echo(f"{output}: {written.num_episodes} episodes, {written.num_frames} frames")


@app.command(epilog="Example: il-bench demos describe runs/expert --output runs/described")
def describe(
    source: Annotated[str, typer.Argument(help=DATA_HELP)],
    output: Annotated[
        Path | None, typer.Option(help="Folder for demos.png, the picture, and demos.json, the numbers.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the numbers as JSON instead.")] = False,
) -> None:
    """Describe the demonstrations in SOURCE: how long they are, how smooth, and how many succeed."""
    with _one_line():
        from il_bench.data import open_dataset
        from il_bench.data.names import resolve_data
        from il_bench.demos.describe import draw, measure
        from il_bench.files import write_whole, writing

        where, name = resolve_data(source, "describe")
        description = measure(open_dataset(where))
        numbers, title = description.to_dict(), name or Path(source).name
        text = json.dumps(numbers, indent=2)
        if output is not None:
            with writing(output, "give another --output"):
                write_whole(output / "demos.png", draw(description, title))
                write_whole(output / "demos.json", f"{text}\n".encode())
    if as_json:
        typer.echo(text)
    else:
        _print_table(title, numbers)


@app.command(epilog="Example: il-bench demos build --track pixels --from human --output runs/pusht")
def build(
    source: Annotated[str, typer.Option("--from", help=DATA_HELP)],
    output: _Output,
    track: Annotated[
        str, typer.Option(help="pixels: the camera, drawn from the recorded states.")
    ] = "pixels",
    video: Annotated[
        bool,
        typer.Option(
            "--video/--images", help="Small, lossy AV1, like lerobot/pusht; or PNG, every pixel as drawn."
        ),
    ] = False,
    frames: Annotated[
        Path | None,
        typer.Option(
            help="Original camera frames to compare with [default: human_frames.npz beside human data]."
        ),
    ] = None,
    workers: _Workers = 1,
) -> None:
    """Draw demonstrations without images: a LeRobotDataset like lerobot/pusht, checked when it is written.

    Ctrl-C keeps what is finished; repeat the command to continue.
    """
    with _one_line(kept="episodes"):
        if track != "pixels":
            raise IlBenchError(
                f"--track {track}: only pixels have to be drawn; for keypoints, "
                f"`il-bench train POLICY --data {source}` takes the data as they are"
            )
        from il_bench.data.names import resolve_data
        from il_bench.demos.check import FRAMES, ORIGINALS, check_dataset, read_originals
        from il_bench.demos.states import read_states

        where, name = resolve_data(source, "--from")
        states = read_states(where, name)
        if frames is None and len(states.pose) == FRAMES:  # the human demonstrations, by their number
            path = given_path(where)
            beside = (path if path.is_dir() else path.parent) / ORIGINALS
            frames = beside if beside.exists() else None
        originals = None if frames is None else read_originals(frames, len(states.pose))
        _draw(states, output, video, workers)
        findings = check_dataset(output, originals, states if video else None)
    _conclude(output, findings)


def _draw(states: "States", output: Path, video: bool, workers: int) -> None:
    from il_bench.demos.build import build_pixels, bytes_needed, inputs_of
    from il_bench.demos.output import is_made

    if is_made(output, inputs_of(states, video)):
        typer.echo(f"{output}: exists already, made by the same command; it is only checked again", err=True)
        return
    most, done = (f"{size / 1e6:.0f} MB" for size in bytes_needed(states, video))
    typer.echo(f"{output}: takes about {most} of disk while written, {done} in the end", err=True)
    typer.echo(f"Reward and success are {states.reward_from}", err=True)
    with _progress(len(states.episode_ends)) as on_episode:
        build_pixels(states, output, video=video, workers=workers, on_progress=on_episode)


@app.command(epilog="Example: il-bench demos check runs/pusht")
def check(
    data: Annotated[Path, typer.Argument(help="Folder of a LeRobotDataset for PushT.")],
    frames: Annotated[
        Path | None,
        typer.Option(help="Original camera frames to compare with: a .npz with the arrays index and image."),
    ] = None,
) -> None:
    """Check a data set with LeRobot's own checks, and against original frames and lerobot/pusht's numbers."""
    with _one_line():
        from il_bench.data.lerobot_folder import open_folder
        from il_bench.demos.check import check_dataset, read_originals

        n_frames = open_folder(given_path(data)).num_frames
        findings = check_dataset(data, None if frames is None else read_originals(frames, n_frames))
    _conclude(data, findings)


def _progress(episodes: int) -> AbstractContextManager[progress.OnBlock]:
    if sys.stderr.isatty():
        return progress.bar("demonstrations", episodes, sys.stderr, nullcontext)
    return progress.log("demonstrations", episodes, lambda line: typer.echo(line, err=True), nullcontext)


def _conclude(data: Path, findings: "list[Finding]") -> None:
    """Print what a check found; exit 1 if something is wrong."""
    typer.echo(f"{data}:")
    for finding in findings:
        mark = {True: "ok", False: "NOT OK", None: "--"}[finding.passed]
        typer.echo(f"  {mark:6}  {finding.what}: {finding.detail}")
    if any(finding.passed is False for finding in findings):
        raise typer.Exit(1)


def _print_table(title: str, numbers: dict[str, Any]) -> None:
    """Print what `Description.to_dict` gives."""
    from rich.console import Console
    from rich.table import Table

    table = Table("", title, title="Demonstrations")
    for label, key, names, how in (
        ("episodes", "episodes", (), "d"),
        ("left out, not solved", "left_out", (), "d"),
        ("frames", "frames", (), "d"),
        ("steps: mean, median", "length", ("mean", "median"), ".0f"),
        ("steps: 95 %, max", "length", ("p95", "max"), ".0f"),
        ("coverage at the end: 5 %, median, 95 %", "coverage_at_end", ("p5", "median", "p95"), ".3f"),
        ("share above 0.95", "share_above_0.95", (), ".3f"),
        ("change of action, px a step: mean, 99 %", "action_change", ("mean", "p99"), ".1f"),
        ("actions, px: lowest, highest", "action_range", (0, 1), ".0f"),
    ):
        values = [numbers[key][name] for name in names] or [numbers[key]]
        texts = ("unknown" if value is None else format(value, how) for value in values)
        table.add_row(label, ", ".join(texts))
    Console().print(table)
