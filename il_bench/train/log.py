"""The output of a training run: ``train_log.csv`` for plots; notes and a progress bar for people."""

import csv
import io
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from il_bench.errors import IlBenchError
from il_bench.files import read_whole, write_whole, writing


@dataclass(frozen=True)
class Progress:
    """The state of a run of il_bench's own loop; each field is a column of ``train_log.csv``.

    ``loss`` is the mean since the last report. ``seconds`` is the training time of the whole run, pauses left
    out; ``data_share`` is the share of it that went into gathering and normalising batches.
    """

    step: int
    phase: str
    loss: float
    lr: float
    steps_per_second: float
    seconds: float
    data_share: float


LOG = "train_log.csv"
FIELDS = (*(field.name for field in fields(Progress)), "success_rate", "mean_max_reward")
FORMATS = {"loss": ".6g", "lr": ".4g", "steps_per_second": ".4g", "seconds": ".1f"}  # the others: .4f
_MAKE_ROOM = "make room and give the same command with --resume"


class TrainingLog:
    """Writes ``train_log.csv``, and explains VQ-BeT's two phases.

    In its first steps VQ-BeT trains its residual VQ only, so its success rates up to then are not kept.
    Raises IlBenchError if the file of a resumed run is damaged, or if it cannot be written.

    Args:
        output: folder of the run; None to write no file.
        start_step: where this session begins; later rows, which an interrupted session left, are dropped.
        say: takes a sentence for people.
        residual_vq_steps: how many steps train VQ-BeT's residual VQ only; 0 for other policies.
        steps: of the whole run; 0 if unknown.
    """

    def __init__(
        self,
        output: Path | None,
        start_step: int,
        say: Callable[[str], None],
        *,
        residual_vq_steps: int = 0,
        steps: int = 0,
    ) -> None:
        self._path = None if output is None else output / LOG
        self._say, self._residual_vq_steps = say, residual_vq_steps
        self._step = start_step
        self._is_begun = self._is_void_told = False
        earlier = read_rows(self._path) if self._path and start_step and self._path.exists() else []
        self._earlier = [row for row in earlier if int(row["step"]) <= start_step]
        if start_step < residual_vq_steps:
            too_short = f"; {steps} steps are too few to train the policy at all"
            say(
                f"steps 1 to {residual_vq_steps} train the residual VQ alone: no success rate up to step "
                f"{residual_vq_steps} counts{too_short if 0 < steps <= residual_vq_steps else ''}"
            )

    def training(self, step: int, **columns: Any) -> None:
        """Write a row with these ``columns``; the others stay empty."""
        self._write(step, **columns)
        if self._step < self._residual_vq_steps <= step:
            self._say(
                f"step {self._residual_vq_steps}: the residual VQ is trained and frozen; from here on the "
                "policy itself trains"
            )
        self._step = step

    def has_policy(self, step: int) -> bool:
        """Whether success rates measured at ``step`` count; says why the first time they do not."""
        if step > self._residual_vq_steps or self._residual_vq_steps == 0:
            return True
        if not self._is_void_told:
            self._is_void_told = True
            self._say(
                f"step {step}: no policy yet, since only the residual VQ trains up to step "
                f"{self._residual_vq_steps}; until then success rates mean nothing and are not kept"
            )
        return False

    def evaluation(self, step: int, success_rate: float, mean_max_reward: float) -> None:
        """Print the rates of an evaluation, and write them as a row of their own."""
        self._say(f"step {step}: success_rate {success_rate:.3f}, mean_max_reward {mean_max_reward:.3f}")
        self._write(step, success_rate=success_rate, mean_max_reward=mean_max_reward)

    def _write(self, step: int, **columns: Any) -> None:
        if self._path is None:
            return
        row = {
            name: format(value, FORMATS.get(name, ".4f")) if isinstance(value, float) else str(value)
            for name, value in {"step": step, **columns}.items()
        }
        with writing(self._path, _MAKE_ROOM):
            if self._is_begun:
                with self._path.open("a", newline="", encoding="utf-8") as file:
                    csv.DictWriter(file, FIELDS).writerow(row)
            else:  # the folder must not exist earlier: lerobot-train refuses one that does
                write_whole(self._path, _text([*self._earlier, row]).encode())
        self._is_begun = True


def _text(rows: list[dict[str, str]]) -> str:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, FIELDS)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def read_rows(path: Path, way_out: str = "move it away to continue without its rows") -> list[dict[str, str]]:
    """The rows of a log, whose last one may be half written; IlBenchError names the line that is none."""
    try:
        text = read_whole(path, way_out).decode()
    except UnicodeDecodeError as error:
        raise IlBenchError(f"{path}: not UTF-8 text (byte {error.start}); {way_out}") from None
    lines = text.splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):  # cut short by a kill
        lines.pop()
    names = lines[0].strip().split(",") if lines else []
    if "step" not in names or not set(names) <= set(FIELDS):
        raise IlBenchError(
            f"{path}, line 1: {','.join(names)!r:.60} is not the head of such a log; {way_out}"
        )
    rows = []
    for number, line in enumerate(lines[1:], start=2):
        cells = line.rstrip("\r\n").split(",")
        row = dict(zip(names, cells, strict=False))
        if len(cells) != len(names) or not all(_is_cell(*each) for each in row.items()):
            raise IlBenchError(f"{path}, line {number}: {line.strip()!r:.60} is not a row of it; {way_out}")
        rows.append(row)
    return rows


def _is_cell(name: str, cell: str) -> bool:
    if name == "step":
        return cell.isascii() and cell.isdigit()
    if name == "phase" or not cell:
        return cell.isprintable()
    try:
        return bool(float(cell) or True)
    except ValueError:
        return False


class Display:
    """The progress of il_bench's own loop: a bar in a terminal, a line every 500 steps elsewhere."""

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self._since: Progress | None = None  # the first report of this phase
        texts = (TextColumn("{task.completed:.0f}/{task.total:.0f}"), TextColumn("{task.description}"))
        columns = (BarColumn(), *texts, TimeElapsedColumn(), TimeRemainingColumn())
        is_terminal = sys.stderr.isatty()
        self._bar = Bar(*columns, console=Console(stderr=True)) if is_terminal else None

    def __enter__(self) -> Self:
        if self._bar:
            self._task = self._bar.add_task("starting", total=self._steps)
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._bar.stop()

    def show(self, at: Progress) -> None:
        """Move the bar, or print a line when one is due."""
        speed = self._speed(at)
        text = f"{at.phase}: loss {at.loss:.4g}, {speed:.3g} steps/s"
        if self._bar:
            self._bar.update(self._task, completed=at.step, description=text)
        elif at.step % 500 == 0 or at.step == self._steps:
            # The speed of VQ-BeT's first phase says nothing of the time left.
            left = f", {(self._steps - at.step) / speed / 60:.0f} min left" if at.phase == "policy" else ""
            self.say(f"step {at.step}/{self._steps}  {text}{left}")

    def _speed(self, at: Progress) -> float:
        """Steps a second since this phase began, or since this session did; of the whole run at first."""
        if self._since is None or self._since.phase != at.phase:
            self._since = at
        steps, seconds = at.step - self._since.step, at.seconds - self._since.seconds
        return steps / seconds if steps > 0 and seconds > 0 else at.steps_per_second

    def say(self, text: str) -> None:
        """Print a line, above the bar if there is one."""
        if self._bar:
            self._bar.console.print(text)
        else:
            print(text, flush=True)
