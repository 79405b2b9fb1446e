"""What ``lerobot-train`` says as it trains, read: where VQ-BeT's first phase ends, which rates count."""

import re
from dataclasses import dataclass

from il_bench.train import first_phase

EVALUATION = re.compile(r"Eval policy at step (\d+)")
RATES = re.compile(r"Suite overall aggregated: .*'avg_max_reward': (?:np\.float64\()?([\d.e+-]+|nan)")
SUCCESS = re.compile(r"'pc_success': (?:np\.float64\()?([\d.e+-]+|nan)")
LOSS = re.compile(r"step:\S+ smpl:.* loss:(\S+) .*lr:(\S+)")
PROGRESS = re.compile(r"\d+%\|.*\|")
# What LeRobot's VQ-BeT prints when its residual VQ is frozen.
PHASE_END = "Finished discretizing action data!"


@dataclass(frozen=True)
class Row:
    """What a line says of the run, for ``train_log.csv``: a loss, or the two rates of an evaluation."""

    step: int
    loss: str = ""
    lr: str = ""
    success_rate: float | None = None
    mean_max_reward: float | None = None

    def columns(self) -> dict[str, str]:
        """Columns of ``train_log.csv``, those that the line says something of."""
        rates = {"success_rate": self.success_rate, "mean_max_reward": self.mean_max_reward}
        kept = {name: f"{value:.4f}" for name, value in rates.items() if value is not None}
        said = {name: value for name, value in (("loss", self.loss), ("lr", self.lr)) if value}
        return {"step": str(self.step), **said, **kept}


@dataclass(frozen=True)
class Seen:
    """A line understood: what to say after it, and what to keep of it."""

    notes: tuple[str, ...] = ()
    row: Row | None = None
    is_progress: bool = False


class Watcher:
    """Reads the lines of one run, in order.

    Args:
        first_phase_steps: of VQ-BeT, the steps that train its residual VQ alone: until then its policy is as
            drawn, and a success rate is chance. 0 of other policies.
        start_step: of this sitting.
        log_freq: steps between LeRobot's lines about the loss, whose own step is rounded.
    """

    def __init__(self, first_phase_steps: int, start_step: int, log_freq: int) -> None:
        self._first_phase_steps, self._log_freq = first_phase_steps, log_freq
        self._logged = start_step // log_freq * log_freq if log_freq else 0
        self._evaluated_at: int | None = None

    def read(self, line: str) -> Seen:
        """What ``line`` says."""
        if PROGRESS.search(line):
            return Seen(is_progress=True)
        if PHASE_END in line:
            return Seen((first_phase.over(self._first_phase_steps),))
        if found := EVALUATION.search(line):
            self._evaluated_at = int(found[1])
            return Seen((self._void(),) if self._is_void() else ())
        if (found := RATES.search(line)) and (success := SUCCESS.search(line)):
            return self._rates(float(success[1]) / 100, float(found[1]))
        if self._log_freq and (found := LOSS.search(line)):
            self._logged += self._log_freq
            return Seen(row=Row(self._logged, loss=found[1], lr=found[2]))
        return Seen()

    def _rates(self, success_rate: float, mean_max_reward: float) -> Seen:
        if self._is_void():
            return Seen((self._void(),))
        rates = f"success_rate {success_rate:.3f}, mean_max_reward {mean_max_reward:.3f}"
        row = Row(self._evaluated_at or 0, success_rate=success_rate, mean_max_reward=mean_max_reward)
        return Seen((f"step {self._evaluated_at}: {rates}",), row)

    def _is_void(self) -> bool:
        return self._evaluated_at is not None and self._evaluated_at <= self._first_phase_steps

    def _void(self) -> str:
        return first_phase.void(self._evaluated_at or 0, self._first_phase_steps)
