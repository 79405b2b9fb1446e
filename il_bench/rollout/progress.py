"""The progress of a rollout: a bar on a terminal, or an occasional line in a log."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, TextIO

SECONDS_BETWEEN_LINES = 10.0


class OnBlock(Protocol):
    """Called after each block with the number of blocks that are done, and of all.

    said: what a sequential test says so far; `total` is an upper limit then.
    """

    def __call__(self, done: int, total: int, said: str = "") -> None: ...  # noqa: D102


#: Gives a context in which what is written reaches the terminal.
Uncaptured = Callable[[], AbstractContextManager[None]]


@contextmanager
def bar(title: str, n_episodes: int, terminal: TextIO, uncaptured: Uncaptured) -> Iterator[OnBlock]:
    """Draw a bar after each block, and remove it at the end."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("episodes"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[said]}"),
        console=Console(file=terminal, force_terminal=True),
        transient=True,
        # Drawn only between blocks: a thread that draws would write into pytest's capture.
        auto_refresh=False,
        redirect_stdout=False,
        redirect_stderr=False,
    )
    task = progress.add_task(title, total=n_episodes, said="")

    def on_block(done: int, total: int, said: str = "") -> None:
        with uncaptured():
            progress.update(task, completed=n_episodes * done // total, said=said, refresh=True)

    with uncaptured():
        terminal.write("\n")
        progress.start()
    try:
        yield on_block
    finally:
        with uncaptured():
            progress.stop()


@contextmanager
def log(
    title: str, n_episodes: int, write_line: Callable[[str], None], uncaptured: Uncaptured
) -> Iterator[OnBlock]:
    """Write a line after the last block, and after any that ends long enough after the previous line."""
    start = last = time.monotonic()
    latest, written = "", ""

    def write() -> None:
        nonlocal written
        if latest != written:
            written = latest
            with uncaptured():
                write_line(f"{latest}, {time.monotonic() - start:.0f} s")

    def on_block(done: int, total: int, said: str = "") -> None:
        nonlocal last, latest
        most = f"of at most {n_episodes}" if said else f"of {n_episodes}"
        latest = f"{title}: {n_episodes * done // total} {most} episodes{said and f', {said}'}"
        now = time.monotonic()
        if done == total or now - last >= SECONDS_BETWEEN_LINES:
            last = now
            write()

    yield on_block
    write()  # a sequential test may end before the last block
