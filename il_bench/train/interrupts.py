"""Ctrl-C and SIGTERM as a question that long work asks when it can stop."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def asked_to_stop(also: Callable[[], object] = lambda: None) -> Iterator[Callable[[], bool]]:
    """Within, neither signal ends this process; each calls ``also``. Yields whether one came.

    Raises:
        ValueError: not in the main thread, the only one that Python lets handle signals.
    """
    asked = False

    def ask(*_: object) -> None:
        nonlocal asked
        asked = True
        also()

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
