"""Shards of a run: who rolls which block out, what each leaves behind, and the run that they make together.

A shard's report folder holds journals, recordings and shard.json, which says what was rolled out. `merge`
puts the episodes in seed order and stops every gate where one run would have stopped.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from il_bench.errors import IlBenchError
from il_bench.files import read_model, reserved, write_whole, writing
from il_bench.gate.baselines import Baselines, Target
from il_bench.gate.verdict import PolicyGates
from il_bench.machine import differences
from il_bench.protocol import CONTEXT, Scalar
from il_bench.report.rows import Count, ReportPart, Text
from il_bench.report.schema import Report, Success
from il_bench.report.success import on_keypoints, row_of
from il_bench.rollout import journal
from il_bench.rollout.outcomes import Outcomes
from il_bench.rollout.recordings import Recordings

SCHEMA: Final[Literal[1]] = 1
FILE = "shard.json"
_ELSEWHERE = "name another --output"
SECTION = "shard"  # of a record on its way to it
#: What may differ between the machines of one run: neither changes an episode.
_MAY_DIFFER = ("seconds", "cores", "threads")


class ShardPart(ReportPart):
    """What a shard knows of one policy.

    name, track, sha256, first_seed, fingerprint, version: see `journal.Conditions`. data, checkpoint,
        parameters: see `schema.Success`.
    n_seeds: how many seeds the whole run may use. sequential: whether its gates end it. asked: a target that
        replaces the declared one.
    """

    name: Text
    track: Text
    sha256: Text | None
    first_seed: Count
    fingerprint: dict[str, Scalar]
    version: Text | None
    data: Text
    checkpoint: Text
    parameters: Count
    n_seeds: Count
    sequential: bool
    asked: Target | None = None

    @property
    def conditions(self) -> journal.Conditions:
        """What its episodes depend on."""
        return journal.Conditions(
            self.name, self.track, self.sha256, self.first_seed, self.fingerprint, self.version
        )

    @property
    def block_size(self) -> int:
        """How many seeds a block has."""
        return int(self.fingerprint.get("block_size") or 1)

    @property
    def seeds(self) -> range:
        """The seeds of the whole run."""
        return range(self.first_seed, self.first_seed + self.n_seeds)

    @property
    def blocks(self) -> list[NDArray[np.int64]]:
        """The blocks of the whole run, the seeds of each."""
        seeds = np.array(self.seeds)
        return np.split(seeds, np.flatnonzero(np.diff(seeds // self.block_size)) + 1)


class Shard(ReportPart):
    """A whole shard.json: shard `number` of `of`, on a machine described by `environment`."""

    schema_: Annotated[Literal[1], Field(alias="schema")] = SCHEMA
    number: Annotated[int, Field(ge=1)]
    of: Annotated[int, Field(ge=1)]
    environment: dict[str, Any]
    parts: tuple[ShardPart, ...]


def share(seeds: Sequence[int], size: int, turn: int, number: int, of: int) -> list[int]:
    """The seeds of shard `number` (from 1) of `of`.

    The pairs of policy and block are dealt out in turn: block b of the policy whose turn it is (its place
    among the policies) goes to the shard (turn + b) mod `of`.
    """
    first = seeds[0] // size
    return [seed for seed in seeds if (turn + seed // size - first) % of == number - 1]


def save(folder: Path, shard: Shard) -> Path:
    """Write shard.json, whole or not at all."""
    path = folder / FILE
    with writing(path, "use another folder with --il-report"):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, shard.model_dump_json(indent=1, by_alias=True).encode() + b"\n")
    return path


def load(folder: Path) -> Shard:
    """Read and check the shard.json of a folder."""
    path = folder / FILE
    way_out = (
        "give the report folder of a shard that ran to its end (--il-resume continues an interrupted one)"
    )
    return read_model(Shard, path, way_out)


@dataclass(frozen=True)
class _PolicyThere:
    """What `row_of` needs of a policy that is not here."""

    name: str
    track: str
    data: str
    checkpoint: str
    sha256: str | None
    parameters: int


def merge(folders: Sequence[Path], output: Path, baselines: Baselines) -> tuple[Report, list[str]]:
    """Return the report that one run would have given, and a sentence for each policy with unused episodes.

    `output` gets the journals and recordings of all shards, in place of an earlier run's. Raises IlBenchError
    for shards of different runs (names what differs), for one that is missing or given twice, and for blocks
    that no shard has; then `output` stays as it was.
    """
    shards = _checked(folders, output)
    with reserved(output, _ELSEWHERE):
        return _merged(shards, folders, output, baselines)


def _merged(
    shards: Sequence[Shard], folders: Sequence[Path], output: Path, baselines: Baselines
) -> tuple[Report, list[str]]:
    rows, said, found = [], [], []
    for part in shards[0].parts:
        blocks = _blocks_of(part, folders)
        gates = PolicyGates(part.name)
        if part.name not in CONTEXT:
            gates = _gates(part, baselines)
        row, n_left = _judged(part, gates, blocks, baselines)
        rows.append(row)
        found.append((part, blocks))
        if n_left:
            said.append(
                f"{part.name}: decided after {row.n_episodes} episodes; {n_left} more were rolled out"
            )
    for part, blocks in found:  # only now: shards that are refused leave an earlier run in `output` alone
        _keep(part, blocks, folders, output)
    rows.sort(key=lambda row: (row.policy, row.track, row.data))
    report = Report.model_validate(
        {"created": datetime.now(UTC), "environment": shards[0].environment, "success": rows}
    )
    return report, said


def _checked(folders: Sequence[Path], output: Path) -> list[Shard]:
    """The shards of the folders, in their order, if together they are one run."""
    if output.resolve() in {folder.resolve() for folder in folders}:
        raise IlBenchError(f"--output: {output} is one of the shards; name another folder")
    shards = [load(folder) for folder in folders]
    where: dict[int, Path] = {}
    first = shards[0]
    for folder, shard in zip(folders, shards, strict=True):
        if shard.number in where:
            raise IlBenchError(
                f"{folder} and {where[shard.number]} are both shard {shard.number}/{shard.of}; give it once"
            )
        where[shard.number] = folder
        if differing := _differences(first, shard):
            raise IlBenchError(
                f"{folder}: of another run than {folders[0]} ({differing[0]}); give the shards of one run"
            )
    missing = sorted(set(range(1, first.of + 1)) - set(where))
    if missing:
        named = ", ".join(f"{number}/{first.of}" for number in missing)
        raise IlBenchError(f"shard {named} is missing: give its folder too, or run it with --il-shard")
    return shards


def _differences(one: Shard, other: Shard) -> list[str]:
    def facts(shard: Shard) -> dict[str, Any]:
        environment = {name: each for name, each in shard.environment.items() if name not in _MAY_DIFFER}
        parts = {f"{part.name} ({part.track})": part.model_dump(mode="json") for part in shard.parts}
        return {"of": shard.of, "environment": environment, **parts}

    return differences(facts(one), facts(other))


def _blocks_of(part: ShardPart, folders: Sequence[Path]) -> list[Outcomes]:
    """The blocks of a policy from the journals of all shards, in seed order."""
    found = [
        journal.read(journal.path_of(folder, part.name, part.track), part.conditions) for folder in folders
    ]
    blocks = []
    for wanted in part.blocks:
        block = next((block for each in found if (block := each.recall(wanted)) is not None), None)
        if block is None:
            raise IlBenchError(
                f"{part.name}: no shard has seeds {wanted[0]}-{wanted[-1]}; repeat the shard that was "
                "interrupted with --il-resume"
            )
        blocks.append(block)
    return blocks


def _keep(part: ShardPart, blocks: Sequence[Outcomes], folders: Sequence[Path], output: Path) -> None:
    """Give `output` the journal and the recordings of a policy, in place of an earlier run's."""
    path = journal.path_of(output, part.name, part.track)
    with journal.opened(path, part.conditions, resume=False, way_out=_ELSEWHERE) as merged:
        for block in blocks:
            merged.append(block)
    Recordings(output, part.name, part.track).clear()
    for folder in folders:
        Recordings(folder, part.name, part.track).copy_to(output)


