"""The page holds the run: the answer in words, every episode, and what it takes to play them."""

import base64
import json
import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from il_bench.gate.baselines import Target
from il_bench.gate.paired import difference
from il_bench.gate.power import CHANCE, drop_below_baseline, drop_below_target
from il_bench.gate.sequential import Decision, check_target
from il_bench.report import page, schema, views
from il_bench.report.page import episodes, series, words
from il_bench.rollout.endings import Ending
from il_bench.rollout.outcomes import Outcomes
from il_bench.rollout.recording import PUSHT, REWARD, StepRecording
from il_bench.rollout.recordings import Recordings
from tests.gate.made import measured
from tests.report import recorded
from tests.report.made import report

Run = tuple[Path, schema.Report]


def data_of(text: str) -> Any:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def outcomes_of(row: schema.Success) -> Outcomes:
    return Outcomes.from_records([episode.model_dump() for episode in row.episodes])


def test_every_row_of_every_episode_is_in_the_page(run: Run) -> None:
    policies = data_of((run[0] / "report.html").read_text())["policies"]
    assert [policy["id"] for policy in policies] == ["wander", "expert"], "the ceiling comes last"
    for policy in policies:
        packed = policy["recording"]
        content = zlib.decompress(base64.b64decode(packed["data"]))
        planes = np.frombuffer(content, np.uint8).reshape(2, len(PUSHT), -1).astype(np.int64)
        folded = planes[0] | planes[1] << 8
        steps = (folded >> 1) ^ -(folded & 1)
        rows = np.cumsum(steps, axis=1).astype(np.int16).T
        kept, _ = Recordings(run[0], policy["id"], "keypoints").load()
        assert np.array_equal(rows, np.concatenate([kept[seed] for seed in packed["seeds"]]))
        assert packed["seeds"] == policy["episodes"]["seed"] == list(recorded.SEEDS)


def test_recordings_of_another_run_are_left_out(run: Run) -> None:
    row = run[1].success[0]
    assert len(episodes.recorded(row, run[0]).rows) == len(recorded.SEEDS)
    other = row.episodes[0].model_copy(update={"n_steps": 7})
    moved = row.episodes[1].model_copy(update={"final_coverage": 0.123})
    changed = row.model_copy(update={"episodes": (other, moved, *row.episodes[2:])})
    found = episodes.recorded(changed, run[0])
    assert list(found.rows) == list(recorded.SEEDS[2:])
    assert episodes.recorded(row, None).rows == {}


def test_a_page_without_recordings_still_has_every_number(tmp_path: Path, run: Run) -> None:
    views.write(run[1], tmp_path)
    policies = data_of((tmp_path / "report.html").read_text())["policies"]
    assert [policy["recording"] for policy in policies] == [None, None]
    assert policies[0]["episodes"]["steps"] == [episode.n_steps for episode in run[1].success[0].episodes]


def test_no_recording_that_cannot_be_read_is_passed_over_in_silence(tmp_path: Path, run: Run) -> None:
    (tmp_path / "recordings" / "wander.keypoints").mkdir(parents=True)
    (tmp_path / "recordings" / "wander.keypoints" / "200000.npz").write_bytes(b"<b>no</b>")
    text = page.render(run[1], folder=tmp_path)
    assert "A recording cannot be read: wander: 200000.npz: no recording" in text and "<b>no" not in text


def verdict(**rates: int) -> words.Mark:
    """The sentence on policies that solve so many of 50, with required targets of 0.8."""
    rows = []
    for name, solved in rates.items():
        success = np.arange(50) < solved
        found = Outcomes(np.arange(200_000, 200_050), success, success, np.full(50, 9), np.zeros(50), 30.0)  # type: ignore[arg-type]
        rows.append(recorded.row(name, found, target=Target(value=0.8, required=True)))
    return words.verdict(report(success=rows))


def test_the_answer_is_one_sentence() -> None:
    assert verdict(a=50, b=50).word == "2 of 2 required gates PASS; 100 episodes in 60 s"
    assert verdict(a=50, b=0).word == "1 of 2 required gates PASS; b FAIL; 100 episodes in 60 s"
    assert [verdict(a=n).tone for n in (50, 0, 40)] == ["good", "bad", "open"]
    assert words.verdict(report()).tone == "none"


def test_a_difference_that_is_not_shown_is_not_called_one() -> None:
    rng = np.random.default_rng(0)
    success = rng.random(50) < 0.9
    found = Outcomes(np.arange(200_000, 200_050), success, success, np.full(50, 9), np.zeros(50))  # type: ignore[arg-type]
    now = report(success=[recorded.row("mine", found)])
    for n, word in ((0, "same outcomes"), (3, "no difference shown"), (9, "worse")):
        later = report(success=[recorded.row("mine", recorded.worse(found, n))])
        (change,) = words.changes(later, now)
        assert (words.change_mark(change).word, len(change.lost)) == (word, n)
        (back,) = words.changes(now, later)
        assert words.change_mark(back).word == word.replace("worse", "better")
    assert words.changes(now, report()) == []
    assert difference(9, 0, 50).p == pytest.approx(2 / 2**9)


