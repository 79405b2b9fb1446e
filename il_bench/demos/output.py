"""The folder that a command writes a dataset to: an interrupted command resumes, a finished one does nothing.

`DIR.partial` beside the folder holds `made.json`, the inputs of the command, and the finished episodes. A run
that writes to it holds a lock on it. It is removed once the dataset is in its place.
"""

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from il_bench.demos.provenance import Inputs
from il_bench.errors import IlBenchError
from il_bench.files import locked, read_model, write_whole, writing
from il_bench.machine import differences
from il_bench.rollout import executors
from il_bench.rollout.executors import Executor, Job

#: Called as `on_progress(n_done, n_episodes)`.
OnProgress = Callable[[int, int], None]

_ELSEWHERE = "give another --output"
_REPEAT = "make room and repeat the command, finished episodes are kept"


def is_made(output: Path, inputs: Inputs) -> bool:
    """Whether `output` exists, made from the same inputs; False if the folder is missing or empty.

    Raises IlBenchError if it is something else, or made from other inputs; names those that differ.
    """
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return False
    found = inputs.of(output)
    if found is None:
        raise IlBenchError(f"{output}: exists already and was not made by this command; {_ELSEWHERE}")
    if differing := differences(found.model_dump(), inputs.model_dump()):
        raise IlBenchError(f"{output}: was made by another command ({', '.join(differing)}); {_ELSEWHERE}")
    return True


def make_once(output: Path, inputs: Inputs, write: Callable[[Path, Path], None]) -> None:
    """Make `output` unless it is made; after an interruption, keep what `write` had finished.

    write: called as `write(partial, whole)`. It writes the dataset into the new folder `whole`, and keeps
    finished episodes in the folder `partial`, where the next call finds them. Raises IlBenchError like
    `is_made`; if `DIR.partial` is of other inputs or in use; or if a folder cannot be written.
    """
    if is_made(output, inputs):
        return
    partial = output.with_name(f"{output.name}.partial")
    with writing(partial, _ELSEWHERE):
        partial.mkdir(parents=True, exist_ok=True)
    busy = f"another process is making these; let it finish, or {_ELSEWHERE}"
    with locked(partial / "lock", partial, busy, _ELSEWHERE):
        _claim(partial, inputs)
        if not is_made(output, inputs):  # another process was not faster
            whole = partial / "whole"
            with writing(output, _REPEAT):
                shutil.rmtree(whole, ignore_errors=True)  # of a run that was killed while it wrote
                write(partial, whole)
                whole.rename(output)
        shutil.rmtree(partial, ignore_errors=True)


def _claim(partial: Path, inputs: Inputs) -> None:
    """Check that the folder is of these inputs; note them in a new one."""
    path = partial / "made.json"
    if not path.exists():
        for child in partial.iterdir():
            if child.name != "lock" and not child.name.startswith("."):
                raise IlBenchError(
                    f"{partial}: holds {child.name}, which is not of an `il-bench demos` command; move it "
                    f"away, or {_ELSEWHERE}"
                )
        with writing(partial, _ELSEWHERE):
            write_whole(path, inputs.model_dump_json(indent=1).encode())
        return
    found = read_model(type(inputs), path, f"of another command: remove {partial} and start again")
    if differing := differences(found.model_dump(), inputs.model_dump()):
        raise IlBenchError(
            f"{partial}: half made by another command ({', '.join(differing)}); repeat that one to finish, "
            f"remove the folder to start again, or {_ELSEWHERE}"
        )


@contextmanager
def new_dataset(output: Path) -> Iterator[Path]:
    """Yield a folder that does not exist yet, in a temporary one; move what is in it at the end to `output`.

    Raises IlBenchError if `output` exists, or if it cannot be written: then nothing is left.
    """
    if output.exists():
        raise IlBenchError(f"{output}: exists already; {_ELSEWHERE}")
    way_out = f"make room, or {_ELSEWHERE}"
    with writing(output, way_out):
        output.parent.mkdir(parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(prefix=f".{output.name}-", dir=output.parent)
    with folder as beside, writing(output, way_out):  # which says what is free while the folder is there
        yield Path(beside) / output.name
        shutil.move(Path(beside) / output.name, output)


def run_missing[L, R](
    load: Callable[[], L],
    make: Callable[[L, Sequence[int]], R],
    tasks: Sequence[Sequence[int]],
    is_whole: Callable[[Sequence[int]], bool],
    keep: Callable[[R], int],
    *,
    workers: int,
    executor: str | Executor | None = None,
    on_progress: OnProgress | None,
    name: str,
) -> None:
    """Run the tasks that no earlier call has finished; a task is some episodes or seeds, called `name`.

    load: gives what `make` needs, once in every process. make: makes a task's episodes, there. is_whole:
    whether they are there already. keep: called in this process with what `make` returned; returns their
    number. on_progress: called before and after tasks.
    """
    missing = [task for task in tasks if not is_whole(task)]
    n_episodes = sum(map(len, tasks))
    n_done = n_episodes - sum(map(len, missing))
    report = on_progress or (lambda n_done, n_episodes: None)
    report(n_done, n_episodes)
    run = executors.choose(workers, len(missing), executor).run
    job = Job(load, make, missing, lambda task: f"{name} {task[0]}-{task[-1]}")
    with closing(run(job)) as results:
        for result in results:
            n_done += keep(result)
            report(n_done, n_episodes)
