"""Training: one loop and recipes as data here, LeRobot's own trainer in `lerobot`."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from il_bench.errors import IlBenchError


@dataclass(frozen=True)
class TrainOptions:
    """The options of ``il-bench train``, for both trainers; None where the command line gives none.

    ``data`` is the source that ``--data`` means, ``data_name`` what reports call it.
    """

    data: str | None = None
    data_name: str | None = None
    output: Path | None = None
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
        """Source of the data and folder of the run. Raises IlBenchError if one of them was not given."""
        if self.data is None or self.output is None:
            missing = "--data" if self.data is None else "--output"
            raise IlBenchError(f"{missing} is missing; `il-bench train --help` says what it takes.")
        return self.data, self.output

    def given_as(self, names: Mapping[str, str]) -> dict[str, Any]:
        """The given ones among the options ``names``, under the names that ``names`` maps them to."""
        values = {name: getattr(self, option) for option, name in names.items()}
        return {name: value for name, value in values.items() if value is not None}
