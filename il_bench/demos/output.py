"""The folder that a command writes a dataset to: made by the command once, whatever interrupts it.

`DIR.partial` beside the folder holds `made.json`, the inputs of the command, and the finished episodes. A run
that writes to it holds a lock on it. It is gone when the dataset is in its place.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

from pydantic import ValidationError

from il_bench.demos.provenance import Inputs
from il_bench.errors import IlBenchError
from il_bench.files import locked, write_whole, writing

_ELSEWHERE = "give another --output"
_REPEAT = "make room and repeat the command, finished episodes are kept"


def is_made[I: Inputs](output: Path, inputs: I, read: Callable[[Path], I | None]) -> bool:
    """Whether `output` is there, made from the same inputs; False if the folder is free.

    read: gives the inputs that a dataset says it was made from, None if it does not say.

    Raises:
        IlBenchError: `output` is something else, or made from other inputs (names those that differ).
    """
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return False
    found = read(output) if output.is_dir() else None
    if found is None:
        raise IlBenchError(f"{output}: is there already and was not made by this command; {_ELSEWHERE}")
    if differing := found.differences(inputs):
        raise IlBenchError(
            f"{output}: made by another command already ({', '.join(differing)}); {_ELSEWHERE}"
        )
    return True


def make_once[I: Inputs](
    output: Path, inputs: I, read: Callable[[Path], I | None], write: Callable[[Path, Path], None]
) -> None:
    """Make `output` unless it is made; a call that was interrupted goes on with what `write` finished.

    write: called as `write(partial, whole)`. It writes the dataset into the new folder `whole`, and keeps
        finished episodes in the folder `partial`, where the next call finds them.

    Raises:
        IlBenchError: as `is_made`; `DIR.partial` is of other inputs or in use by another process; or a folder
            cannot be written.
    """
    if is_made(output, inputs, read):
        return
    partial = output.with_name(f"{output.name}.partial")
    with writing(partial, _ELSEWHERE):
        partial.mkdir(parents=True, exist_ok=True)
    busy = f"another process is making these; let it finish, or {_ELSEWHERE}"
    with locked(partial / "lock", partial, busy, _ELSEWHERE):
        _claim(partial, inputs)
        if not is_made(output, inputs, read):  # another process was not faster
            whole = partial / "whole"
            with writing(output, _REPEAT):
                shutil.rmtree(whole, ignore_errors=True)  # of a run that was killed while it wrote
                write(partial, whole)
                whole.rename(output)
        shutil.rmtree(partial, ignore_errors=True)


def _claim(partial: Path, inputs: Inputs) -> None:
    """Check that the folder is of these inputs; if it is new, say so in it."""
    path = partial / "made.json"
    if not path.exists():
        names = [child.name for child in partial.iterdir()]
        if foreign := [name for name in names if name != "lock" and not name.startswith(".")]:
            raise IlBenchError(
                f"{partial}: holds {foreign[0]}, which no `il-bench demos` command left there; move it away, "
                f"or {_ELSEWHERE}"
            )
        with writing(partial, _ELSEWHERE):
            write_whole(path, inputs.model_dump_json(indent=1).encode())
        return
    try:
        found = type(inputs).model_validate_json(path.read_bytes())
    except ValidationError:
        raise IlBenchError(
            f"{path}: damaged, or of another command; remove {partial} and start again"
        ) from None
    if differing := found.differences(inputs):
        raise IlBenchError(
            f"{partial}: half made by another command ({', '.join(differing)}); repeat that one to go on, "
            f"remove the folder to start again, or {_ELSEWHERE}"
        )
