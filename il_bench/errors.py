"""The one error users see."""

import traceback
from pathlib import Path


class IlBenchError(ValueError):
    """Bad input: the message names the file, field or value, and the way out."""


def place_of(error: BaseException) -> str:
    """Where in the user's code a caught ``error`` came from, "conftest.py, line 12"; else where at all."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = (str(Path(__file__).parent), "site-packages")
    own = [frame for frame in frames if not any(part in frame.filename for part in ours)]
    frame = (own or frames)[-1]
    return f"{Path(frame.filename).name}, line {frame.lineno}"
