"""A recording is what happened, the same bytes whoever ran it; and what is counted does not come from it."""

import pickle
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from il_bench.errors import IlBenchError
from il_bench.protocol import BLOCK_SIZE
from il_bench.pusht.batch import PushTBatch
from il_bench.pusht.simulator import Simulator
from il_bench.rollout import Outcomes, rollout
from il_bench.rollout.endings import STUCK_STEPS, Ending, counted
from il_bench.rollout.executors import EXECUTORS
from il_bench.rollout.journal import Conditions, opened
from il_bench.rollout.recording import PUSHT, UNITS, StepRecorder, StepRecording
from il_bench.rollout.recordings import Recordings
from tests.rollout.conftest import FIRST
from tests.rollout.policies import Batch, LastFirst, Scripted, Wander

SEEDS = range(FIRST + 10, FIRST + 2 * BLOCK_SIZE)


class Elsewhere(LastFirst):
    """What finishes there comes back as bytes."""

    def run(self, work: Any) -> Iterator[Any]:
        for result in super().run(work):
            yield pickle.loads(pickle.dumps(result))


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("recordings/w.keypoints/*"))}


def recorded(folder: Path, seeds: Any = SEEDS, **options: Any) -> Outcomes:
    return rollout(Wander, seeds, record=Recordings(folder, "w", "keypoints").save, **options)


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcomes]:
    folder = tmp_path_factory.mktemp("once")
    return folder, recorded(folder)


def test_rows_are_what_the_simulator_did_to_a_tenth_of_a_px(once: tuple[Path, Outcomes]) -> None:
    rows, problems = Recordings(once[0], "w", "keypoints").load()
    assert (list(rows), problems) == (list(SEEDS), [])
    for record in once[1].to_records()[::30]:
        values = dict(zip(PUSHT, (rows[record["seed"]] * tuple(UNITS.values())).T, strict=True))
        assert len(values["coverage"]) == record["n_steps"] + 1
        world = Simulator()
        world.reset(record["seed"])
        start = {"agent_x": world.agent_x, "block_y": world.block_y}
        for name, value in start.items():
            assert values[name][0] == pytest.approx(value, abs=0.051)
        turn = (values["block_angle"][0] - world.block_angle) % (2 * np.pi)
        assert min(turn, 2 * np.pi - turn) < 1e-4
        assert values["coverage"][-1] == pytest.approx(record["final_coverage"], abs=2e-5)
        assert values["coverage"][1:].max() == pytest.approx(record["best_coverage"], abs=2e-5)
        # From the state before a step, its action leads near the state after it.
        moved = np.diff(values["agent_x"])
        meant = (values["action_x"] - values["agent_x"])[:-1]
        assert (moved * meant)[np.abs(meant) > 100].min() > 0


def test_files_do_not_depend_on_executor_or_on_an_interruption(
    once: tuple[Path, Outcomes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(EXECUTORS, "elsewhere", lambda *_: Elsewhere())
    recorded(tmp_path / "two", executor="elsewhere")
    assert files(tmp_path / "two") == files(once[0])
    conditions = Conditions("w", "keypoints", "a" * 64, FIRST, {})
    for resume, seeds in ((False, SEEDS[:40]), (True, SEEDS)):
        with opened(tmp_path / "w.jsonl", conditions, resume=resume) as journal:
            found = recorded(tmp_path / "resumed", seeds, journal=journal)
    assert files(tmp_path / "resumed") == files(once[0])
    assert found.to_records() == once[1].to_records()
    assert found.recording is None


def test_only_failures_are_kept_if_asked_for(once: tuple[Path, Outcomes], tmp_path: Path) -> None:
    kept = Recordings(tmp_path, "w", "keypoints")
    rollout(Wander, SEEDS, record=partial(kept.save, failures_only=True))
    assert list(kept.load()[0]) == once[1].seeds[~once[1].success].tolist()
    kept.clear()
    assert kept.load() == ({}, [])


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[:-50],
        lambda content: b"PK\x03\x04" + content[4:900],
        lambda content: StepRecording(PUSHT, *np.zeros((2, 1), int), np.zeros((0, 8), np.int16)).to_bytes(),
        lambda content: StepRecording(("x",), *np.ones((2, 1), int), np.zeros((1, 1), np.int16)).to_bytes(),
    ],
)
def test_a_damaged_file_costs_its_own_block_only(
    once: tuple[Path, Outcomes], tmp_path: Path, damage: Any
) -> None:
    folder = tmp_path / "recordings" / "w.keypoints"
    folder.mkdir(parents=True)
    for (name, content), change in zip(files(once[0]).items(), (damage, lambda same: same), strict=True):
        (folder / name).write_bytes(change(content))
    rows, problems = Recordings(tmp_path, "w", "keypoints").load()
    assert list(rows) == list(range(FIRST + BLOCK_SIZE, FIRST + 2 * BLOCK_SIZE))
    assert [problem.partition(":")[0] for problem in problems] == [f"{SEEDS[0]}.npz"]


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "recordings").touch()
    with pytest.raises(IlBenchError, match=r"200010\.npz: cannot be written .*--il-record none"):
        recorded(tmp_path, [FIRST + 10])


