"""The commands of `il-bench zoo`."""

from pathlib import Path
from typing import Annotated

import typer

from il_bench import zoo
from il_bench.errors import IlBenchError, fail
from il_bench.files import given_path
from il_bench.protocol import EXPERT, KEYPOINTS, TRACKS

app = typer.Typer(help="The policies that ship with il_bench.", no_args_is_help=True)


@app.callback()
def _zoo() -> None:
    pass


@app.command(epilog="Example: il-bench zoo export vqbet --track pixels --output runs/vqbet_pixels")
def export(
    policy: Annotated[str, typer.Argument(help="A shipped policy by name: act, vqbet, ...")],
    output: Annotated[Path, typer.Option(help="The folder to create.")],
    track: Annotated[str, typer.Option(help=f"What it sees: {' or '.join(TRACKS)}.")] = KEYPOINTS,
) -> None:
    """Write POLICY as an ordinary `pretrained_model` folder, which LeRobot's commands load.

    On images this puts together the eye that all policies share and what is the policy's own. Reports and
    baselines name such a policy by the hash of this folder.
    """
    from il_bench.zoo import pixels

    try:
        if track not in TRACKS:
            raise IlBenchError(f"--track: {track!r} is not a track; use {' or '.join(TRACKS)}")
        found = zoo.resolve(policy, track=track)
        if not found.is_shipped:
            there = ", ".join(zoo.shipped(found.track or track))
            what = "the planner, which has no weights" if policy == EXPERT else "no policy that ships"
            raise IlBenchError(f"{policy}: {what}; give one of {there}")
        output = given_path(output)
        pixels.export(found, output)
    except IlBenchError as error:
        fail(error)
    typer.echo(f"{output}: {found.name}, on {found.track}")
