"""A measured baseline: every episode that some weights gave, in a form whose changes can be read in a diff.

    "measured": "2026-11-30",
    "n_episodes": 100,
    "metrics": {"success_rate": 0.98, "mean_max_reward": 0.9912, "mean_steps_to_success": 104.3},
    "episodes": {
     "200000": "..................................................",
     "200050": "........F..................................F......"
    },
    "failed_max_reward": [0.9980888752789664, 0.1182],
    "n_steps": [147, 63, ..]

Each line of `episodes` holds a block of seeds, from the one that its key names on: a dot for a success, F for
a failure.
"""

import json
from collections.abc import Mapping
from datetime import date
from functools import cached_property
from typing import Annotated, Any, Self

import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from il_bench import machine
from il_bench.errors import IlBenchError, wrong_field
from il_bench.protocol import BLOCK_SIZE, EPISODE_FIELDS, MARGIN, TEST_SEEDS, Scalar
from il_bench.rollout.metrics import DEFAULT_METRIC, METRICS, gated_metric
from il_bench.rollout.outcomes import Outcomes

UPDATE = "`pytest --benchmark --il-update-baselines`"
#: The name of a metric that can have a target.
GatedMetric = Annotated[str, AfterValidator(lambda name: gated_metric(name).name)]
Risk = Annotated[float, Field(gt=0, lt=1)]

_SUCCESS, _FAILURE = ".", "F"
#: Columns of `Outcomes` from which a baseline's metrics follow.
_KEPT = ("seeds", "success", "max_reward", "n_steps", "outside")
_DIGITS = 4  # of the metrics in the file
_Seed = Annotated[str, Field(pattern=r"^[1-9][0-9]{5}$")]
_Line = Annotated[str, Field(pattern=f"^[{_SUCCESS}{_FAILURE}]+$")]
_Rewards = tuple[Annotated[float, Field(ge=0, le=1)], ...]
_Steps = tuple[Annotated[int, Field(ge=1, lt=2**31)], ...]


