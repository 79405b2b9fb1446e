"""The progress of a rollout: a bar on a terminal, or an occasional line in a log.

A block says after each of its steps how far it is (`tell`); `told` hands that to whoever wants to know. So an
executor that runs blocks elsewhere passes on what it hears of them by calling `tell` here.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import NamedTuple, Protocol, TextIO

from il_bench.errors import printable

SECONDS_BETWEEN_LINES = 60.0
SECONDS_BETWEEN_STEPS = 1.0  # that a bar shows


class Step(NamedTuple):
    """How far a running block is: which seeds, how many steps are done, and of how many at most."""

    first_seed: int
    last_seed: int
    done: int
    most: int

    def __str__(self) -> str:
        """Return for example 'step 31 of 300 of seeds 200000-200049'."""
        return f"step {self.done} of {self.most} of seeds {self.first_seed}-{self.last_seed}"


_listener: ContextVar[Callable[[Step], None] | None] = ContextVar("listener", default=None)


def tell(step: Step) -> None:
    """Say how far a block is."""
    listener = _listener.get()
    if listener is not None:
        listener(step)


@contextmanager
def told(listener: Callable[[Step], None]) -> Iterator[None]:
    """Call `listener` with every step that a block in this process tells."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


class OnBlock(Protocol):
    """Called after each block with the number of blocks that are done, and of all.

    said: what a sequential test says so far; `total` is an upper limit then.
    """

    def __call__(self, done: int, total: int, said: str = "") -> None: ...  # noqa: D102


#: Gives a context in which what is written reaches the terminal.
Uncaptured = Callable[[], AbstractContextManager[None]]


@contextmanager
def bar(title: str, n_episodes: int, terminal: TextIO, uncaptured: Uncaptured) -> Iterator[OnBlock]:
    """Draw a bar after each block, and now and then within one; remove it at the end."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    progress = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("episodes"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[said]}", markup=False),
        console=Console(file=terminal, force_terminal=True),
        transient=True,
        # Drawn only between steps: a thread that draws would write into pytest's capture.
        auto_refresh=False,
        redirect_stdout=False,
        redirect_stderr=False,
    )
    task = progress.add_task(printable(title, terminal.encoding), total=n_episodes, said="")
    last, latest = time.monotonic(), ""

    def on_block(done: int, total: int, said: str = "") -> None:
        nonlocal latest
        latest = said
        with uncaptured():
            progress.update(task, completed=n_episodes * done // total, said=said, refresh=True)

    def on_step(step: Step) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= SECONDS_BETWEEN_STEPS:
            last = now
            with uncaptured():
                progress.update(task, said=f"{step}{latest and f', {latest}'}", refresh=True)

    with uncaptured():
        terminal.write("\n")
        progress.start()
    try:
        with told(on_step):
            yield on_block
    finally:
        with uncaptured():
            progress.stop()


@contextmanager
def log(
    title: str, n_episodes: int, write_line: Callable[[str], None], uncaptured: Uncaptured
) -> Iterator[OnBlock]:
    """Write a line after the last block, and whenever a step ends long enough after the previous line."""
    title, start = printable(title), time.monotonic()
    last, written = start, ""
    latest = nothing = f"{title}: 0 of {n_episodes} episodes"

    def write(text: str) -> None:
        nonlocal last, written
        if text != written:
            last, written = time.monotonic(), text
            with uncaptured():
                write_line(f"{text}, {time.monotonic() - start:.0f} s")

    def on_block(done: int, total: int, said: str = "") -> None:
        nonlocal latest
        most = f"of at most {n_episodes}" if said else f"of {n_episodes}"
        latest = f"{title}: {n_episodes * done // total} {most} episodes{said and f', {said}'}"
        if done == total or time.monotonic() - last >= SECONDS_BETWEEN_LINES:
            write(latest)

    def on_step(step: Step) -> None:
        if time.monotonic() - last >= SECONDS_BETWEEN_LINES:
            write(f"{latest}, {step}")

    with told(on_step):
        yield on_block
    if latest is not nothing:
        write(latest)  # a sequential test may end before the last block
