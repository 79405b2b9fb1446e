"""Training: one loop with recipes as data; `lerobot` runs LeRobot's own trainer."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from il_bench.errors import IlBenchError
from il_bench.files import given_path


@dataclass(frozen=True)
class TrainOptions:
    """The options of ``il-bench train``, for both trainers; None if the command line does not give one.

    ``data`` is the source that ``--data`` names; ``data_name`` is its name in reports.
    ``eye`` is the eye that a head on images is trained on.
    """

    data: str | None = None
    data_name: str | None = None
    output: Path | None = None
    eye: Path | None = None
    seed: int | None = None
    steps: int | None = None
    batch_size: int | None = None
    device: str | None = None
    save_every: int | None = None
    eval_every: int | None = None
    eval_episodes: int | None = None
    resume: bool = False
    print_command: bool = False

    def data_and_output(self) -> tuple[str, Path]:
        """The source of the data and the folder of the run; an IlBenchError if one is missing."""
        if self.data is None or self.output is None:
            missing = "--data" if self.data is None else "--output"
            raise IlBenchError(f"{missing} is missing; `il-bench train --help` says what it takes.")
        return self.data, given_path(self.output)

    def given_as(self, names: Mapping[str, str]) -> dict[str, Any]:
        """The options among ``names`` that were given, under the names that ``names`` maps them to."""
        values = {name: getattr(self, option) for option, name in names.items()}
        return {name: value for name, value in values.items() if value is not None}