class Strict(BaseModel):
    """A part of baselines.json: no unknown fields, no conversions, no NaN."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class MeasuredBaseline(Strict):
    """The episodes that some weights gave under some conditions.

    margin: the loss that PASS rules out. alpha, beta: as in `baselines.Target`.
    data: what the weights were trained on, for example "human". sha256: of the weights.
    fingerprint: `machine.fingerprint()` of the run. measured: its day (UTC), None if nobody noted it.
    n_episodes, metrics: what the episodes say, for those who read a diff; the file is refused if they differ.
    episodes: see above. failed_max_reward: (failures,), a success has 1.0. n_steps: (N,). Both in seed order.
    """

    metric: GatedMetric = DEFAULT_METRIC
    margin: Risk = MARGIN
    alpha: Risk = 0.05
    beta: Risk = 0.05
    data: str
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    fingerprint: dict[str, Scalar]
    measured: date | None
    n_episodes: Annotated[int, Field(ge=1)]
    metrics: dict[str, float]
    episodes: Annotated[dict[_Seed, _Line], Field(min_length=1)]
    failed_max_reward: _Rewards
    n_steps: _Steps

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if lacking := [name for name in EPISODE_FIELDS if name not in self.fingerprint]:
            raise ValueError(f"fingerprint lacks {lacking[0]!r}")
        expected = None
        for first, line in self.episodes.items():
            if expected not in (None, int(first)):
                raise ValueError(f"episodes.{first}: the line before it ends at seed {expected - 1}")
            expected = int(first) + len(line)
        letters = "".join(self.episodes.values())
        for name, found, needed in (
            ("n_episodes", self.n_episodes, len(letters)),
            ("n_steps", len(self.n_steps), len(letters)),
            ("failed_max_reward", len(self.failed_max_reward), letters.count(_FAILURE)),
        ):
            if found != needed:
                what = "failures" if name == "failed_max_reward" else "episodes"
                raise ValueError(f"{name} counts {found}, but `episodes` holds {needed} {what}")
        if not (self.first_seed >= TEST_SEEDS.start and self.seeds.stop <= TEST_SEEDS.stop):
            raise ValueError(
                f"its episodes have seeds {self.first_seed}-{self.seeds[-1]}; test seeds are"
                f" {TEST_SEEDS[0]}-{TEST_SEEDS[-1]}"
            )
        self._metrics_follow()
        return self

    def _metrics_follow(self) -> None:
        """Raise ValueError unless the metrics are those of the episodes."""
        found = _rounded(self.outcomes)
        if unknown := self.metrics.keys() - METRICS.keys():
            raise ValueError(f"metrics.{min(unknown)}: no such metric; there are {', '.join(METRICS)}")
        for name in {self.metric: None, **self.metrics}:
            said, true = self.metrics.get(name), found.get(name)
            if said is None or true is None or abs(said - true) > 10**-_DIGITS:
                raise ValueError(f"metrics.{name} is {said}, but the episodes give {true}")

    @classmethod
    def from_outcomes(
        cls,
        outcomes: Outcomes,
        *,
        data: str,
        sha256: str,
        fingerprint: Mapping[str, Scalar],
        measured: date | None = None,
        **gate: Any,
    ) -> "MeasuredBaseline":
        """Build a baseline; `gate` may hold metric, margin, alpha and beta.

        Raises IlBenchError unless the seeds are consecutive test seeds and every field is in range.
        """
        if not len(outcomes.seeds) or (np.diff(outcomes.seeds) != 1).any():
            raise IlBenchError("a baseline needs consecutive seeds in rising order; run them without gaps")
        not_full = outcomes.seeds[outcomes.success & (outcomes.max_reward < 1.0)]
        if not_full.size:
            raise IlBenchError(
                f"measured baseline: seed {not_full[0]} is a success with a max_reward below 1.0; a success"
                " has 1.0"
            )
        try:
            return cls(
                data=data,
                sha256=sha256,
                fingerprint=dict(fingerprint),
                measured=measured,
                **in_file(outcomes),
                **gate,
            )
        except ValidationError as error:
            raise IlBenchError(f"measured baseline: {wrong_field(error, 'its episodes')}") from None

    @property
    def first_seed(self) -> int:
        """The first seed of its episodes."""
        return int(next(iter(self.episodes)))

    @property
    def seeds(self) -> range:
        """The seeds of its episodes."""
        return range(self.first_seed, self.first_seed + self.n_episodes)

    @cached_property
    def outcomes(self) -> Outcomes:
        """Its episodes; it does not keep their `outside`, which is 0 here."""
        success = np.array([letter == _SUCCESS for line in self.episodes.values() for letter in line])
        reward = np.ones(len(success))
        reward[~success] = self.failed_max_reward
        return Outcomes(np.array(self.seeds), success, reward, self.n_steps, np.zeros(len(success)))  # type: ignore[arg-type]

    def pairs(self, outcomes: Outcomes) -> tuple[Outcomes, Outcomes]:
        """Return the new episodes and the baseline's, both of the seeds that they share."""
        new = outcomes.take(np.flatnonzero(np.isin(outcomes.seeds, self.seeds)))
        return new, self.outcomes.take(new.seeds - self.first_seed)

    def first_difference(self, outcomes: Outcomes) -> int | None:
        """Return the first seed whose success, max_reward (to the bit) or n_steps differs, or None."""
        new, old = self.pairs(outcomes)
        columns = ("success", "max_reward", "n_steps")
        differs = np.any([getattr(new, name) != getattr(old, name) for name in columns], axis=0)
        return next(iter(new.seeds[differs].tolist()), None)

    def same_episodes(self, other: "MeasuredBaseline") -> bool:
        """Return whether the other baseline says the same, except for the day it was measured."""
        return self == other.model_copy(update={"measured": self.measured})

    def other_task(self, fingerprint: Mapping[str, Scalar]) -> str | None:
        """Return a fingerprint field that defines the episodes and differs, with both values, or None.

        Then the same seeds give other problems to solve, and comparing the episodes says nothing.
        """
        differences = machine.differences(self.fingerprint, dict(fingerprint))
        return next((each for each in differences if each.split()[0] in EPISODE_FIELDS), None)

    def same(self, *, sha256: str | None, fingerprint: Mapping[str, Scalar], name: str) -> bool:
        """Return whether weights and conditions are the baseline's: then the episodes must be so, to the bit.

        Raises IlBenchError if its episodes are of another task.
        """
        if difference := self.other_task(fingerprint):
            raise IlBenchError(
                f"baseline of {name}: fingerprint.{difference} now, so its episodes cannot be compared;"
                f" measure it again with {UPDATE}"
            )
        return self.sha256 == sha256 and not machine.differences(self.fingerprint, dict(fingerprint))


