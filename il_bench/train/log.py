"""What a training run tells: a progress bar (or lines) for people, ``train_log.csv`` for plots."""

import csv
import math
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from il_bench.train import first_phase
from il_bench.train import loop as train

FIELDS = (
    "step",
    "phase",
    "loss",
    "lr",
    "steps_per_second",
    "seconds",
    "data_share",
    "success_rate",
    "mean_max_reward",
)
LINE_EVERY_STEPS = 500


class LogFile:
    """Appends to ``output/train_log.csv``; rows after ``start_step`` (of an interrupted sitting) are dropped.

    Rows of an evaluation hold its two columns and the step alone.
    """

    def __init__(self, output: Path, start_step: int) -> None:
        self.path = output / "train_log.csv"
        output.mkdir(parents=True, exist_ok=True)
        kept = _rows_until(self.path, start_step)
        self._file = self.path.open("w", newline="")
        self._writer = csv.DictWriter(self._file, FIELDS)
        self._writer.writeheader()
        self._writer.writerows(kept)
        self._file.flush()

    def write(self, **row: Any) -> None:
        """One row; fields that are left out stay empty."""
        self._writer.writerow(row)
        self._file.flush()

    def close(self) -> None:
        """End the file."""
        self._file.close()


class TrainingLog:
    """What il_bench's own training loop tells: ``LogFile``'s rows, and lines or a bar for people.

    Args:
        output: folder of the run.
        start_step: of this sitting.
        first_phase_steps: of VQ-BeT, the steps that train its residual VQ alone; its end is said.
        steps: of the whole run.
    """

    def __init__(self, output: Path, start_step: int, *, first_phase_steps: int = 0, steps: int = 0) -> None:
        self._log = LogFile(output, start_step)
        self._first_phase_steps, self._step = first_phase_steps, start_step
        self._bar = _Bar() if sys.stderr.isatty() else None
        if start_step < first_phase_steps:
            self._say(first_phase.ahead(first_phase_steps, steps))

    def __enter__(self) -> "TrainingLog":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._log.close()
        if self._bar:
            self._bar.progress.stop()

    def progress(self, at: "train.Progress") -> None:
        """One row, and the bar moved."""
        self._log.write(
            step=at.step,
            phase=at.phase,
            loss=f"{at.loss:.6g}",
            lr=f"{at.lr:.4g}",
            steps_per_second=f"{at.steps_per_second:.4g}",
            seconds=f"{at.seconds:.1f}",
            data_share=f"{at.data_share:.4f}",
        )
        text = f"{at.phase}: loss {at.loss:.4g}, {at.steps_per_second:.3g} steps/s"
        if self._bar:
            self._bar.update(at, text)
        elif at.step % LINE_EVERY_STEPS == 0 or at.step == at.steps:
            left = (at.steps - at.step) / at.steps_per_second
            print(f"step {at.step}/{at.steps}  {text}, {left / 60:.0f} min left", flush=True)
        if self._step < self._first_phase_steps <= at.step:
            self._say(first_phase.over(self._first_phase_steps))
        self._step = at.step

    def evaluation(self, step: int, success_rate: float, mean_max_reward: float) -> None:
        """One row with the two rates; NaN, of a policy still in its first phase, is said and not written."""
        if math.isnan(success_rate):
            self._say(first_phase.void(step, self._first_phase_steps))
            return
        self._log.write(
            step=step, success_rate=f"{success_rate:.4f}", mean_max_reward=f"{mean_max_reward:.4f}"
        )
        self._say(
            f"step {step}: validation success_rate {success_rate:.3f}, mean_max_reward {mean_max_reward:.3f}"
        )

    def _say(self, text: str) -> None:
        if self._bar:
            self._bar.progress.console.print(text)
        else:
            print(text, flush=True)


class _Bar:
    def __init__(self) -> None:
        columns = (
            BarColumn(),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TextColumn("{task.description}"),
        )
        self.progress = Progress(
            *columns, TimeElapsedColumn(), TimeRemainingColumn(), console=Console(stderr=True)
        )
        self._task = self.progress.add_task("starting", total=1)
        self.progress.start()

    def update(self, at: "train.Progress", text: str) -> None:
        self.progress.update(self._task, total=at.steps, completed=at.step, description=text)


def _rows_until(path: Path, step: int) -> list[dict[str, Any]]:
    if step == 0 or not path.exists():
        return []
    with path.open(newline="") as file:
        return [row for row in csv.DictReader(file) if int(row["step"]) <= step]
