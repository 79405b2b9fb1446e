"""Recordings in the report folder, a file a block: `recordings/<policy>.<track>/<first seed>.npz`.

`numpy.load` reads them: `columns` (C,), `seeds` (N,), `n_rows` (N,), and `rows` (sum of n_rows, C), the
episodes one after another, in the units of `recording`. A file's bytes depend on policy and seeds, not on
executor, workers or interruptions.
"""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from il_bench.files import write_whole, writing
from il_bench.rollout import journal
from il_bench.rollout.outcomes import Outcomes
from il_bench.rollout.recording import StepRecording

FOLDER = "recordings"


class Recordings:
    """The recordings of one policy in a report folder."""

    def __init__(self, report: Path, policy: str, track: str) -> None:
        self._folder = report / FOLDER / journal.file_name(policy, track)

    def clear(self) -> None:
        """Remove what an earlier run left."""
        with writing(self._folder, "remove it, or use another folder with --il-report"):
            if self._folder.exists():
                shutil.rmtree(self._folder)

    def save(self, block: Outcomes, *, failures_only: bool = False) -> None:
        """Write the file of a block that has just been rolled out. Raises IlBenchError if it cannot be."""
        recording = block.recording
        if recording is None or (failures_only and block.success.all()):
            return
        if failures_only:
            recording = recording.take(np.flatnonzero(~block.success))
        path = self._folder / f"{block.seeds[0]}.npz"
        with writing(path, "use another folder with --il-report, or --il-record none"):
            write_whole(path, recording.to_bytes())

    def copy_to(self, report: Path) -> None:
        """Copy the files into another report folder. Raises IlBenchError if that cannot be written."""
        folder = report / FOLDER / self._folder.name
        with writing(folder, "use another folder"):
            for path in self._folder.glob("*.npz"):
                write_whole(folder / path.name, path.read_bytes())

    def load(self) -> tuple[dict[int, NDArray[Any]], list[str]]:
        """Return the rows of every recorded episode by seed, and a sentence for each file that is none."""
        found: dict[int, NDArray[Any]] = {}
        problems = []
        for path in sorted(self._folder.glob("*.npz")):
            try:
                found.update(StepRecording.from_bytes(path.read_bytes()))
            except (OSError, ValueError) as error:
                problems.append(f"{path.name}: {error}")
        return found, problems
