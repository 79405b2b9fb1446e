"""How far a rollout is: a bar on a terminal, a line now and then in a log."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TextIO

SECONDS_BETWEEN_LINES = 10.0

#: Called after each block with (blocks done, blocks in all).
OnBlock = Callable[[int, int], None]
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
        console=Console(file=terminal, force_terminal=True),
        transient=True,
        # Drawn only between blocks: a thread that draws would write into pytest's capture.
        auto_refresh=False,
        redirect_stdout=False,
        redirect_stderr=False,
    )
    task = progress.add_task(title, total=n_episodes)

    def on_block(done: int, total: int) -> None:
        with uncaptured():
            progress.update(task, completed=n_episodes * done // total, refresh=True)

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
    """Write a line after the last block, and after each that ends long enough after the last line."""
    start = last = time.monotonic()

    def on_block(done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if done == total or now - last >= SECONDS_BETWEEN_LINES:
            last = now
            with uncaptured():
                n_done = n_episodes * done // total
                write_line(f"{title}: {n_done} of {n_episodes} episodes, {now - start:.0f} s")

    yield on_block
