"""baselines.json: each policy's declared target, and its measured baseline.

    {"schema": 1, "gates": {"<policy>": {"<track>": {"target": {..} or null, "baseline": {..} or null}}}}

People declare targets; only `pytest --benchmark --il-update-baselines` writes baselines. A baseline keeps
every episode: later runs are compared with it seed by seed, and the same weights must reproduce it exactly.
"""

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from il_bench import machine
from il_bench.errors import IlBenchError, wrong_field
from il_bench.files import locked, write_whole, writing
from il_bench.protocol import EPISODE_FIELDS, MARGIN, MAX_EPISODES, TEST_SEEDS, Scalar
from il_bench.rollout.metrics import DEFAULT_METRIC, gated_metric
from il_bench.rollout.outcomes import Outcomes

SCHEMA = 1
#: PushT's keypoints or pixels, else the name of a project's environment.
Track = Annotated[str, Field(pattern=r"^[\w.-]+$")]
#: The name of a metric that can have a target.
GatedMetric = Annotated[str, AfterValidator(lambda name: gated_metric(name).name)]

_Share = Annotated[float, Field(gt=0, lt=1)]
_UPDATE = "`pytest --benchmark --il-update-baselines`"
_LOCK_SECONDS = 30


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Target(_Model):
    """A declared requirement: the true mean of `metric` is at least `value`.

    alpha: risk of FAIL for a policy at `value`, before it is divided over all gates (`Baselines.tested`).
    beta: risk of PASS for a policy at `value - margin`.
    required: whether missing it fails the run; if not, the run shows BELOW TARGET.
    """

    metric: GatedMetric = DEFAULT_METRIC
    value: _Share
    margin: _Share = MARGIN
    alpha: _Share = 0.05
    beta: _Share = 0.05
    cap: Annotated[int, Field(ge=1, le=MAX_EPISODES)] = MAX_EPISODES
    required: bool = False

    @model_validator(mode="after")
    def _margin_below_value(self) -> Self:
        if self.margin >= self.value:
            raise ValueError(f"margin {self.margin} must be below value {self.value}")
        return self


class MeasuredBaseline(_Model):
    """The episodes that some weights gave under some conditions.

    margin: the loss that PASS rules out. alpha, beta: as in `Target`.
    data: what the weights were trained on, for example "human". sha256: of the weights.
    fingerprint: `machine.fingerprint()` of the run.
    success, max_reward, n_steps: (N,), entry i belongs to the episode with seed `first_seed + i`.
    """

    metric: GatedMetric = DEFAULT_METRIC
    margin: _Share = MARGIN
    alpha: _Share = 0.05
    beta: _Share = 0.05
    data: str
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    fingerprint: dict[str, Scalar]
    first_seed: Annotated[int, Field(ge=TEST_SEEDS.start, lt=TEST_SEEDS.stop)]
    success: tuple[Annotated[int, Field(ge=0, le=1)], ...]
    max_reward: tuple[Annotated[float, Field(ge=0, le=1)], ...]
    n_steps: tuple[Annotated[int, Field(ge=1)], ...]

    @model_validator(mode="after")
    def _episodes_fit(self) -> Self:
        n = len(self.success)
        if not n:
            raise ValueError("success holds no episodes")
        for name in ("max_reward", "n_steps"):
            if (found := len(getattr(self, name))) != n:
                raise ValueError(f"{name} holds {found} episodes, success holds {n}")
        if self.seeds.stop > TEST_SEEDS.stop:
            raise ValueError(f"{n} episodes end at seed {self.seeds[-1]}; test seeds end at {TEST_SEEDS[-1]}")
        for seed, success, reward in zip(self.seeds, self.success, self.max_reward, strict=True):
            if success and reward < 1.0:
                raise ValueError(f"seed {seed} is a success with max_reward {reward}; a success has 1.0")
        if lacking := [name for name in EPISODE_FIELDS if name not in self.fingerprint]:
            raise ValueError(f"fingerprint lacks {lacking[0]!r}")
        return self

    @classmethod
    def from_outcomes(
        cls, outcomes: Outcomes, *, data: str, sha256: str, fingerprint: Mapping[str, Scalar], **gate: Any
    ) -> "MeasuredBaseline":
        """Build a baseline; `gate` may hold metric, margin, alpha and beta.

        Raises IlBenchError unless the seeds are consecutive test seeds and every field is in range.
        """
        if not len(outcomes.seeds) or (np.diff(outcomes.seeds) != 1).any():
            raise IlBenchError("a baseline needs consecutive seeds in rising order; run them without gaps")
        try:
            return cls(
                data=data,
                sha256=sha256,
                fingerprint=dict(fingerprint),
                first_seed=int(outcomes.seeds[0]),
                success=tuple(map(int, outcomes.success)),
                max_reward=tuple(map(float, outcomes.max_reward)),
                n_steps=tuple(map(int, outcomes.n_steps)),
                **gate,
            )
        except ValidationError as error:
            raise IlBenchError(f"measured baseline: {wrong_field(error, 'its episodes')}") from None

    @property
    def seeds(self) -> range:
        """The seeds of its episodes."""
        return range(self.first_seed, self.first_seed + len(self.success))

    @property
    def outcomes(self) -> Outcomes:
        """Its episodes; it does not keep their `outside`, which is 0 here."""
        outside = np.zeros(len(self.success))
        return Outcomes(np.array(self.seeds), self.success, self.max_reward, self.n_steps, outside)  # type: ignore[arg-type]

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

    def same(self, *, sha256: str | None, fingerprint: Mapping[str, Scalar], name: str) -> bool:
        """Return whether weights and conditions are the baseline's: then the episodes must be so, to the bit.

        Raises IlBenchError if a fingerprint field that defines the episodes differs: then the same seeds give
        other problems to solve, and comparing the episodes says nothing.
        """
        differences = machine.differences(self.fingerprint, dict(fingerprint))
        for difference in differences:
            if difference.split()[0] in EPISODE_FIELDS:
                raise IlBenchError(
                    f"baseline of {name}: fingerprint.{difference} now, so its episodes cannot be compared;"
                    f" measure it again with {_UPDATE}"
                )
        return self.sha256 == sha256 and not differences


