"""One episode again: from a recording, or rolled out again and compared with the report."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from il_bench import zoo
from il_bench.errors import IlBenchError
from il_bench.protocol import EXPERT, RESERVED_SEEDS, TRACKS
from il_bench.report import schema
from il_bench.rollout.outcomes import Episode, Outcomes
from il_bench.rollout.recording import PUSHT, UNITS
from il_bench.rollout.recordings import Recordings


@dataclass(frozen=True)
class ShownEpisode:
    """An episode to show: its rows (n_steps + 1, columns of `recording.PUSHT`), in px, radians and shares.

    counted: what is counted of it. source: where it comes from, in words. differs: what is not as in the
    report, for example on another machine.
    """

    name: str
    seed: int
    rows: NDArray[np.float64]
    counted: Episode
    source: str
    differs: tuple[str, ...] = ()


def episode(
    spec: str, seed: int, report: Path | None, *, anew: bool = False, device: str = "cpu"
) -> ShownEpisode:
    """Return an episode of a policy, or of the report's row that `spec` names.

    report: the folder of a report, None: no report. anew: roll it out even if there is a recording. Raises
    IlBenchError: nothing has this name, the seed is reserved, or the row is of a project's own environment.
    """
    if not 0 <= seed < RESERVED_SEEDS:
        raise IlBenchError(f"--seed: {seed} is not a seed to look at; use 0 to {RESERVED_SEEDS - 1}")
    row = _row(spec, report)
    known = next((each for each in row.episodes if each.seed == seed), None) if row is not None else None
    if row is not None and row.track not in TRACKS:
        raise IlBenchError(
            f"{spec}: its row belongs to the environment {row.track!r}, whose poses are not recorded"
        )
    if known is not None and report is not None and row is not None and not anew:
        found, _ = Recordings(report, row.policy, row.track).load()
        rows = found.get(seed)
        if rows is not None and rows.shape == (known.n_steps + 1, len(PUSHT)):
            return ShownEpisode(spec, seed, _in_px(rows), known, f"the recording in {report}")
    return _rolled_out(spec, seed, row, known, device)


def _row(spec: str, report: Path | None) -> schema.Success | None:
    path = None if report is None else report / "report.json"
    if path is None or not path.exists():
        return None
    rows = [row for row in schema.load(path).success if row.policy == spec]
    return rows[0] if rows else None


def _rolled_out(
    spec: str, seed: int, row: schema.Success | None, known: Episode | None, device: str
) -> ShownEpisode:
    source = _source(spec, seed, row)  # what names nothing is refused before anything heavy is imported
    from il_bench.policies.checkpoint import load_policy
    from il_bench.rollout import rollout

    policy = load_policy(source, device=device)
    kept: list[Outcomes] = []
    outcomes = rollout(policy, [seed], record=kept.append)
    assert kept[0].recording is not None
    rows = dict(kept[0].recording)[seed]
    counted = Episode.model_validate(outcomes.to_records()[0])
    differs = _differing(counted, known) if known is not None else ()
    said = "rolled out again"
    if known is not None and row is not None:
        if policy.sha256 != row.sha256:
            said += ", with other weights than the report's"
        elif not differs:
            said += ", with the same numbers as in the report"
    return ShownEpisode(spec, seed, _in_px(rows), counted, said, differs)


def _source(spec: str, seed: int, row: schema.Success | None) -> str:
    """Where the policy is loaded from: of a row of the report, its checkpoint."""
    if row is None or row.policy == EXPERT:
        return zoo.resolve(spec).spec
    source = row.checkpoint.removeprefix("zoo/")
    try:
        return zoo.resolve(source).spec
    except IlBenchError:
        raise IlBenchError(
            f"{spec}: seed {seed} is not in the report's recordings, and replay cannot roll it out, since "
            f"{row.checkpoint} is not a checkpoint; run it again with --il-record all"
        ) from None


def _differing(now: Episode, was: Episode) -> tuple[str, ...]:
    """Say which numbers are not the report's; those that an older report lacks are not compared."""
    before = {name: value for name, value in was.model_dump().items() if value is not None}
    after = now.model_dump()
    return tuple(
        f"{name} {value} in the report, {after[name]} now"
        for name, value in before.items()
        if after[name] != value
    )


def _in_px(rows: NDArray[Any]) -> NDArray[np.float64]:
    found: NDArray[np.float64] = rows * np.array(tuple(UNITS.values()))
    return found
