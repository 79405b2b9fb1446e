"""What the subcommands of `il-bench` share."""

import os
import sys
from typing import NoReturn

import typer

from il_bench.errors import IlBenchError

HUMAN_DATA = "IL_BENCH_HUMAN_DATA"
DATA_HELP = (
    "Demonstrations: 'expert', which il_bench carries; a Hub id; a LeRobot folder; a replay buffer (.npz, "
    f".zarr); or 'human', the folder that the environment variable {HUMAN_DATA} names."
)


def resolve_data(data: str, option: str = "--data") -> tuple[str, str | None]:
    """The source that ``--data`` means, and what reports call it (None: by its own name)."""
    if data != "human":
        return data, None
    folder = os.environ.get(HUMAN_DATA)
    if not folder:
        raise IlBenchError(
            f"{option} human: the environment variable {HUMAN_DATA} is not set. Point it at the folder with "
            f"human_demos.npz, or give {option} lerobot/pusht_keypoints to fetch the same data from the Hub."
        )
    return folder, "human"


def fail(error: IlBenchError) -> NoReturn:
    """Print what is wrong, in one line, and end with status 2."""
    typer.secho(f"il-bench: {error}", fg="red", err=True)
    sys.exit(2)
