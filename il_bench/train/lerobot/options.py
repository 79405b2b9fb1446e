"""The options of ``il-bench train``."""

from dataclasses import dataclass
from pathlib import Path

from il_bench.errors import IlBenchError


@dataclass(frozen=True)
class Options:
    """As given on the command line; None where they were not.

    Attributes:
        data: the source ``--data`` means, ``data_name`` what reports call it.
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

    def needed(self) -> tuple[str, Path]:
        """Source of the data and folder of the run.

        Raises:
            IlBenchError: one of them was not given, named.
        """
        if self.data is None or self.output is None:
            missing = "--data" if self.data is None else "--output"
            raise IlBenchError(f"{missing} is missing; `il-bench train --help` says what it takes.")
        return self.data, self.output
