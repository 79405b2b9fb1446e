"""The results of episodes. No torch in here: reports and journals are read where no policy runs."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from il_bench.errors import IlBenchError

#: The columns of `Outcomes`.
DTYPES = {
    "seeds": np.int64,
    "success": np.bool_,
    "max_reward": np.float64,
    "n_steps": np.int64,
    "outside": np.int64,
}
_RECORD_KEYS = {"seeds": "seed"}


class Episode(BaseModel):
    """One episode as journals and reports hold it: a row of `Outcomes`."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    seed: Annotated[int, Field(ge=0, lt=2**63)]
    success: bool
    max_reward: Annotated[float, Field(ge=0, le=1)]
    n_steps: Annotated[int, Field(ge=1, lt=2**31)]
    outside: Annotated[int, Field(ge=0, lt=2**31)]

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.success and self.max_reward < 1.0:
            raise ValueError(f"seed {self.seed} is a success with max_reward {self.max_reward}; it has 1.0")
        if self.outside > self.n_steps:
            raise ValueError(f"seed {self.seed} has {self.outside} steps outside, of {self.n_steps}")
        return self


@dataclass(frozen=True, eq=False)
class Outcomes:
    """The results of N episodes, one row an episode, in seed order: all columns are (N,)."""

    seeds: NDArray[np.int64]
    success: NDArray[np.bool_]
    max_reward: NDArray[np.float64]  # the best reward of the episode, in [0, 1]
    n_steps: NDArray[np.int64]
    outside: NDArray[np.int64]  # steps whose action lay outside [0, 512] px
    seconds: float = 0.0  # wall time

    def __post_init__(self) -> None:
        """Give every column its dtype.

        Raises IlBenchError if one has another length than `seeds` or holds what its dtype cannot, or if a
        seed occurs twice: its episode would count twice.
        """
        for name, dtype in DTYPES.items():
            column = _column(name, getattr(self, name), dtype)
            if column.ndim != 1 or len(column) != len(self.seeds):
                raise IlBenchError(
                    f"{name} must have shape ({len(self.seeds)},) as seeds, got {column.shape}"
                )
            object.__setattr__(self, name, column)
        seeds, counts = np.unique(self.seeds, return_counts=True)
        if (counts > 1).any():
            raise IlBenchError(
                f"seed {seeds[counts > 1][0]} occurs more than once; outcomes hold each episode once"
            )

    def __len__(self) -> int:
        return len(self.seeds)

    @property
    def n(self) -> int:
        """Number of episodes."""
        return len(self.seeds)

    @property
    def success_rate(self) -> float:
        """Share of episodes that succeed, in [0, 1]; nan without episodes."""
        return float(self.success.mean()) if len(self) else float("nan")

    @property
    def mean_max_reward(self) -> float:
        """Mean over episodes of the best reward, in [0, 1]; nan without episodes."""
        return float(self.max_reward.mean()) if len(self) else float("nan")

    @property
    def share_outside(self) -> float:
        """Share of steps whose action lay outside [0, 512] px, in [0, 1]; nan without episodes."""
        return float(self.outside.sum() / self.n_steps.sum()) if len(self) else float("nan")

    def take(self, positions: ArrayLike) -> "Outcomes":
        """Return the episodes at these positions (M,), in that order; `seconds` stays."""
        at = np.asarray(positions, np.int64)
        return Outcomes(**{name: getattr(self, name)[at] for name in DTYPES}, seconds=self.seconds)

    def sorted(self) -> "Outcomes":
        """Return the same episodes in seed order."""
        return self.take(np.argsort(self.seeds, kind="stable"))

    @staticmethod
    def concatenate(parts: "Iterable[Outcomes]") -> "Outcomes":
        """Join episodes in seed order; `seconds` add up."""
        parts = list(parts)
        columns = {
            name: np.concatenate([np.empty(0, dtype), *(getattr(part, name) for part in parts)])
            for name, dtype in DTYPES.items()
        }
        return Outcomes(**columns, seconds=sum(part.seconds for part in parts)).sorted()

    def to_records(self) -> list[dict[str, Any]]:
        """Return one dict an episode with the fields of `Episode`, as plain Python values."""
        columns = {_RECORD_KEYS.get(name, name): getattr(self, name).tolist() for name in DTYPES}
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]

    @staticmethod
    def from_records(records: Sequence[Mapping[str, Any]], seconds: float = 0.0) -> "Outcomes":
        """Read what `to_records` wrote. Raises IlBenchError if a record lacks a field."""
        keys = {name: _RECORD_KEYS.get(name, name) for name in DTYPES}
        try:
            columns = {name: np.array([record[key] for record in records]) for name, key in keys.items()}
        except KeyError as error:
            raise IlBenchError(f"an episode's record has no field {error}") from None
        return Outcomes(**columns, seconds=seconds)


def _column(name: str, given: Any, dtype: Any) -> NDArray[Any]:
    """An array of this dtype; IlBenchError if that changes a value: a word would become True, 1.5 would 1."""
    found, wanted = np.asarray(given), np.dtype(dtype)
    is_number = found.dtype.kind in "biuf" or wanted.kind not in "biuf"
    column: NDArray[Any] | None = found.astype(wanted, copy=False) if is_number else None
    if column is None or not np.array_equal(column, found):
        first = found.reshape(-1)[:1].tolist()
        raise IlBenchError(f"{name} must be {wanted}, got {found.dtype} such as {str(first)[1:-1]:.40}")
    return column
