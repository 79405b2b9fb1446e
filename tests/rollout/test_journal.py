"""A journal gives back every block to the bit, drops what was torn, and refuses what is not this run's."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from il_bench.errors import IlBenchError
from il_bench.rollout import journal
from il_bench.rollout.journal import Conditions, Journal, opened, path_of
from il_bench.rollout.outcomes import Outcomes
from tests.fuzzing import FUZZ, LINES, fuzz

CONDITIONS = Conditions(
    policy="act",
    track="keypoints",
    sha256="a" * 64,
    first_seed=200_000,
    fingerprint={"task": "PushT", "max_steps": 300, "block_size": 50, "torch": "2.11.0"},
)
FIRST, SECOND, THIRD = (np.arange(start, start + 3) for start in (200_000, 200_050, 200_100))


def episodes(seeds: Any, seconds: float = 1.5) -> Outcomes:
    """Episodes with rewards that no short decimal number is equal to, unless they are successes."""
    rewards = np.random.default_rng(int(seeds[0])).random(len(seeds))
    success = rewards > 0.5
    n_steps = np.arange(len(seeds)) + 9
    return Outcomes(
        np.asarray(seeds),
        success,
        np.where(success, 1.0, rewards),
        n_steps,
        n_steps // 2,
        seconds,
        final_coverage=0.9 * rewards,
        ending=np.where(success, "success", "stuck"),
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A journal with two blocks."""
    path = path_of(tmp_path, "act", "keypoints")
    with opened(path, CONDITIONS, resume=False) as mine:
        mine.append(episodes(FIRST))
        mine.append(episodes(SECOND, seconds=2.5))
    return path


def recalled(path: Path, *blocks: Any, conditions: Conditions = CONDITIONS) -> list[bool]:
    """Whether the journal holds these blocks, and every bit of them."""
    with opened(path, conditions, resume=True) as mine:
        found = [mine.recall(block) for block in blocks]
    for each, block in zip(found, blocks, strict=True):
        assert each is None or each.to_records() == episodes(block).to_records()
    return [each is not None for each in found]


def test_blocks_come_back_to_the_bit(path: Path) -> None:
    assert recalled(path, FIRST, SECOND, THIRD) == [True, True, False]
    with opened(path, CONDITIONS, resume=True) as mine:
        again = mine.recall(SECOND)
    assert again.seconds == 2.5
    assert again.max_reward.tobytes() == episodes(SECOND).max_reward.tobytes()


def test_a_part_of_a_block_is_there_and_more_of_it_is_not(path: Path) -> None:
    """More episodes than last time: blocks that are whole are kept, the one that is not is run again."""
    with opened(path, CONDITIONS, resume=True) as mine:
        assert mine.recall(FIRST[1:]).to_records() == episodes(FIRST).to_records()[1:]
        longer = np.arange(200_050, 200_060)
        assert mine.recall(longer) is None
        mine.append(episodes(longer))
        assert mine.recall(longer) is not None
    assert recalled(path, longer) == [True]


def test_without_resume_a_new_journal_replaces_the_old_one(path: Path) -> None:
    other = replace(CONDITIONS, sha256="b" * 64)
    with opened(path, other, resume=False) as mine:
        assert mine.recall(FIRST) is None
        mine.append(episodes(THIRD))
    assert recalled(path, FIRST, THIRD, conditions=other) == [False, True]


def test_a_block_is_there_and_on_the_disk_when_append_returns(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = []
    with opened(path, CONDITIONS, resume=True) as mine:
        monkeypatch.setattr(os, "fsync", lambda handle: synced.append(os.fstat(handle).st_size))
        mine.append(episodes(THIRD))
        assert synced == [path.stat().st_size]
        assert mine.recall(THIRD) is not None
    assert recalled(path, FIRST, SECOND, THIRD) == [True, True, True]


def test_a_torn_last_line_is_dropped_wherever_it_was_torn(path: Path) -> None:
    whole = path.read_bytes()
    second = whole.rindex(b"\n", 0, -1) + 1
    for length in [*range(second, len(whole), 23), len(whole) - 2, len(whole) - 1]:
        path.write_bytes(whole[:length])
        assert recalled(path, FIRST, SECOND) == [True, False]
        with opened(path, CONDITIONS, resume=True) as mine:
            mine.append(episodes(SECOND, seconds=2.5))
        assert path.read_bytes() == whole


@pytest.mark.parametrize(
    "end", [b'{"seconds": 1.0, "epis\n', b"\x00" * 40 + b"\n", b"\xff\xfe\n", b"[" * 100_000 + b"\n"]
)
def test_a_last_line_of_nonsense_is_torn_too(path: Path, end: bytes) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole + end)
    assert recalled(path, FIRST, SECOND) == [True, True]
    assert path.read_bytes() == whole


@pytest.mark.parametrize("length", [None, 0, 1, 60])
def test_a_journal_missing_or_interrupted_in_its_first_line_is_empty(path: Path, length: int | None) -> None:
    header = path.read_bytes().splitlines(keepends=True)[0]
    path.write_bytes(header[:length])
    if length is None:
        path.unlink()
    assert recalled(path, FIRST) == [False]
    assert path.read_bytes() == header


