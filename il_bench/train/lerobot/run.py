"""Run ``lerobot-train``: what it says is passed on, with notes; what goes wrong is one line.

It is run as the command it is, in a process of its own, and not called: then what ``--print-command`` shows
is what happens, nothing of il_bench can change the training, and LeRobot's global state (seeds, cuDNN,
logging, start method of its data loaders) stays its own.
"""

import os
import re
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import typer

from il_bench.errors import IlBenchError
from il_bench.train.interrupts import asked_to_stop
from il_bench.train.lerobot.plan import Plan
from il_bench.train.lerobot.watch import Seen, Watcher
from il_bench.train.log import LogFile

TRACEBACK = "Traceback (most recent call last)"
# tqdm's, which ends without a line's end, so that LeRobot's next line is behind it.
BAR = re.compile(r".*?\d+%\|[^\[]*\[[^\]]*\]")
# The first and the last of a hundred lines in which LeRobot warns of a decoder that no recipe uses.
NO_TORCHCODEC, END_OF_TORCHCODEC = "Could not load libtorchcodec", "Falling back to 'pyav'"
EXCEPTION = re.compile(r"[\w.]*(Error|Exception)\b")
LOGGED = re.compile(r"(DEBUG|INFO|WARNING|ERROR)\b")


def run(plan: Plan, *, start_step: int = 0) -> bool:
    """Train by ``plan``, to the end. Ctrl-C ends LeRobot and returns False.

    Raises:
        IlBenchError: LeRobot stopped by itself, with the last line it said.
    """
    watcher = Watcher(plan.first_phase_steps, start_step, int(plan.flags.get("log_freq", "200")))
    output = _Output(plan.output, start_step)
    # In a group of its own, so that Ctrl-C reaches it once, from here.
    with (
        subprocess.Popen(
            [*_program(), *plan.arguments()],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=_environment(),
            start_new_session=True,
        ) as process,
        asked_to_stop(lambda: os.killpg(process.pid, signal.SIGTERM)) as interrupted,
    ):
        assert process.stdout is not None
        for line in _lines(process.stdout):
            output.show(line, watcher.read(line))
    output.close()
    if interrupted():
        return False
    if process.returncode != 0:
        raise IlBenchError(
            f"lerobot-train ended with status {process.returncode}: {output.last_line}. Run the line of "
            "--print-command by itself to see all it says."
        )
    output.flush()
    return True


class _Output:
    """The terminal and ``train_log.csv``."""

    def __init__(self, folder: Path | None, start_step: int) -> None:
        self._folder, self._start_step = folder, start_step
        self._log: LogFile | None = None
        self._held: list[str] = []  # a traceback so far: LeRobot's end, or a part of one of its warnings
        self._last: deque[str] = deque(maxlen=1)
        self._about_torchcodec = False

    @property
    def last_line(self) -> str:
        """Of a traceback the exception's: what it says may have more lines."""
        exceptions = [line for line in self._held if EXCEPTION.match(line)]
        return [*self._last, *exceptions][-1] if self._last else "it said nothing"

    def show(self, line: str, seen: Seen) -> None:
        if self._is_about_torchcodec(line):
            return
        if seen.is_progress:
            if sys.stderr.isatty():
                print(f"\r{line}", end="", file=sys.stderr, flush=True)
            return
        if line.strip():
            self._last.append(line.strip())
        if LOGGED.match(line):
            self.flush()
        if self._held or TRACEBACK in line:
            self._held.append(line)
        else:
            print(line, flush=True)
        for note in seen.notes:
            typer.secho(f"il-bench: {note}", fg="yellow")
        if seen.row is not None and self._folder is not None:
            # Not before LeRobot has begun: it refuses an output folder that is there already.
            self._log = self._log or LogFile(self._folder, self._start_step)
            self._log.write(**seen.row.columns())

    def _is_about_torchcodec(self, line: str) -> bool:
        """Whether ``line`` is of LeRobot's warning of it; in a traceback it is what ended the run."""
        begins = NO_TORCHCODEC in line and not self._held
        inside = self._about_torchcodec and not (LOGGED.match(line) or BAR.match(line))
        self._about_torchcodec = (begins or inside) and END_OF_TORCHCODEC not in line
        return begins or inside

    def flush(self) -> None:
        """Print what was held back."""
        for line in self._held:
            print(line, flush=True)
        self._held = []

    def close(self) -> None:
        if self._log is not None:
            self._log.close()


def _program() -> list[str]:
    """LeRobot's command beside this Python's."""
    script = Path(sys.executable).with_name("lerobot-train")
    return [str(script)] if script.exists() else [sys.executable, "-m", "lerobot.scripts.lerobot_train"]


def _environment() -> dict[str, str]:
    return {**os.environ, "SDL_VIDEODRIVER": "dummy", "PYTHONUNBUFFERED": "1"}


def _lines(stream: IO[str]) -> Iterator[str]:
    """Lines of a text stream; what a progress bar is followed by on its line is one of its own."""
    for line in stream:
        rest = line.rstrip("\n")
        while bar := BAR.match(rest):
            yield bar[0]
            rest = rest[bar.end() :]
        if rest or line == "\n":
            yield rest
