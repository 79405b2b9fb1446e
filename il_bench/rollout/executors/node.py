"""What a process on a node of a Ray cluster does with a task; `cluster` hands the tasks out.

Ray sends a node only the names of this module's functions, so the same il_bench has to be installed there.
"""

import faulthandler
import pickle
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from il_bench.machine import differences
from il_bench.rollout.executors.answers import Answer, sendable, too_late
from il_bench.rollout.progress import Step, told

_SECONDS_TO_STOP = 30.0  # that a task gets which is too late, before its process is ended


@dataclass(frozen=True)
class Stranger:
    """What a node answers where results would differ: which node, and in what it differs."""

    node: str
    differs: str


#: What the last tasks needed, by the reference that gave it.
_kept: dict[str, tuple[Any, Any] | Stranger] = {}


class _TooLate(BaseException):
    """No `Exception`: what a policy catches must not hide it."""


def work(payload: Sequence[Any], task: bytes, name: str, timeout: float | None) -> bytes:
    """Run a task, and return what became of it, pickled: an `Answer` or a `Stranger`."""
    start, steps = time.process_time(), list[Step]()
    try:
        with _at_most(timeout), told(lambda step: steps.__setitem__(slice(None), [step])):
            found = _needed(payload[0])
            if isinstance(found, Stranger):
                return pickle.dumps(found)
            what, function = found
            result = function(what, pickle.loads(task))
        return pickle.dumps(Answer(True, result, time.process_time() - start))
    except _TooLate:
        _kept.clear()  # whatever it was interrupted in
        error: Exception = too_late(name, timeout or 0.0, steps[0] if steps else None)
    except Exception as caught:
        _reraise_rays(caught)
        error = sendable(caught)
    return pickle.dumps(Answer(False, error, time.process_time() - start))


def _reraise_rays(error: Exception) -> None:
    import ray

    if isinstance(error, ray.exceptions.RayError):  # about the node, not about the task
        raise error


def _needed(reference: Any) -> tuple[Any, Any] | Stranger:
    """What the tasks of this payload need, loaded by the first of them in this process."""
    import ray

    key = reference.hex()
    if key not in _kept:
        load, function, conditions, expected = pickle.loads(ray.get(reference))
        differing = differences(expected, conditions())
        _kept.clear()
        if differing:
            _kept[key] = Stranger(ray.get_runtime_context().get_node_id(), ", ".join(differing))
        else:
            _kept[key] = load(), function
    return _kept[key]


@contextmanager
def _at_most(seconds: float | None) -> Iterator[None]:
    """Interrupt what takes longer; end the process if it does not listen."""
    if seconds is None or sys.platform == "win32":
        yield
        return

    def interrupt(*_: object) -> None:
        raise _TooLate

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    faulthandler.dump_traceback_later(seconds + _SECONDS_TO_STOP, exit=True)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        faulthandler.cancel_dump_traceback_later()
        signal.signal(signal.SIGALRM, before)