def edited(change: Callable[[dict[str, Any]], Any]) -> Callable[[bytes], bytes]:
    def edit(line: bytes) -> bytes:
        content = json.loads(line)
        change(content)
        return json.dumps(content).encode()

    return edit


def episode(number: int, **changes: Any) -> Callable[[bytes], bytes]:
    return edited(lambda block: block["episodes"][number].update(changes))


def shift(block: dict[str, Any], by: int) -> None:
    for episode in block["episodes"]:
        episode["seed"] += by


@pytest.mark.parametrize(
    ("number", "edit", "said"),
    [
        (2, lambda line: line[:-9], "line 2 is damaged: broken JSON "),
        (2, lambda line: b"", "line 2 is damaged: broken JSON "),
        (2, lambda line: b"[]", "line 2 is damaged: holds a list, not an object with fields"),
        (2, edited(lambda block: block["episodes"].clear()), r"line 2 .*episodes = \[\]: "),
        (2, edited(lambda block: block["episodes"][1].pop("n_steps")), r"line 2 .*episodes\.1\.n_steps: "),
        (2, episode(0, success="yes"), "success = 'yes': "),
        (2, episode(2, max_reward=7.5), "episodes.2.max_reward = 7.5"),
        (2, episode(0, ending="bored"), "episodes.0.ending"),
        (3, edited(lambda block: block.update(host="mine")), "line 3 .*host = 'mine': unknown field"),
        (3, episode(0, seed=200_001), "seed 200051 cannot follow seed 200001"),
        (3, episode(2, seed=200_100), "seed 200100 cannot follow seed 200051"),
        (3, edited(lambda block: block["episodes"].reverse()), "seed 200051 cannot follow seed 200052"),
        (2, edited(lambda block: shift(block, -50)), "seed 199950: the run starts at seed 200000"),
        (2, episode(1, success=True, max_reward=0.3), "seed 200001 is a success with max_reward 0.3"),
        (2, episode(1, n_steps=301), "seed 200001: n_steps is 301, of at most 300"),
        (2, episode(1, outside=99), "seed 200001 has 99 steps outside, of 10"),
        (
            2,
            episode(1, n_steps=11),
            "line 2 was edited: its checksum does not match its seconds and episodes",
        ),
        (3, edited(lambda block: block["episodes"].pop()), "line 3 was edited: its checksum"),
        (3, edited(lambda block: block.update(seconds=9.5)), "line 3 was edited: its checksum"),
        (3, edited(lambda block: block.pop("checksum")), "line 3 is damaged .checksum: Field required"),
        (1, lambda line: line[:-9], "line 1 is damaged"),
        (1, lambda line: b"{}", "journal is of another run .schema was None, is 2"),
        (
            1,
            edited(lambda header: header.update(schema=1)),
            "an older il_bench wrote this journal .schema 1., with",
        ),
    ],
)
def test_damage_before_the_end_is_an_error_that_names_file_and_line(
    path: Path, number: int, edit: Callable[[bytes], bytes], said: str
) -> None:
    lines = path.read_bytes().splitlines()
    lines[number - 1] = edit(lines[number - 1])
    damaged = b"\n".join(lines) + b"\n"
    path.write_bytes(damaged)
    with pytest.raises(IlBenchError, match=rf"act\.keypoints\.jsonl: .*{said}.*without --il-resume"):
        recalled(path, FIRST)
    assert path.read_bytes() == damaged


@pytest.mark.parametrize("change", ["another journal's line", "twice", "otherwise"])
def test_lines_are_checked_against_each_other(path: Path, tmp_path: Path, change: str) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    with opened(tmp_path / "other.jsonl", replace(CONDITIONS, sha256="b" * 64), resume=False) as other:
        other.append(episodes(THIRD))
    if change == "twice":
        lines, said = [*lines, lines[1]], "line 4 holds the episodes of line 2 again; delete it"
    elif change == "another journal's line":
        strange = (tmp_path / "other.jsonl").read_bytes().splitlines(keepends=True)[1]
        lines, said = [*lines, strange], "line 4 was edited: its checksum does not match"
    else:
        longer = Outcomes.concatenate([episodes(FIRST[1:]), episodes(np.arange(200_003, 200_005))])
        with opened(path, CONDITIONS, resume=True) as mine:
            mine.append(longer)
        lines = path.read_bytes().splitlines(keepends=True)
        said = "line 4 contradicts line 2 about the episode with seed 200001"
    path.write_bytes(b"".join(lines))
    with pytest.raises(IlBenchError, match=rf"act\.keypoints\.jsonl: {said}.*without --il-resume"):
        recalled(path, FIRST)
    path.write_bytes(b"".join(lines[:3]))
    assert recalled(path, FIRST, SECOND) == [True, True], "as the sentence says"


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"sha256": "b" * 64}, f"sha256 was '{'a' * 64}', is '{'b' * 64}'"),
        ({"first_seed": 100_000}, "first_seed was 200000, is 100000"),
        ({"policy": "bc"}, "policy was 'act', is 'bc'"),
        ({"track": "pixels"}, "track was 'keypoints', is 'pixels'"),
        ({"version": "2"}, "version was None, is '2'"),
        *(
            (
                {"fingerprint": {**CONDITIONS.fingerprint, name: now}},
                f"fingerprint.{name} was {was!r}, is {now!r}",
            )
            for name, was, now in (
                ("torch", "2.11.0", "2.12.0"),
                ("block_size", 50, 100),
                ("gpu", None, "H100"),
            )
        ),
        ({"fingerprint": {"task": "PushT"}}, "fingerprint.max_steps was 300, is None"),
    ],
)
def test_a_journal_of_something_else_is_refused_by_name(
    path: Path, changed: dict[str, Any], said: str
) -> None:
    before = path.read_bytes()
    with pytest.raises(IlBenchError, match=rf"act\.keypoints\.jsonl: .*{said}.*without --il-resume"):
        recalled(path, FIRST, conditions=replace(CONDITIONS, **changed))
    assert path.read_bytes() == before


