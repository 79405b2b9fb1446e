"""The progress of a rollout: a bar on a terminal, or an occasional line in a log.

A block says after each of its steps how far it is (`tell`); `told` hands that to whoever wants to know. So an
executor that runs blocks elsewhere passes on what it hears of them by calling `tell` here.
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import NamedTuple, Protocol, TextIO

from il_bench.errors import printable
from il_bench.protocol import BLOCK_SIZE

SECONDS_BETWEEN_LINES = 60.0
SECONDS_BETWEEN_STEPS = 1.0  # that a bar shows
LEAST_SECONDS = 1.0  # before which nobody can tell how long the rest takes


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

    said: what the episodes so far say: the rate, and how far the gates are.
    """

    def __call__(self, done: int, total: int, said: str = "") -> None: ...  # noqa: D102


class ShowProgress(Protocol):
    """Opens a context, whose value a rollout calls after each block.

    at_most: whether the rollout may end before `n_episodes`.
    """

    def __call__(  # noqa: D102
        self, title: str, n_episodes: int, *, at_most: bool = False
    ) -> AbstractContextManager[OnBlock | None]: ...


def silent(title: str, n_episodes: int, *, at_most: bool = False) -> AbstractContextManager[OnBlock | None]:
    """Show nothing."""
    return nullcontext()


#: Gives a context in which what is written reaches the terminal.
Uncaptured = Callable[[], AbstractContextManager[None]]


class Pace:
    """How fast a rollout gets on: episodes a second, and the seconds that are left.

    Half a block counts half. Blocks that took no step came from a journal, in no time.
    """

    def __init__(self, n_episodes: int, *, at_most: bool = False) -> None:
        self._n, self._at_most = n_episodes, at_most
        self._done, self._total, self._recalled = 0, max(1.0, n_episodes / BLOCK_SIZE), 0
        self._running: dict[int, float] = {}  # by first seed, the share of the block
        self._start: float | None = None

    def block(self, done: int, total: int) -> None:
        """Take down that a block has ended."""
        if self._start is None:
            self._recalled = done
        self._done, self._total = done, total
        self._running.clear()  # those that go on say so at their next step

    def step(self, step: Step) -> None:
        """Take down how far a block is."""
        self._start = self._start or time.monotonic()
        self._running[step.first_seed] = step.done / step.most

    @property
    def episodes(self) -> int:
        """How many episodes have ended."""
        return int(self._n * self._done // self._total)

    @property
    def speed(self) -> str:
        """For example '28.1 episodes/s', "" while nobody can tell."""
        rate = self._n / self._total * self._blocks_a_second
        return "" if not rate else f"{rate:.3g} episodes/s" if rate >= 1 else f"{60 * rate:.3g} episodes/min"

    @property
    def left(self) -> str:
        """For example 'at most 40 s left', "" while nobody can tell, and at the end."""
        if self._done >= self._total or not self._blocks_a_second:
            return ""
        seconds = (self._total - self._there) / self._blocks_a_second
        return f"{'at most ' if self._at_most else ''}{_duration(seconds)} left"

    @property
    def _there(self) -> float:
        return min(self._done + sum(self._running.values()), self._total)

    @property
    def _blocks_a_second(self) -> float:
        seconds = 0.0 if self._start is None else time.monotonic() - self._start
        return (self._there - self._recalled) / seconds if seconds >= LEAST_SECONDS else 0.0


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


@contextmanager
def bar(
    title: str, n_episodes: int, terminal: TextIO, uncaptured: Uncaptured, *, at_most: bool = False
) -> Iterator[OnBlock]:
    """Draw one line, a bar with what is known so far, after each block and now and then within one.

    It is removed at the end.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.table import Column

    name, rest = Column(max_width=24, no_wrap=True), Column(ratio=1, no_wrap=True, overflow="ellipsis")
    line = Progress(
        TextColumn("{task.description}", markup=False, table_column=name),
        BarColumn(bar_width=8),
        MofNCompleteColumn(),
        TextColumn("{task.fields[said]}", markup=False, table_column=rest),
        console=Console(file=terminal, force_terminal=True),
        expand=True,
        transient=True,
        # Drawn only between steps: a thread that draws would write into pytest's capture.
        auto_refresh=False,
        redirect_stdout=False,
        redirect_stderr=False,
    )
    task = line.add_task(printable(title, terminal.encoding), total=n_episodes, said="")
    last, latest, pace = time.monotonic(), "", Pace(n_episodes, at_most=at_most)

    def draw(*parts: str) -> None:
        said = ", ".join(filter(None, parts))
        with uncaptured():
            line.update(task, completed=pace.episodes, said=said, refresh=True)

    def on_block(done: int, total: int, said: str = "") -> None:
        nonlocal latest
        latest = said
        pace.block(done, total)
        draw(pace.left, latest, pace.speed)

    def on_step(step: Step) -> None:
        nonlocal last
        pace.step(step)
        if time.monotonic() - last >= SECONDS_BETWEEN_STEPS:
            last = time.monotonic()
            draw(pace.left, latest, pace.speed, f"step {step.done} of {step.most}")

    with uncaptured():
        terminal.write("\n")
        line.start()
    try:
        with told(on_step):
            yield on_block
    finally:
        with uncaptured():
            line.stop()


def on_terminal(title: str, n_episodes: int) -> AbstractContextManager[OnBlock | None]:
    """A bar on a terminal; in a log, a command's own lines are enough."""
    is_terminal = sys.stderr.isatty()
    return bar(title, n_episodes, sys.stderr, nullcontext) if is_terminal else silent(title, n_episodes)


@contextmanager
def log(
    title: str,
    n_episodes: int,
    write_line: Callable[[str], None],
    uncaptured: Uncaptured,
    *,
    at_most: bool = False,
) -> Iterator[OnBlock]:
    """Write a line after the last block, and whenever a step ends long enough after the previous line."""
    title, start, pace = printable(title), time.monotonic(), Pace(n_episodes, at_most=at_most)
    of = f"of at most {n_episodes}" if at_most else f"of {n_episodes}"
    last, written = start, ""
    latest = nothing = f"{title}: 0 {of} episodes"

    def write(text: str, more: str = "") -> None:
        nonlocal last, written
        if text != written:
            last, written = time.monotonic(), text
            with uncaptured():
                write_line(f"{text}, {time.monotonic() - start:.0f} s{more and f' ({more})'}")

    def on_block(done: int, total: int, said: str = "") -> None:
        nonlocal latest
        pace.block(done, total)
        latest = f"{title}: {pace.episodes} {of} episodes{said and f', {said}'}"
        if done == total:
            write(latest)
        elif time.monotonic() - last >= SECONDS_BETWEEN_LINES:
            write(latest, pace.left)

    def on_step(step: Step) -> None:
        pace.step(step)
        if time.monotonic() - last >= SECONDS_BETWEEN_LINES:
            write(f"{latest}, {step}", pace.left)

    with told(on_step):
        yield on_block
    if latest is not nothing:
        write(latest)  # a sequential test may end before the last block
