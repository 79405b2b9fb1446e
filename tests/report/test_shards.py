"""Shards together are the run that one machine would have made, and nothing else passes for it."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from il_bench.cli import app
from il_bench.errors import IlBenchError
from il_bench.gate.baselines import Baselines, Entry, Target
from il_bench.gate.verdict import PolicyGates
from il_bench.report import shards
from il_bench.report.shards import Shard, ShardPart
from il_bench.rollout import journal
from il_bench.rollout.outcomes import Outcomes
from il_bench.rollout.recording import REWARD, StepRecording
from il_bench.rollout.recordings import Recordings
from tests.gate.made import FINGERPRINT, FIRST, OTHER_SHA, SHA, measured, outcomes, spread, write

FACTS: dict[str, Any] = {"track": "keypoints", "sha256": SHA, "first_seed": FIRST, "version": None}
FACTS |= {"data": "expert", "checkpoint": "runs/act", "parameters": 7, "fingerprint": FINGERPRINT}
EPISODES = {"act": spread(0.93, 1000), "bc": outcomes(200), "expert": spread(1.0, 200)}
PARTS = (
    ShardPart(**FACTS, name="act", n_seeds=1000, sequential=True),
    ShardPart(**FACTS, name="bc", n_seeds=200, sequential=False),
    ShardPart(**{**FACTS, "sha256": None, "version": "1"}, name="expert", n_seeds=200, sequential=False),
)
KNOWN = Baselines(
    gates={
        "act": {
            "keypoints": Entry(target=Target(value=0.85), baseline=measured(spread(0.92, 1000), OTHER_SHA))
        }
    }
)


def made(folder: Path, number: int, of: int, parts: tuple[ShardPart, ...] = PARTS, **changes: Any) -> Path:
    """The report folder of a shard that ran to its end."""
    for turn, part in enumerate(parts):
        mine = np.array(shards.share(part.seeds, part.block_size, turn, number, of), np.int64)
        path = journal.path_of(folder, part.name, part.track)
        with journal.opened(path, part.conditions, resume=False) as kept:
            for block in part.blocks:
                if block[0] in mine:
                    kept.append(EPISODES[part.name].take(block - FIRST))
    environment = {"python": "3.12.1", "cpu": "some", "cores": number}
    shards.save(
        folder, Shard(**{"number": number, "of": of, "environment": environment, "parts": parts, **changes})
    )
    return folder


@pytest.mark.parametrize("of", [1, 2, 3, 8, 23])
def test_every_block_is_dealt_to_exactly_one_shard(of: int) -> None:
    seeds = range(FIRST + 20, FIRST + 510)
    for turn in range(3):
        dealt = [shards.share(seeds, 50, turn, number, of) for number in range(1, of + 1)]
        assert sorted(seed for share in dealt for seed in share) == list(seeds)
        for share in dealt:
            blocks = {seed // 50 for seed in share}
            assert len(share) == sum(seed // 50 in blocks for seed in seeds), "a block is never split"
        assert max(map(len, dealt)) - min(map(len, dealt)) <= 100


@pytest.mark.parametrize("of", [1, 3, 8])
def test_the_merged_report_is_that_of_one_run(tmp_path: Path, of: int) -> None:
    folders = [made(tmp_path / str(number), number, of) for number in range(1, of + 1)]
    report, said = shards.merge(folders[::-1], tmp_path / "all", KNOWN)
    rows = {row.policy: row for row in report.success}
    assert list(rows) == ["act", "bc", "expert"]
    for name, row in rows.items():
        assert [each.model_dump() for each in row.episodes] == EPISODES[name].to_records()[: row.n_episodes]
    # One run looks after every block, and stops as soon as both gates are decided.
    gates = PolicyGates.of("act", "keypoints", SHA, baselines=KNOWN, fingerprint=FINGERPRINT)
    enough = [n for n in range(50, 1001, 50) if gates.look(EPISODES["act"].take(np.arange(n)))[0]]
    assert rows["act"].n_episodes == enough[0] < 1000
    verdict = gates.verdict(EPISODES["act"].take(np.arange(enough[0])), sequential=True)
    assert rows["act"].decision == verdict.decision and rows["act"].interval == "confidence sequence"
    assert rows["bc"].n_episodes == 200 and rows["bc"].interval == "Clopper-Pearson"
    assert said == [f"act: decided after {enough[0]} episodes; {1000 - enough[0]} more were rolled out"]


def test_the_merged_folder_can_be_continued(tmp_path: Path) -> None:
    folders = [made(tmp_path / str(number), number, 2) for number in (1, 2)]
    shards.merge(folders, tmp_path / "all", KNOWN)
    kept = journal.read(journal.path_of(tmp_path / "all", "bc", "keypoints"), PARTS[1].conditions)
    found = [kept.recall(block) for block in PARTS[1].blocks]
    assert (
        Outcomes.concatenate([each for each in found if each is not None]).to_records()
        == EPISODES["bc"].to_records()
    )


def test_the_merged_report_says_what_seeing_costs(tmp_path: Path) -> None:
    part = PARTS[1].model_copy(update={"track": "pixels"})
    keypoints = {"bc": {"keypoints": Entry(baseline=measured(spread(0.9, 1000), SHA))}}
    folders = [made(tmp_path / str(number), number, 2, parts=(part,)) for number in (1, 2)]
    report, _ = shards.merge(folders, tmp_path / "all", Baselines(gates=keypoints))
    (row,) = report.success
    assert row.on_keypoints is not None and row.on_keypoints.n == 200
    assert row.on_keypoints.pixels == row.success_rate.estimate


def other(part: ShardPart, **changes: Any) -> tuple[ShardPart, ...]:
    return tuple(each.model_copy(update=changes) if each is part else each for each in PARTS)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda of: {"parts": other(PARTS[0], sha256=OTHER_SHA)}, r"act .keypoints.\.sha256 was 'aaa"),
        (
            lambda of: {"parts": other(PARTS[1], fingerprint={**FINGERPRINT, "torch": "2.7"})},
            "fingerprint.torch",
        ),
        (lambda of: {"parts": other(PARTS[1], first_seed=100_000)}, "first_seed was 200000, is 100000"),
        (lambda of: {"parts": PARTS[:2]}, "expert .keypoints. was"),
        (lambda of: {"of": 4}, "of was 3, is 4"),
        (lambda of: {"number": 1}, "are both shard 1/3; give it once"),
        (lambda of: {"environment": {"python": "3.13.0", "cpu": "some"}}, "environment.python was '3.12.1'"),
    ],
)
def test_shards_of_other_runs_are_refused_by_name(
    tmp_path: Path, change: Callable[[int], dict[str, Any]], said: str
) -> None:
    folders = [made(tmp_path / str(number), number, 3) for number in (1, 2)]
    shards.save(folders[1], shards.load(folders[1]).model_copy(update=change(3)))
    with pytest.raises(IlBenchError, match=said):
        shards.merge([*folders, made(tmp_path / "3", 3, 3)], tmp_path / "all", KNOWN)


def recorded(folder: Path) -> list[int]:
    return [*Recordings(folder, "act", "keypoints").load()[0]]


def test_a_merge_replaces_an_earlier_one_whole_or_not_at_all(tmp_path: Path) -> None:
    """Neither a refusal nor recordings of other episodes may mix two runs."""
    output = tmp_path / "all"
    folders = [made(tmp_path / str(number), number, 2) for number in (1, 2)]
    for seed in (FIRST, FIRST + 50):
        steps = StepRecording(REWARD, np.array([seed]), np.array([1]), np.zeros((1, 1), np.float32))
        block = replace(EPISODES["act"].take(np.array([seed - FIRST])), recording=steps)
        Recordings(folders[0], "act", "keypoints").save(block)
    shards.merge(folders, output, KNOWN)
    assert recorded(output) == [FIRST, FIRST + 50]
    before = {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}

    others = [made(tmp_path / f"other {number}", number, 2) for number in (1, 2)]
    path = journal.path_of(others[1], "expert", "keypoints")
    whole = path.read_bytes()
    path.write_bytes(b"".join(whole.splitlines(keepends=True)[:-1]))
    with pytest.raises(IlBenchError, match="expert: no shard has seeds"):
        shards.merge(others, output, KNOWN)
    assert before == {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}

    path.write_bytes(whole)
    shards.merge(others, output, KNOWN)
    assert recorded(output) == []


def test_gaps_are_named(tmp_path: Path) -> None:
    folders = [made(tmp_path / str(number), number, 3) for number in (1, 2, 3)]
    with pytest.raises(IlBenchError, match="shard 2/3 is missing: give its folder"):
        shards.merge(folders[::2], tmp_path / "all", KNOWN)
    with pytest.raises(IlBenchError, match="is one of the shards"):
        shards.merge(folders, folders[1], KNOWN)
    path = journal.path_of(folders[1], "bc", "keypoints")
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    with pytest.raises(IlBenchError, match=r"bc: no shard has seeds 200\d\d\d-200\d\d\d; repeat the shard"):
        shards.merge(folders, tmp_path / "all", KNOWN)
    (folders[0] / shards.FILE).unlink()
    with pytest.raises(IlBenchError, match=r"shard.json.*ran to its end"):
        shards.merge(folders, tmp_path / "all", KNOWN)


def test_baselines_that_need_other_episodes_are_refused(tmp_path: Path) -> None:
    target = Target(value=0.85, cap=500)
    short = Baselines(gates={"act": {"keypoints": Entry(target=target)}})
    with pytest.raises(IlBenchError, match=r"act: these baselines need 500 episodes, but the shards .* 1000"):
        shards.merge([made(tmp_path / "1", 1, 1)], tmp_path / "all", short)


def test_the_command_writes_the_report_and_gives_the_runs_status(tmp_path: Path) -> None:
    folders = [str(made(tmp_path / str(number), number, 2)) for number in (1, 2)]
    write(tmp_path / "known.json", KNOWN)
    run = CliRunner().invoke(
        app, ["merge", *folders, "-o", str(tmp_path / "all"), "--baselines", str(tmp_path / "known.json")]
    )
    assert run.exit_code == 0, run.output
    assert "act: decided after" in run.output
    assert len(json.loads((tmp_path / "all/report.json").read_text())["success"]) == 3
    failing = Baselines(gates={"act": {"keypoints": Entry(target=Target(value=0.99, required=True))}})
    write(tmp_path / "known.json", failing)
    run = CliRunner().invoke(
        app, ["merge", *folders, "-o", str(tmp_path / "all"), "--baselines", str(tmp_path / "known.json")]
    )
    assert run.exit_code == 1, run.output