def test_a_journal_of_another_schema_is_refused_by_name(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "SCHEMA", journal.SCHEMA + 1)
    with pytest.raises(IlBenchError, match=r"journal is of another run \(schema was 2, is 3"):
        recalled(path, FIRST)


def test_one_process_at_a_time_writes_a_journal(path: Path) -> None:
    with opened(path, CONDITIONS, resume=True) as mine:
        before = path.read_bytes()
        for resume in (True, False):
            with (
                pytest.raises(IlBenchError, match=r"act\.keypoints\.jsonl: another process .*--il-report"),
                opened(path, CONDITIONS, resume=resume),
            ):
                raise AssertionError
        assert path.read_bytes() == before
        mine.append(episodes(THIRD))
    assert recalled(path, THIRD) == [True]


def test_a_journal_that_cannot_be_written_is_named(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    said = r"act\.keypoints\.jsonl: cannot be written \(No space left on device, .* MB free\).*--il-report"
    with opened(path, CONDITIONS, resume=True) as mine:
        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(IlBenchError, match=said):
            mine.append(episodes(THIRD))


def test_a_disk_that_is_full_in_the_middle_of_a_line_tears_it(path: Path) -> None:
    class Full:
        def write(self, content: bytes) -> int:
            path.write_bytes(path.read_bytes() + content[:20])
            return 20

    with pytest.raises(IlBenchError, match="No space left"):
        Journal(path, Full(), CONDITIONS, []).append(episodes(THIRD))  # type: ignore[arg-type]
    assert recalled(path, FIRST, SECOND, THIRD) == [True, True, False]


def test_a_report_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "report").touch()
    path = path_of(tmp_path / "report", "act", "keypoints")
    with pytest.raises(IlBenchError, match=r"report/journal/act\.keypoints\.jsonl: cannot be written"):
        recalled(path, FIRST)


def test_what_is_no_regular_file_is_not_opened(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)
    for resume in (True, False):
        with (
            pytest.raises(IlBenchError, match=r"act\.keypoints\.jsonl: a pipe, "),
            opened(path, CONDITIONS, resume=resume),
        ):
            raise AssertionError


def test_every_policy_has_a_file_of_its_own(tmp_path: Path) -> None:
    names = ["act", "runs/act", "runs_act", "runs%2Fact", "../act", "user/act", "é" * 200, "é" * 201, "a.b"]
    names += ["\x1b[31m", "\udcff", "\udcfe"]
    paths = [path_of(tmp_path, name, track) for name in names for track in ("keypoints", "pixels", "t" * 500)]
    assert len(set(paths)) == len(paths)
    assert {path.parent for path in paths} == {tmp_path / "journal"}
    for path in paths:
        assert recalled(path, FIRST) == [False]


@pytest.mark.parametrize("examples", FUZZ)
def test_whatever_is_in_a_journal_no_episode_is_another(path: Path, examples: int) -> None:
    """Refused by name, or accepted with fewer blocks at most."""
    every = {seed: episodes(block).take([n]) for block in (FIRST, SECOND) for n, seed in enumerate(block)}

    def read(path: Path) -> list[Outcomes]:
        with opened(path, CONDITIONS, resume=True) as mine:
            found = {seed: mine.recall(np.array([seed])) for seed in every}
        for seed, outcomes in found.items():
            assert outcomes is None or outcomes.to_records() == every[seed].to_records()
        return [outcomes for outcomes in found.values() if outcomes is not None]

    def write(path: Path, known: list[Outcomes]) -> None:
        with opened(path, CONDITIONS, resume=False) as mine:
            for outcomes in known:
                mine.append(outcomes)

    def equal(one: list[Outcomes], other: list[Outcomes]) -> bool:
        return [each.to_records() for each in one] == [each.to_records() for each in other]

    fuzz(path, read, write, examples=examples, form=LINES, equal=equal)
