"""What goes to a worker process, on this machine or another, and what comes back."""

import pickle
import traceback
from dataclasses import dataclass
from typing import Any

from il_bench.errors import IlBenchError
from il_bench.rollout.executors import Job
from il_bench.rollout.progress import Step

#: A task that has killed so many workers is not tried again.
MAX_DEATHS = 3


@dataclass(frozen=True)
class Answer:
    """What became of a task: its result, or what it raised. processor: seconds that the worker has used."""

    succeeded: bool
    value: Any
    processor: float


def packed(job: Job[Any, Any, Any], who: str, *more: object) -> bytes:
    """What tasks need, pickled: `(load, function, *more)`. who: asks for workers, as errors say it.

    Raises IlBenchError for a function that no other process could find.
    """
    try:
        return pickle.dumps((job.load, job.function, *more))
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise IlBenchError(
            f"{who}: {job.load!r} cannot be sent to a worker process ({error}); give a function or a class "
            "defined at the top level of a module, or use workers=1"
        ) from error


def too_late(name: str, seconds: float, last: Step | None) -> IlBenchError:
    """The error of a task that takes longer than so many seconds; last: the last step that it told."""
    heard = f"it was last heard of at {last}" if last else "it reported no step"
    return IlBenchError(
        f"{name}: not done after {seconds:g} s; {heard}; if it is slow rather than stuck, give it more "
        "time with "
        "--il-timeout SECONDS"
    )


def sendable(error: Exception) -> Exception:
    """Return the error with its traceback as a note, as something that certainly survives pickling."""
    try:
        sent: Exception = pickle.loads(pickle.dumps(error))
    except Exception:  # its class may take other arguments than the error holds
        sent = IlBenchError(f"{type(error).__name__}: {error}")
    if not isinstance(sent, IlBenchError):
        sent.add_note("in a worker process:\n" + "".join(traceback.format_exception(error)))
    return sent
