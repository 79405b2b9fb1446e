"""Training windows cut in memory: what ``LeRobotDataset(..., delta_timestamps)`` gives, in microseconds."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from lerobot.datasets.lerobot_dataset import LeRobotDataset

from il_bench.data.lerobot_folder import NOT_NUMBERS, read_column
from il_bench.errors import IlBenchError

TOLERANCE_S = 1e-4  # LeRobotDataset's default


class Windows:
    """Every frame of a dataset with the frames around it, held as tensors.

    `batch(indices)` equals LeRobot's `default_collate([dataset[i] for i in indices])` on every key that holds
    numbers, for the dataset opened with the same delta_timestamps and episodes; images and text are left
    out. A window that leaves its episode repeats the episode's first or last frame; `<key>_is_pad` marks
    these places.

    Args:
        dataset: an opened LeRobotDataset.
        delta_timestamps: for each key the offsets of its window in seconds, multiples of 1 / fps.
        episodes: take only these; the frames keep the dataset's order, as in LeRobot.

    `stats` holds ``dataset.meta.stats`` as tensors, always over all episodes of the dataset. An IlBenchError
    names the feature, offset or episode that cannot be used.
    """

    def __init__(
        self,
        dataset: LeRobotDataset,
        delta_timestamps: Mapping[str, Sequence[float]],
        episodes: Sequence[int] | None = None,
    ) -> None:
        self.stats: dict[str, dict[str, torch.Tensor]] = {
            key: {name: torch.tensor(value) for name, value in feature.items()}
            for key, feature in (dataset.meta.stats or {}).items()
            if key in dataset.features
        }
        self.fps: int = dataset.fps
        self._columns = _load_columns(dataset, episodes)
        self._deltas = {key: self._frame_deltas(key, seconds) for key, seconds in delta_timestamps.items()}
        _, lengths = torch.unique_consecutive(self._columns["episode_index"], return_counts=True)
        ends = lengths.cumsum(0)  # of each episode; a frame's first and last of its episode:
        self._first = (ends - lengths).repeat_interleave(lengths)
        self._last = (ends - 1).repeat_interleave(lengths)
        self._frames = torch.arange(len(self._first))
        self._tasks = [str(task) for task in dataset.meta.tasks.index]

    def __len__(self) -> int:
        """Number of frames; each is the centre of one window."""
        return len(self._first)

    def batch(self, indices: torch.Tensor) -> dict[str, Any]:
        """Gather the windows of the frames `indices`, (B,) int64.

        Returns for a key of `delta_timestamps` (B, T, ...) and `<key>_is_pad` (B, T) bool; for any other key
        (B, ...); `task` as a list of B strings.
        """
        indices = self._frames[indices]  # checks them, and counts negative ones from the end
        first, last = self._first[indices, None], self._last[indices, None]
        wanted = {key: indices[:, None] + deltas for key, deltas in self._deltas.items()}  # each (B, T)
        frames = {key: places.clamp(first, last) for key, places in wanted.items()}
        out: dict[str, Any] = {key: column[frames.get(key, indices)] for key, column in self._columns.items()}
        out |= {f"{key}_is_pad": frames[key] != wanted[key] for key in wanted}
        tasks = self._columns["task_index"][indices]
        out["task"] = [self._tasks[task] for task in tasks.tolist()]
        return out

    def make_relative(self, key: str, to: str) -> None:
        """Subtract the feature ``to`` from the feature ``key``, frame by frame, and take its `stats` anew."""
        column = self._columns[key] = self._columns[key] - self._columns[to]
        low, high = column.aminmax(dim=0)
        self.stats[key] = {"mean": column.mean(dim=0), "std": column.std(dim=0), "min": low, "max": high}

    def _frame_deltas(self, key: str, seconds: Sequence[float]) -> torch.Tensor:
        if key not in self._columns:
            raise IlBenchError(
                f"delta_timestamps[{key!r}]: no such feature that holds numbers (found: "
                f"{', '.join(sorted(self._columns))})"
            )
        if key == "task_index":
            raise IlBenchError("delta_timestamps['task_index']: a window has one task, that of its own frame")
        if len(seconds) == 0:
            raise IlBenchError(f"delta_timestamps[{key!r}]: no offsets; [0.0] is the frame itself")
        frames = [round(second * self.fps) for second in seconds]
        for second, frame in zip(seconds, frames, strict=True):
            if abs(second - frame / self.fps) > TOLERANCE_S:
                raise IlBenchError(
                    f"delta_timestamps[{key!r}]: {second} s is not a multiple of 1/{self.fps} s"
                )
        return torch.tensor(frames, dtype=torch.int64)


def _load_columns(dataset: LeRobotDataset, episodes: Sequence[int] | None) -> dict[str, torch.Tensor]:
    names = [key for key in dataset.hf_dataset.column_names if _holds_numbers(dataset, key)]
    columns = {key: _as_torch(read_column(dataset, key)) for key in names}
    if episodes is None:
        return columns
    present = set(columns["episode_index"].tolist())
    if (absent := sorted(set(episodes) - present)) or len(episodes) == 0:
        raise IlBenchError(
            f"{dataset.repo_id}: episodes {absent or list(episodes)} cannot be selected;"
            f" it has {len(present)} episodes, {min(present)} to {max(present)}"
        )
    chosen = torch.isin(columns["episode_index"], torch.tensor(sorted(set(episodes))))
    return {key: column[chosen] for key, column in columns.items()}


def _holds_numbers(dataset: LeRobotDataset, key: str) -> bool:
    return key in dataset.features and dataset.features[key]["dtype"] not in NOT_NUMBERS


def _as_torch(column: np.ndarray[Any, Any]) -> torch.Tensor:
    # The types torch.tensor() gives to Python numbers, which is how LeRobot makes its items.
    kinds = {"f": torch.get_default_dtype(), "i": torch.int64, "u": torch.int64, "b": torch.bool}
    return torch.tensor(column).to(kinds[column.dtype.kind])
