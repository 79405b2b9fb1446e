"""Episodes step by step, for looking at. What is counted of them does not come from here, see `endings`.

A recording of a PushT episode has a row for its start and one after each step. It keeps the agent, the pose
of the block, the action taken from there (the last row repeats the last one) and the coverage, in 16 bits:

    agent_x, agent_y, block_x, block_y, action_x, action_y   0.1 px, up to 3,276 px on either side
    block_angle                                               a turn / 65,536, wrapped
    coverage                                                  1 / 32,767

In a project's own environment it keeps the reward only, as float32.
"""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import ArrayLike, NDArray

from il_bench.rollout import endings

if TYPE_CHECKING:
    from il_bench.pusht.batch import PushTBatch

#: What one unit of each column stands for: px, radians, shares.
UNITS = {
    "agent_x": 0.1,
    "agent_y": 0.1,
    "block_x": 0.1,
    "block_y": 0.1,
    "block_angle": 2 * np.pi / 65_536,
    "action_x": 0.1,
    "action_y": 0.1,
    "coverage": 1 / 32_767,
}
PUSHT = tuple(UNITS)
REWARD = ("reward",)
_ANGLE, _ACTION, _COVERAGE = 4, slice(5, 7), 7


@dataclass(frozen=True, eq=False)
class StepRecording:
    """Recorded steps of N episodes. `rows`: (T, C), the `n_rows` (N,) of each episode one after another."""

    columns: tuple[str, ...]
    seeds: NDArray[np.int64]
    n_rows: NDArray[np.int64]
    rows: NDArray[Any]

    def __iter__(self) -> Iterator[tuple[int, NDArray[Any]]]:
        """Give each episode's seed and rows (n_rows, C)."""
        yield from zip(self.seeds.tolist(), np.split(self.rows, np.cumsum(self.n_rows)[:-1]), strict=True)

    def take(self, positions: ArrayLike) -> "StepRecording":
        """Return the episodes at these positions (M,), in that order."""
        at, parts = np.asarray(positions, np.int64), np.split(self.rows, np.cumsum(self.n_rows)[:-1])
        rows = np.concatenate([self.rows[:0], *(parts[i] for i in at)])
        return StepRecording(self.columns, self.seeds[at], self.n_rows[at], rows)

    @staticmethod
    def concatenate(parts: Sequence["StepRecording"]) -> "StepRecording":
        """Join recordings of the same columns, in their order."""
        arrays = ("seeds", "n_rows", "rows")
        joined = {name: np.concatenate([getattr(part, name) for part in parts]) for name in arrays}
        return StepRecording(parts[0].columns, **joined)

    def to_bytes(self) -> bytes:
        """Return the content of a file, the same for the same recording."""
        file = io.BytesIO()
        np.savez(file, **{**vars(self), "columns": np.array(self.columns)})
        return file.getvalue()

    @staticmethod
    def from_bytes(content: bytes) -> "StepRecording":
        """Read what `to_bytes` wrote. Raises ValueError for anything else."""
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as file:
                found = {name: file[name] for name in ("columns", "seeds", "n_rows", "rows")}
        except (BadZipFile, EOFError, KeyError, OSError, ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"no recording ({error})") from error
        columns, seeds, n_rows, rows = found.values()
        names = tuple(columns.tolist())
        fits = (
            names in (PUSHT, REWARD)
            and rows.dtype == (np.int16 if names == PUSHT else np.float32)
            and seeds.ndim == 1
            and seeds.shape == n_rows.shape
            and seeds.dtype == n_rows.dtype == np.int64
            and (n_rows >= 1).all()
            and rows.shape == (n_rows.sum(), len(names))
        )
        if not fits:
            raise ValueError("no recording (its arrays do not fit each other)")
        return StepRecording(names, seeds, n_rows, rows)


class StepRecorder:
    """Takes down the B episodes of a batch that has just been reset; call `add` after every step."""

    def __init__(self, worlds: "PushTBatch", max_steps: int) -> None:
        self._worlds = worlds
        self._rows = np.zeros((max_steps + 1, len(worlds.pose), len(PUSHT)))
        self._n = 0
        self._state()

    def add(self, actions: NDArray[np.floating]) -> None:
        """Take down the actions (B, 2) of a step, and the state after it."""
        self._rows[self._n : self._n + 2, :, _ACTION] = actions
        self._n += 1
        self._state()

    def _state(self) -> None:
        row = self._rows[self._n]
        row[:, :2], row[:, 2:5], row[:, _COVERAGE] = (
            self._worlds.agent,
            self._worlds.pose,
            self._worlds.coverage,
        )

    def counted(self, n_steps: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        """Return what is counted of the episodes, see `endings.counted`, from these float64."""
        found = self._rows[: self._n + 1]
        return endings.counted(found[:, :, 2:5], found[:, :, _COVERAGE], n_steps)

    def recording(self, seeds: NDArray[np.int64], n_steps: NDArray[np.int64]) -> StepRecording:
        """Return the episodes of all worlds (B,), each to its end; of an ended one the last action stays."""
        found = self._rows[: self._n + 1]
        found[n_steps, np.arange(len(seeds)), _ACTION] = found[n_steps - 1, np.arange(len(seeds)), _ACTION]
        ended = np.arange(self._n + 1)[:, None] <= n_steps  # (rows, B); later ones may hold anything
        rows = np.round(found.swapaxes(0, 1)[ended.T] / tuple(UNITS.values()))
        rows[:, _ANGLE] = (rows[:, _ANGLE] + 32_768) % 65_536 - 32_768
        rows = np.clip(rows, -32_768, 32_767).astype(np.int16)
        return StepRecording(PUSHT, seeds, n_steps + 1, rows)