def test_actions_far_outside_stay_far_outside() -> None:
    def far(batch: Batch, step: int) -> torch.Tensor:
        return torch.tensor([[-5000.0, 3000.0]]).repeat(BLOCK_SIZE, 1)

    kept: list[Outcomes] = []
    rollout(Scripted(far), [FIRST], record=kept.append)
    assert kept[0].recording is not None
    assert kept[0].recording.rows[0, 5:7].tolist() == [-32768, 30000]
    assert kept[0].ending.tolist() == [Ending.NEVER_TOUCHED]


@pytest.mark.parametrize(
    ("coverages", "moving", "ending"),
    [
        ([0.5, 0.96], 2, Ending.SUCCESS),
        ([0.5, 0.5], 0, Ending.NEVER_TOUCHED),
        ([0.5, 0.93], 2, Ending.NEAR_MISS),
        ([0.93, 0.9], 2, Ending.UNDONE),
        ([0.5] * 100, 100 - STUCK_STEPS, Ending.STUCK),
        ([0.5] * 100, 101 - STUCK_STEPS, Ending.STILL_WORKING),
        ([0.92] * 100, 1, Ending.NEAR_MISS),
        ([0.92] + [0.1] * 100, 1, Ending.UNDONE),
    ],
)
def test_why_an_episode_ended(coverages: list[float], moving: int, ending: Ending) -> None:
    pose = np.zeros((len(coverages) + 1, 1, 3))
    pose[1:, 0, 0] = 2.0 * np.minimum(np.arange(len(coverages)) + 1, moving)
    found = counted(pose, np.array([0.0, *coverages])[:, None], np.array([len(coverages)]))
    assert found["ending"].tolist() == [ending]
    assert found["best_coverage"] == max(coverages)
    assert found["final_coverage"] == coverages[-1]
    assert found["last_reward"] == min(coverages[-1] / 0.95, 1.0)
    assert found["sum_reward"] == pytest.approx(sum(min(each / 0.95, 1.0) for each in coverages))


def test_a_block_that_creeps_is_not_stuck_and_one_that_trembles_is() -> None:
    pose = np.zeros((101, 2, 3))
    pose[:, 0, 2], pose[1::2, 1, 2] = 0.004 * np.arange(101), 0.004
    endings = counted(pose, np.zeros((101, 2)), np.full(2, 100))["ending"]
    assert endings.tolist() == [Ending.STILL_WORKING, Ending.STUCK]


def test_actions_after_the_end_of_an_episode_are_nobodys() -> None:
    worlds = PushTBatch()
    worlds.reset([FIRST, FIRST + 1])
    recorder = StepRecorder(worlds, 3)
    recorder.add(np.array([[1.0, 2.0], [3.0, 4.0]]))
    recorder.add(np.array([[np.nan, 2.0], [5.0, 6.0]]))
    rows = dict(recorder.recording(np.array([FIRST, FIRST + 1]), np.array([1, 2])))
    assert rows[FIRST][:, 5:7].tolist() == [[10, 20], [10, 20]]
    assert rows[FIRST + 1][:, 5:7].tolist() == [[30, 40], [50, 60], [50, 60]]
