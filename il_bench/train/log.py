"""The output of a training run: ``train_log.csv`` for plots; notes and a progress bar for people."""

import csv
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar


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


FIELDS = (*(field.name for field in fields(Progress)), "success_rate", "mean_max_reward")
FORMATS = {"loss": ".6g", "lr": ".4g", "steps_per_second": ".4g", "seconds": ".1f"}  # the others: .4f


class TrainingLog:
    """Writes ``train_log.csv``, and explains VQ-BeT's two phases.

    In its first steps VQ-BeT trains its residual VQ only, so its success rates up to then are not kept.

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
        self._path = None if output is None else output / "train_log.csv"
        self._say, self._residual_vq_steps = say, residual_vq_steps
        self._start_step = self._step = start_step
        self._is_begun = False
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
        """Whether success rates measured at ``step`` count; says why if they do not."""
        if step > self._residual_vq_steps or self._residual_vq_steps == 0:
            return True
        self._say(
            f"step {step}: no policy yet, since only the residual VQ trains up to step "
            f"{self._residual_vq_steps}; the success rate means nothing and is not kept"
        )
        return False

    def evaluation(self, step: int, success_rate: float, mean_max_reward: float) -> None:
        """Print the rates of an evaluation, and write them as a row of their own."""
        self._say(f"step {step}: success_rate {success_rate:.3f}, mean_max_reward {mean_max_reward:.3f}")
        self._write(step, success_rate=success_rate, mean_max_reward=mean_max_reward)

    def _write(self, step: int, **columns: Any) -> None:
        if self._path is None:
            return
        rows: list[dict[str, str]] = []
        if not self._is_begun and self._start_step and self._path.exists():
            with self._path.open(newline="") as file:
                rows = [row for row in csv.DictReader(file) if int(row["step"]) <= self._start_step]
        rows.append(
            {
                name: format(value, FORMATS.get(name, ".4f")) if isinstance(value, float) else str(value)
                for name, value in {"step": step, **columns}.items()
            }
        )
        # The folder must not exist earlier: lerobot-train refuses one that does.
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a" if self._is_begun else "w", newline="") as file:
            writer = csv.DictWriter(file, FIELDS)
            if not self._is_begun:
                writer.writeheader()
            writer.writerows(rows)
        self._is_begun = True


class Display:
    """The progress of il_bench's own loop: a bar in a terminal, a line every 500 steps elsewhere."""

    def __init__(self, steps: int) -> None:
        self._steps = steps
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
        text = f"{at.phase}: loss {at.loss:.4g}, {at.steps_per_second:.3g} steps/s"
        if self._bar:
            self._bar.update(self._task, completed=at.step, description=text)
        elif at.step % 500 == 0 or at.step == self._steps:
            minutes = (self._steps - at.step) / at.steps_per_second / 60
            self.say(f"step {at.step}/{self._steps}  {text}, {minutes:.0f} min left")

    def say(self, text: str) -> None:
        """Print a line, above the bar if there is one."""
        if self._bar:
            self._bar.console.print(text)
        else:
            print(text, flush=True)