def in_file(outcomes: Outcomes) -> dict[str, Any]:
    """Return episodes of consecutive seeds as the fields of a MeasuredBaseline."""
    letters = "".join(_SUCCESS if each else _FAILURE for each in outcomes.success)
    first = int(outcomes.seeds[0])
    starts = range(0, len(letters), BLOCK_SIZE)
    return {
        "n_episodes": outcomes.n,
        "metrics": _rounded(Outcomes(**{name: getattr(outcomes, name) for name in _KEPT})),
        "episodes": {str(first + start): letters[start : start + BLOCK_SIZE] for start in starts},
        "failed_max_reward": tuple(map(float, outcomes.max_reward[~outcomes.success])),
        "n_steps": tuple(map(int, outcomes.n_steps)),
    }


def _rounded(outcomes: Outcomes) -> dict[str, float]:
    """Return each metric that some episode has a value of."""
    return {
        name: round(metric.estimate(outcomes), _DIGITS)
        for name, metric in METRICS.items()
        if metric.values(outcomes).size
    }


class _Columns(Strict):
    """The episodes of a baseline in schema 1: (N,) each, entry i of seed `first_seed + i`."""

    first_seed: Annotated[int, Field(ge=TEST_SEEDS.start, lt=TEST_SEEDS.stop)]
    success: Annotated[tuple[Annotated[int, Field(ge=0, le=1)], ...], Field(min_length=1)]
    max_reward: _Rewards
    n_steps: _Steps

    @model_validator(mode="after")
    def _fit(self) -> Self:
        for name in ("max_reward", "n_steps"):
            if (found := len(getattr(self, name))) != (n := len(self.success)):
                raise ValueError(f"{name} holds {found} episodes, success holds {n}")
        for i, (success, reward) in enumerate(zip(self.success, self.max_reward, strict=True)):
            if success and reward < 1.0:
                seed = self.first_seed + i
                raise ValueError(f"seed {seed} is a success with max_reward {reward}; a success has 1.0")
        return self


def from_schema_1(fields: dict[str, Any]) -> MeasuredBaseline:
    """Read a baseline of schema 1, whose day nobody noted. Raises ValueError that names the field."""
    given = {name: fields[name] for name in _Columns.model_fields if name in fields}
    kept = {name: value for name, value in fields.items() if name not in given}
    try:
        columns = _Columns.model_validate_json(json.dumps(given))
        seeds = columns.first_seed + np.arange(len(columns.success))
        nowhere = np.zeros(len(seeds))
        outcomes = Outcomes(seeds, columns.success, columns.max_reward, columns.n_steps, nowhere)  # type: ignore[arg-type]
        found = {"measured": None, **in_file(outcomes)}
        if newer := kept.keys() & found.keys():
            raise ValueError(f"{min(newer)} = {kept[min(newer)]!r:.60}: unknown field in schema 1")
        return MeasuredBaseline(**kept, **found)
    except ValidationError as error:
        raise ValueError(wrong_field(error, "its episodes")) from None