def in_reach(folder: Path) -> schema.Report:
    """A run in a project's own environment, which tells rewards and no poses."""
    seeds, rewards = np.arange(200_000, 200_003), np.array([[0, 0.1, 0.2], [0, 1.0, 0], [0, 0.1, 0.3]])
    kept = np.concatenate([rewards[0], rewards[1, :2], rewards[2]]).astype(np.float32)[:, None]
    recording = StepRecording(REWARD, seeds, np.array([3, 2, 3]), kept)
    success = np.array([False, True, False])
    endings = np.array([Ending.OUT_OF_STEPS, Ending.SUCCESS, Ending.TERMINATED])
    steps = np.array([2, 1, 2])
    found = Outcomes(seeds, success, success, steps, 0 * steps, ending=endings, recording=recording)  # type: ignore[arg-type]
    Recordings(folder, "reacher", "reach").save(found)
    made = report(success=[recorded.row("reacher", found, "reach", "reach.plugin.reacher")])
    views.write(made, folder)
    return made


def test_an_environment_of_ones_own_shows_what_it_tells(tmp_path: Path) -> None:
    in_reach(tmp_path)
    text = (tmp_path / "report.html").read_text()
    (policy,) = data_of(text)["policies"]
    assert (policy["name"], policy["is_pusht"], policy["is_code"]) == ("reacher (reach)", False, True)
    assert policy["recording"]["columns"] == ["reward"]
    content = zlib.decompress(base64.b64decode(policy["recording"]["data"]))
    assert np.frombuffer(content, "<f4").tolist() == pytest.approx([0, 0.1, 0.2, 0, 1.0, 0, 0.1, 0.3])
    assert policy["episodes"]["best"] == [None] * 3, "no coverage is made up"
    assert all(f">{ending}</th>" in text for ending in ("out of steps", "terminated"))
    assert "never touched" not in text.split("<script")[0]


@pytest.mark.parametrize(
    ("policy", "checkpoint", "spec", "is_code"),
    [
        ("act", "zoo/act", "act", False),
        ("expert", "il_bench.pusht.expert", "expert", False),
        ("mine", "runs/mine", "runs/mine", False),
        ("pusher", "reach.plugin.pusher", "pusher", True),
    ],
)
def test_the_command_names_what_replay_can_find(
    policy: str, checkpoint: str, spec: str, is_code: bool, run: Run
) -> None:
    row = recorded.row(policy, outcomes_of(run[1].success[0]), checkpoint=checkpoint)
    (found,) = data_of(page.render(report(success=[row])))["policies"]
    assert (found["spec"], found["is_code"]) == (spec, is_code)


def test_what_a_gate_could_not_see_goes_by_its_own_margin(run: Run) -> None:
    found = outcomes_of(run[1].success[1])
    spots = []
    for margin in (0.05, 0.2):
        row = recorded.row("mine", found, baseline=measured(recorded.worse(found, 1), margin=margin))
        assert row.baseline is not None and row.baseline.margin == margin
        spots += series.blind_spots([row])
    assert spots[0]["most"] != spots[1]["most"]


def test_evidence_is_the_gates_own(run: Run) -> None:
    for row in run[1].success:
        (target,) = series.evidence(row)
        assert row.target is not None
        n = row.target.evidence
        decided = next(
            (at for at, value in zip(target["n"], target["pass"], strict=True) if value >= target["pass_at"]),
            None,
        )
        assert (decided is not None) is (row.decision is Decision.PASS)
        assert target["fail_at"] == pytest.approx(n["fail_at"], abs=1e-3)


@pytest.mark.parametrize("n", [50, 200])
def test_the_smallest_drop_is_where_four_of_five_runs_fail(n: int) -> None:
    drop = drop_below_target(0.85, 0.05, 0.01, 0.05, n)
    assert drop is not None
    rng = np.random.default_rng(1)
    for rate, is_enough in ((0.85 - drop - 0.02, True), (0.85 - drop + 0.03, False)):
        runs = rng.random((300, n)) < rate
        decided = [
            check_target(each, target=0.85, margin=0.05, alpha=0.01, beta=0.05).decision is Decision.FAIL
            for each in runs
        ]
        assert bool(np.mean(decided) > CHANCE - 0.05) is is_enough
    assert drop_below_target(0.85, 0.05, 0.01, 0.05, 2) is None, "two episodes show nothing"
    few, many = (drop_below_baseline(0.05, 0.01, 0.05, each) for each in (100, 1000))
    assert few is not None and many is not None and many < few