def _gates(part: ShardPart, baselines: Baselines) -> PolicyGates:
    """The gates that one run would have had; the shards must have run as far as these need."""
    gates = PolicyGates.of(
        part.name,
        part.track,
        part.sha256,
        baselines=baselines,
        fingerprint=part.fingerprint,
        seeds=part.seeds,
        target=part.asked,
    )
    most = gates.most_episodes()
    if part.sequential and most != part.n_seeds:
        raise IlBenchError(
            f"{part.name}: these baselines need {most} episodes, but the shards ran with ones that need "
            f"{part.n_seeds}; name the shards' file with --baselines"
        )
    return gates


def _judged(
    part: ShardPart, gates: PolicyGates, blocks: list[Outcomes], baselines: Baselines
) -> tuple[Success, int]:
    """The row of a policy, and how many episodes lie beyond the block at which one run would have stopped."""
    used = len(blocks)
    if part.sequential:
        for n in range(1, len(blocks) + 1):
            if gates.look(Outcomes.concatenate(blocks[:n]))[0]:
                used = n
                break
    outcomes = Outcomes.concatenate(blocks[:used])
    facts = _PolicyThere(part.name, part.track, part.data, part.checkpoint, part.sha256, part.parameters)
    row = row_of(facts, outcomes, gates.verdict(outcomes, sequential=part.sequential))
    row = row.model_copy(update={"on_keypoints": on_keypoints(facts, outcomes, baselines)})
    return row, sum(block.n for block in blocks[used:])
