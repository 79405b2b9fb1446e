"""The results of episodes. No torch in here: reports and journals are read where no policy runs."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from il_bench.errors import IlBenchError
from il_bench.rollout.endings import Ending
from il_bench.rollout.recording import StepRecording

#: The columns of `Outcomes`.
DTYPES: dict[str, Any] = {
    "seeds": np.int64,
    "success": np.bool_,
    "max_reward": np.float64,
    "n_steps": np.int64,
    "outside": np.int64,
    "final_coverage": np.float64,
    "best_coverage": np.float64,
    "last_reward": np.float64,
    "sum_reward": np.float64,
    "ending": np.dtype("U16"),
}
#: Columns that not every episode has, and what stands there instead; in records, None does.
_UNKNOWN: dict[str, Any] = dict.fromkeys(
    ("final_coverage", "best_coverage", "last_reward", "sum_reward"), np.nan
)
_UNKNOWN["ending"] = ""
_RECORD_KEYS = {"seeds": "seed"}
_NONE: Any = ()


class Episode(BaseModel):
    """One episode as journals and reports hold it: a row of `Outcomes`.

    What an environment does not tell is None, and so is what older reports lack.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    seed: Annotated[int, Field(ge=0, lt=2**63)]
    success: bool
    max_reward: Annotated[float, Field(ge=0, le=1)]
    n_steps: Annotated[int, Field(ge=1, lt=2**31)]
    outside: Annotated[int, Field(ge=0, lt=2**31)]
    final_coverage: Annotated[float, Field(ge=0, le=1)] | None = None
    best_coverage: Annotated[float, Field(ge=0, le=1)] | None = None
    last_reward: float | None = None
    sum_reward: float | None = None
    ending: Annotated[str, AfterValidator(lambda word: str(Ending(word)))] | None = None

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.success and self.max_reward < 1.0:
            raise ValueError(f"seed {self.seed} is a success with max_reward {self.max_reward}; it has 1.0")
        if self.ending is not None and self.success != (self.ending == Ending.SUCCESS):
            raise ValueError(f"seed {self.seed} has success {self.success} and ending {self.ending!r}")
        if self.outside > self.n_steps:
            raise ValueError(f"seed {self.seed} has {self.outside} steps outside, of {self.n_steps}")
        return self


@dataclass(frozen=True, eq=False, repr=False)
class Outcomes:
    """The results of N episodes, one row an episode, in seed order: all columns are (N,)."""

    seeds: NDArray[np.int64]
    success: NDArray[np.bool_]
    max_reward: NDArray[np.float64]  # the best reward of the episode, in [0, 1]
    n_steps: NDArray[np.int64]
    outside: NDArray[np.int64]  # steps whose action lay outside [0, 512] px
    seconds: float = 0.0  # wall time
    final_coverage: NDArray[np.float64] = _NONE  # after the last step; nan: the environment has none
    best_coverage: NDArray[np.float64] = _NONE  # after any step
    last_reward: NDArray[np.float64] = _NONE  # of the last step
    sum_reward: NDArray[np.float64] = _NONE  # of all steps
    ending: NDArray[np.str_] = _NONE  # an `endings.Ending`, "" if nobody said
    recording: StepRecording | None = None  # of a block that has just been rolled out

    def __post_init__(self) -> None:
        """Give every column its dtype.

        Raises IlBenchError if one has another length than `seeds` or holds what its dtype cannot, or if a
        seed occurs twice: its episode would count twice.
        """
        for name, dtype in DTYPES.items():
            given = getattr(self, name)
            if name in _UNKNOWN and not len(given):
                given = np.full(len(self.seeds), _UNKNOWN[name])
            column = _column(name, given, dtype)
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

    def __repr__(self) -> str:
        """Return for example '<Outcomes: 200 episodes, success_rate 0.665>': a failed assertion prints it."""
        return f"<Outcomes: {len(self)} episodes, success_rate {self.success_rate:.3f}>"

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
        columns: dict[str, Any] = {name: getattr(self, name)[at] for name in DTYPES}
        return replace(self, **columns, recording=self.recording and self.recording.take(at))

    def sorted(self) -> "Outcomes":
        """Return the same episodes in seed order."""
        return self.take(np.argsort(self.seeds, kind="stable"))

    @staticmethod
    def concatenate(parts: "Iterable[Outcomes]") -> "Outcomes":
        """Join episodes in seed order; `seconds` add up, recordings are left out."""
        parts = list(parts)
        columns = {
            name: np.concatenate([np.empty(0, dtype), *(getattr(part, name) for part in parts)])
            for name, dtype in DTYPES.items()
        }
        return Outcomes(**columns, seconds=sum(part.seconds for part in parts)).sorted()

    def to_records(self) -> list[dict[str, Any]]:
        """Return one dict an episode with the fields of `Episode`, as plain Python values."""
        columns = {name: getattr(self, name).tolist() for name in DTYPES}
        for name in _UNKNOWN:
            columns[name] = [None if value != value or value == "" else value for value in columns[name]]
        names = [_RECORD_KEYS.get(name, name) for name in columns]
        return [dict(zip(names, row, strict=True)) for row in zip(*columns.values(), strict=True)]

    @staticmethod
    def from_records(records: Sequence[Mapping[str, Any]], seconds: float = 0.0) -> "Outcomes":
        """Read what `to_records` wrote. Raises IlBenchError if a record lacks a field."""
        keys = {name: _RECORD_KEYS.get(name, name) for name in DTYPES}
        try:
            columns: dict[str, Any] = {
                name: np.array([_value(record, name, key) for record in records])
                for name, key in keys.items()
            }
        except KeyError as error:
            raise IlBenchError(f"an episode's record has no field {error}") from None
        return Outcomes(**columns, seconds=seconds)


def _column(name: str, given: Any, dtype: Any) -> NDArray[Any]:
    """An array of this dtype; IlBenchError if that changes a value: a word would become True, 1.5 would 1."""
    found, wanted = np.asarray(given), np.dtype(dtype)
    is_number = found.dtype.kind in "biuf" or wanted.kind not in "biuf"
    column: NDArray[Any] | None = found.astype(wanted, copy=False) if is_number else None
    if column is None or not np.array_equal(column, found, equal_nan=wanted.kind == "f"):
        first = found.reshape(-1)[:1].tolist()
        raise IlBenchError(f"{name} must be {wanted}, got {found.dtype} such as {str(first)[1:-1]:.40}")
    return column


def _value(record: Mapping[str, Any], name: str, key: str) -> Any:
    """A field of a record; those that not every episode has may be None, or missing."""
    if name not in _UNKNOWN:
        return record[key]
    value = record.get(key)
    return _UNKNOWN[name] if value is None else value
