"""The one error users see."""

import os
import re
import sys
import sysconfig
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from pydantic import ValidationError

#: The longest message, in characters: what it quotes of somebody's file may be of any length.
_LONGEST = 2000


class IlBenchError(ValueError):
    """Bad input: the message names the file, field or value, and the way out, in one line."""

    def __init__(self, message: str) -> None:
        line = printable(re.sub(r"\s*\n\s*", " ", message))
        if len(line) > _LONGEST:
            line = f"{line[: _LONGEST // 2]} ... {line[-_LONGEST // 2 + 5 :]}"
        super().__init__(line)


def printable(text: str, encoding: str | None = None) -> str:
    r"""The text as terminals, files and pictures can show it: what cannot be printed is spelt out.

    That are control characters and escape sequences (`\x1b`), marks that turn the direction of writing, and
    halves of characters as they stand in file names that are no UTF-8 (`\udcff`).

    encoding: of the terminal. What it lacks becomes a question mark, and an ellipsis three dots.
    """
    if not text.isprintable():
        text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    if encoding is None or text.isascii():
        return text
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return text.replace("…", "...").encode(encoding, "replace").decode(encoding)
    return text


def described(error: Exception) -> str:
    """A caught error's type, message and origin: "KeyError: 'codebook' (conftest.py, line 12)".

    The origin is its innermost line in the user's code, if it went through any.
    """
    frames = traceback.extract_tb(error.__traceback__)
    folders = Path(__file__).parent, sysconfig.get_path("stdlib")
    others = (*(f"{folder}{os.sep}" for folder in folders), "<")  # `exec` gives "<string>"
    users = [f for f in frames if not f.filename.startswith(others) and "site-packages" not in f.filename]
    frame = (users or frames)[-1]
    return f"{type(error).__name__}: {error} ({Path(frame.filename).name}, line {frame.lineno})"


def wrong_field(error: "ValidationError", whole: str = "the file") -> str:
    """'field = value: what is wrong' of pydantic's first error, and how many more there are.

    whole: what to call the place of an error that is of no single field.
    """
    errors = error.errors()
    kind, message = errors[0]["type"], errors[0]["msg"].removeprefix("Value error, ")
    place = ".".join(str(part) for part in errors[0]["loc"]) or whole
    if kind not in ("missing", "value_error"):  # there the value is the whole object that holds the field
        place += f" = {errors[0]['input']!r:.60}"
    text = f"{place}: {'unknown field' if kind == 'extra_forbidden' else message}"
    return text if len(errors) == 1 else f"{text} (and {len(errors) - 1} more)"


def fail(error: IlBenchError) -> NoReturn:
    """Print what is wrong, in one line, and end with status 2."""
    import typer

    typer.secho(f"il-bench: {error}", fg="red", err=True)
    sys.exit(2)
