"""What the name of demonstrations means: told before anything heavy is imported."""

import difflib
import os
import re
from pathlib import Path

from il_bench.errors import IlBenchError
from il_bench.protocol import EXPERT, HUMAN_DATA

HUMAN = "human"
ACCEPTED = (
    "a Hub id such as lerobot/pusht_keypoints, a LeRobot v3 folder, 'expert', a replay buffer (.npz or .zarr)"
)
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def path_of(source: str | Path) -> Path | None:
    """The path that a source means, None for a Hub id; IlBenchError with the nearest name for neither."""
    # Unlike os.path, Path raises for names that no file or user can have.
    path = Path(os.path.expanduser(source))
    if os.path.exists(path):
        return path
    if isinstance(source, str) and _HUB_ID.fullmatch(source) and path.suffix not in (".npz", ".zarr"):
        return None
    raise IlBenchError(f"{source}: no such file or folder{_nearest(str(source))}; expected {ACCEPTED}")


def resolve_data(data: str, option: str = "--data") -> tuple[str, str | None]:
    """The source that ``--data`` means, and what reports call it (None: by its own name).

    Raises IlBenchError for one that is neither there nor a Hub id.
    """
    if data == HUMAN:
        folder = os.environ.get(HUMAN_DATA)
        if not folder:
            raise IlBenchError(
                f"{option} human: the environment variable {HUMAN_DATA} is not set. Point it at the folder "
                f"with human_demos.npz, or give {option} lerobot/pusht_keypoints to fetch the same data from "
                "the Hub."
            )
        data, name = folder, HUMAN
    else:
        name = None
    if data != EXPERT:
        path_of(data)
    return data, name


def _nearest(source: str) -> str:
    """The nearest of the names that there are: ours, and those beside where it would lie."""
    folder, _, name = source.rpartition(os.sep)
    try:
        beside = os.listdir(os.path.expanduser(folder) or ("/" if source.startswith(os.sep) else "."))
    except (OSError, ValueError):
        beside = []
    known = [*beside, *(() if folder else (EXPERT, HUMAN))]
    near = difflib.get_close_matches(name, known, n=1)
    return f", the nearest is {os.path.join(folder, near[0])}" if near else ""