class Entry(_Model):
    """The two gates of one policy on one track."""

    target: Target | None = None
    baseline: MeasuredBaseline | None = None


class Baselines(_Model):
    """The whole file: `gates[policy][track]`."""

    schema_version: Annotated[Literal[1], Field(alias="schema")] = 1
    gates: dict[str, dict[Track, Entry]] = {}

    def entry(self, policy: str, track: str) -> Entry:
        """Return the gates of a policy on a track; both are None if the file has none."""
        return self.gates.get(policy, {}).get(track, Entry())

    @property
    def n_gates(self) -> int:
        """The number of gates declared, targets and baselines, whether a run selects them or not."""
        entries = [entry for tracks in self.gates.values() for entry in tracks.values()]
        return sum(gate is not None for entry in entries for _, gate in entry)

    def tested(self, policy: str, track: str) -> Entry:
        """Return the gates of a policy on a track, each alpha divided by `n_gates` (Bonferroni).

        If all policies are as good as declared, any FAIL at all has at most the largest alpha's probability.
        """
        divided = {
            name: gate and gate.model_copy(update={"alpha": gate.alpha / self.n_gates})
            for name, gate in self.entry(policy, track)
        }
        return Entry(**divided)


def default_path() -> Path:
    """Return the baselines.json at the root of the checkout, or the one inside an installed il_bench."""
    package = Path(__file__).parents[1]
    in_checkout = (package.parent / "pyproject.toml").is_file()
    return (package.parent if in_checkout else package) / "baselines.json"


def load(path: str | Path) -> Baselines:
    """Read and check the file; an IlBenchError names the file, the field, its value and the way out."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text, object_pairs_hook=_without_duplicates)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise IlBenchError(
            f"{path}: cannot be read ({reason}); name another with --il-baselines FILE, or write a new"
            f" one with {_UPDATE}"
        ) from None
    except json.JSONDecodeError as error:
        raise IlBenchError(
            f"{path}: broken JSON at line {error.lineno}, column {error.colno} ({error.msg}); restore it from"
            f" version control, or move it away and write a new one with {_UPDATE}"
        ) from None
    except IlBenchError as error:
        raise IlBenchError(f"{path}: {error}") from None
    found = content.get("schema") if isinstance(content, dict) else None
    if found != SCHEMA:
        raise IlBenchError(
            f"{path}: schema = {found!r}, but this il_bench reads schema {SCHEMA}; use the il_bench that"
            f" wrote it, or move it away and write a new one with {_UPDATE}"
        )
    try:
        return Baselines.model_validate_json(text)
    except ValidationError as error:
        way_out = "correct the field, or restore the file from version control"
        if "baseline" in error.errors()[0]["loc"]:
            way_out = f"baselines are not edited by hand: make it null and measure it again with {_UPDATE}"
        raise IlBenchError(f"{path}: {wrong_field(error)}; {way_out}") from None


def update(path: str | Path, measured: Mapping[tuple[str, str], MeasuredBaseline]) -> Baselines:
    """Replace the baselines of these (policy, track) in the file, make it if missing, return the result.

    One lock covers reading and writing, so two runs that measure different policies lose nothing. The file is
    written whole or not at all.
    """
    path = Path(path).resolve()
    lock, way_out = path.with_name(f".{path.name}.lock"), "name another file"
    busy = f"another process has held {lock.name} for {_LOCK_SECONDS} s; try again later"
    with writing(path, way_out), locked(lock, path, busy, way_out, seconds=_LOCK_SECONDS):
        before = load(path) if path.exists() else Baselines()
        gates = {policy: dict(tracks) for policy, tracks in before.gates.items()}
        for (policy, track), baseline in measured.items():
            target = before.entry(policy, track).target
            gates.setdefault(policy, {})[track] = Entry(target=target, baseline=baseline)
        after = Baselines(gates=gates)
        write_whole(path, (_dump(after.model_dump(by_alias=True)) + "\n").encode())
    return after


def check_stale(baselines: Baselines, known: Mapping[str, Collection[str]], *, path: str | Path) -> None:
    """Raise IlBenchError for an entry whose policy is not in `known[track]`."""
    for policy, tracks in baselines.gates.items():
        for track in tracks:
            if policy not in (there := known.get(track, ())):
                raise IlBenchError(
                    f"{path}: gates.{policy}.{track} is stale: the zoo has no such weights (it has"
                    f" {', '.join(sorted(there)) or 'none'}); delete the entry, or restore the weights"
                )


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse a key given twice: merges of branches produce them, and JSON readers silently drop one."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise IlBenchError(f"{name!r} occurs twice in one object; delete one of the two")
        found[name] = value
    return found


def _dump(value: Any, indent: str = "") -> str:
    """Return JSON with one field a line, so that every column of episodes is one line."""
    if not isinstance(value, dict) or not value:
        return json.dumps(value, allow_nan=False, ensure_ascii=False)
    deeper = indent + " "
    fields = (f"{deeper}{json.dumps(name)}: {_dump(field, deeper)}" for name, field in value.items())
    return "{\n" + ",\n".join(fields) + f"\n{indent}}}"
