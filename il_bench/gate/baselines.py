"""baselines.json: each policy's declared target, and its measured baseline.

    {"schema": 2, "gates": {"<policy>": {"<track>": {"target": {..} or null, "baseline": {..} or null}}}}

Beside these two, `arms` may declare targets under stress, as in {"delay 1": {"value": 0.9}}. People declare
targets; only `pytest --benchmark --il-update-baselines` writes baselines. A baseline keeps
every episode (see `gate.measured`): later runs are compared with it seed by seed, and the same weights must
reproduce it exactly. Files of schema 1 are read; the next update writes them as schema 2.
"""

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, ValidationError, model_validator

from il_bench.errors import IlBenchError, printable, wrong_field
from il_bench.files import locked, parse_json, read_whole, write_whole, writing
from il_bench.gate.measured import UPDATE, GatedMetric, MeasuredBaseline, Risk, Strict, from_schema_1
from il_bench.protocol import MARGIN, MAX_EPISODES
from il_bench.rollout.metrics import DEFAULT_METRIC

SCHEMA = 2
#: PushT's keypoints or pixels, else the name of a project's environment.
Track = Annotated[str, Field(pattern=r"^[\w.-]+$")]

_LOCK_SECONDS = 30


class Target(Strict):
    """A declared requirement: the true mean of `metric` is at least `value`.

    alpha: risk of FAIL for a policy at `value`, before it is divided over all gates (`Baselines.tested`).
    beta: risk of PASS for a policy at `value - margin`.
    required: whether missing it fails the run; if not, the run shows BELOW TARGET.
    source: where the value comes from, in words; reports repeat it.
    """

    metric: GatedMetric = DEFAULT_METRIC
    value: Risk
    margin: Risk = MARGIN
    alpha: Risk = 0.05
    beta: Risk = 0.05
    cap: Annotated[int, Field(ge=1, le=MAX_EPISODES)] = MAX_EPISODES
    required: bool = False
    source: Annotated[str, Field(max_length=300), AfterValidator(printable)] | None = None

    @model_validator(mode="after")
    def _margin_below_value(self) -> Self:
        if self.margin >= self.value:
            raise ValueError(f"margin {self.margin} must be below value {self.value}")
        return self


class Entry(Strict):
    """The gates of one policy on one track. arms: a target for a level of an arm of stress, as "delay 1"."""

    target: Target | None = None
    baseline: MeasuredBaseline | None = None
    arms: dict[str, Target] = Field(default_factory=dict)

    @property
    def gates(self) -> list[Target | MeasuredBaseline]:
        """All that are declared."""
        return [gate for gate in (self.target, self.baseline, *self.arms.values()) if gate is not None]


class Baselines(Strict):
    """The whole file: `gates[policy][track]`."""

    schema_version: Annotated[Literal[2], Field(alias="schema")] = 2
    gates: dict[str, dict[Track, Entry]] = Field(default_factory=dict)

    def entry(self, policy: str, track: str) -> Entry:
        """Return the gates of a policy on a track; both are None if the file has none."""
        return self.gates.get(printable(policy), {}).get(track, Entry())

    @property
    def n_gates(self) -> int:
        """The number of gates declared, targets and baselines, whether a run selects them or not."""
        return sum(len(entry.gates) for tracks in self.gates.values() for entry in tracks.values())

    def tested(self, policy: str, track: str) -> Entry:
        """Return the gates of a policy on a track, each alpha divided by `n_gates` (Bonferroni).

        If all policies are as good as declared, any FAIL at all has at most the largest alpha's probability.
        """
        entry = self.entry(policy, track)
        return Entry(
            target=entry.target and self._divided(entry.target),
            baseline=entry.baseline and self._divided(entry.baseline),
            arms={name: self._divided(target) for name, target in entry.arms.items()},
        )

    def _divided[Gate: (Target, MeasuredBaseline)](self, gate: Gate) -> Gate:
        return gate.model_copy(update={"alpha": gate.alpha / self.n_gates})


class _Entry1(Strict):
    target: Target | None = None
    baseline: Annotated[dict[str, Any], AfterValidator(from_schema_1)] | None = None


class _Schema1(Strict):
    """The whole file as older versions wrote it."""

    schema_version: Annotated[Literal[1], Field(alias="schema")]
    gates: dict[str, dict[Track, _Entry1]] = Field(default_factory=dict)


def default_path() -> Path:
    """Return the baselines.json at the root of the checkout, or the one inside an installed il_bench."""
    package = Path(__file__).parents[1]
    in_checkout = (package.parent / "pyproject.toml").is_file()
    return (package.parent if in_checkout else package) / "baselines.json"


def load(path: str | Path) -> Baselines:
    """Read and check the file; an IlBenchError names the file, the field, its value and the way out."""
    path = Path(path)
    way_out = f"restore it from version control, or move it away and write a new one with {UPDATE}"
    content = read_whole(path, f"name another with --il-baselines FILE, or write a new one with {UPDATE}")
    found = parse_json(content, path, way_out).get("schema")
    if type(found) is not int or found not in (1, SCHEMA):
        raise IlBenchError(
            f"{path}: schema = {found!r:.60}, but this il_bench reads schema {SCHEMA}; use the il_bench that"
            f" wrote it, or move it away and write a new one with {UPDATE}"
        )
    try:
        if found == SCHEMA:
            return Baselines.model_validate_json(content)
        before = _Schema1.model_validate_json(content).gates
        gates = {
            policy: {track: Entry(**dict(each)) for track, each in tracks.items()}
            for policy, tracks in before.items()
        }
        return Baselines(gates=gates)
    except ValidationError as error:
        way_out = "correct the field, or restore the file from version control"
        if "baseline" in error.errors()[0]["loc"]:
            way_out = f"baselines are not edited by hand: make it null and measure it again with {UPDATE}"
        old = f"schema = {found}, " if found != SCHEMA else ""
        raise IlBenchError(f"{path}: {old}{wrong_field(error)}; {way_out}") from None


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
            entry = before.entry(policy, track).model_copy(update={"baseline": baseline})
            gates.setdefault(printable(policy), {})[track] = entry
        after = Baselines(gates=gates)
        write_whole(path, (_dump(_in_file(after)) + "\n").encode())
    return after


def _in_file(found: Baselines) -> dict[str, Any]:
    """The contents of the file, without `arms` where there are none."""
    values = found.model_dump(mode="json", by_alias=True)
    for tracks in values["gates"].values():
        for entry in tracks.values():
            if not entry["arms"]:
                del entry["arms"]
    return values


def check_stale(baselines: Baselines, known: Mapping[str, Collection[str]], *, path: str | Path) -> None:
    """Raise IlBenchError for an entry whose policy is not in `known[track]`."""
    for policy, tracks in baselines.gates.items():
        for track in tracks:
            if policy not in (there := known.get(track, ())):
                raise IlBenchError(
                    f"{path}: gates.{policy}.{track} is stale: the zoo has no such weights (it has"
                    f" {', '.join(sorted(there)) or 'none'}); delete the entry, or restore the weights"
                )


def _dump(value: Any, indent: str = "") -> str:
    """Return JSON with one field a line, so that a diff shows the fields that changed."""
    if not isinstance(value, dict) or not value:
        return json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ": "))
    deeper = indent + " "
    fields = (f"{deeper}{json.dumps(name)}: {_dump(field, deeper)}" for name, field in value.items())
    return "{\n" + ",\n".join(fields) + f"\n{indent}}}"
