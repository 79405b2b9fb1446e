"""The one error users see."""

import traceback
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError


class IlBenchError(ValueError):
    """Bad input: the message names the file, field or value, and the way out."""


def place_of(error: BaseException) -> str:
    """Where in the user's code a caught ``error`` came from, "conftest.py, line 12"; else where at all."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = (str(Path(__file__).parent), "site-packages")
    own = [frame for frame in frames if not any(part in frame.filename for part in ours)]
    frame = (own or frames)[-1]
    return f"{Path(frame.filename).name}, line {frame.lineno}"


def wrong_field(error: "ValidationError") -> str:
    """'field = value: what is wrong' of the first error that pydantic found, and how many more there are."""
    errors = error.errors()
    kind, message = errors[0]["type"], errors[0]["msg"].removeprefix("Value error, ")
    field = ".".join(str(part) for part in errors[0]["loc"]) or "the file"
    value = repr(errors[0]["input"])
    if kind == "extra_forbidden":
        said = f"{field} = {value:.60}: unknown field"
    elif kind in ("missing", "value_error"):  # the value would be the whole object that holds the field
        said = f"{field}: {message}"
    else:
        said = f"{field} = {value:.60}: {message}"
    return said if len(errors) == 1 else f"{said} (and {len(errors) - 1} more)"
