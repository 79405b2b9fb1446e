"""Measured baselines: what they keep to the bit, what they refuse, and how they are compared."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from il_bench.errors import IlBenchError
from il_bench.gate import baselines
from il_bench.gate.baselines import Entry, Target
from il_bench.gate.measured import MeasuredBaseline
from il_bench.rollout import Outcomes
from tests.fuzzing import FUZZ, fuzz
from tests.gate.made import FINGERPRINT, OTHER_SHA, SHA, episodes, measured, outcomes, write

BASELINE = "gates.vqbet.keypoints.baseline"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "baselines.json"


reward = st.floats(0, 1) | st.sampled_from([1 / 3, 0.1 + 0.2, np.nextafter(1.0, 0), 5e-324])


@settings(deadline=None, max_examples=50)
@given(rewards=st.lists(reward, min_size=1, max_size=20))
def test_rewards_survive_the_file_to_the_bit(
    tmp_path_factory: pytest.TempPathFactory, rewards: list[float]
) -> None:
    of = episodes(np.zeros(len(rewards)), reward=np.array(rewards))
    path = tmp_path_factory.getbasetemp() / "rewards.json"
    baselines.update(path, {("bc", "pixels"): measured(of)})
    back = baselines.load(path).entry("bc", "pixels").baseline
    assert back is not None
    assert back.outcomes.max_reward.tobytes() == np.array(rewards).tobytes()
    assert back.first_difference(of) is None


@pytest.mark.parametrize(
    ("sha256", "change", "is_same"),
    [(SHA, {}, True), (OTHER_SHA, {}, False), (SHA, {"torch": "2.10"}, False), (SHA, {"gpu": "new"}, False)],
)
def test_same_needs_the_same_weights_and_conditions(sha256: str, change: dict, is_same: bool) -> None:
    now = FINGERPRINT | change
    assert measured(outcomes()).same(sha256=sha256, fingerprint=now, name="vqbet") is is_same


@pytest.mark.parametrize(
    "change", [{"block_size": 25}, {"max_steps": 200}, {"simulator": "gym-pusht 0.2.0"}, {"task": "PushL"}]
)
def test_episodes_of_another_task_are_refused(change: dict[str, object]) -> None:
    (field, value), *_ = change.items()
    with pytest.raises(IlBenchError) as caught:
        measured(outcomes()).same(sha256=SHA, fingerprint=FINGERPRINT | change, name="vqbet on keypoints")
    said = f"vqbet on keypoints: fingerprint.{field} was {FINGERPRINT[field]!r}, is {value!r} now"
    assert said in str(caught.value) and "--il-update-baselines" in str(caught.value)


def test_pairs_are_of_the_seeds_that_both_have() -> None:
    now = outcomes(20, first=200_090, seed=1)
    new, old = (pair.to_records() for pair in measured(outcomes()).pairs(now))
    assert (new, old) == (now.to_records()[:10], outcomes().to_records()[90:])
    assert [row["seed"] for row in new] == [row["seed"] for row in old] == list(range(200_090, 200_100))
    assert measured(outcomes(first=200_050)).pairs(outcomes(50))[0].n == 0


@pytest.mark.parametrize("column", ["success", "max_reward", "n_steps"])
def test_the_first_difference_is_found_in_every_column(column: str) -> None:
    base, now = measured(outcomes()), outcomes()
    assert base.first_difference(now) is None
    for i in (42, 60):
        x = getattr(now, column)
        x[i] = np.nextafter(x[i], 0.5) if column == "max_reward" else not x[i]
    assert base.first_difference(now) == 200_042


@pytest.mark.parametrize(
    ("of", "message"),
    [
        (outcomes(0), "consecutive seeds"),
        (Outcomes(*(np.array([200_001, 200_000]), *np.ones((4, 2)))), "consecutive seeds"),
        (outcomes(50, first=100_000), "measured baseline: .* seeds 100000-100049; test seeds are 200000-"),
        (outcomes(51, first=200_950), "measured baseline: .* seeds 200950-201000; test seeds are 200000-"),
        (
            replace(outcomes(), max_reward=np.full(100, 0.5)),
            "seed 200000 is a success with a max_reward below",
        ),
    ],
)
def test_a_baseline_is_of_consecutive_test_seeds(of: Outcomes, message: str) -> None:
    with pytest.raises(IlBenchError, match=message):
        measured(of)


# ---- files of schema 1


def as_schema_1(baseline: MeasuredBaseline, **changes: object) -> dict[str, object]:
    """The baseline as il_bench 0.1 wrote it."""
    of, new = baseline.outcomes, set(baseline.model_dump()) - {"n_steps"}
    kept = new - {"measured", "n_episodes", "metrics", "episodes", "failed_max_reward"}
    columns = {
        "first_seed": baseline.first_seed,
        "success": of.success.astype(int).tolist(),
        "max_reward": of.max_reward.tolist(),
        "n_steps": of.n_steps.tolist(),
    }
    return baseline.model_dump(include=kept) | columns | changes


def schema_1(baseline: dict[str, object]) -> str:
    target = {"value": 0.85, "margin": 0.05}
    gates = {"vqbet": {"keypoints": {"target": target, "baseline": baseline}}, "bc": {"keypoints": {}}}
    return json.dumps({"schema": 1, "gates": gates})


def test_a_file_of_schema_1_is_read_and_the_next_update_writes_schema_2(path: Path) -> None:
    old = measured(outcomes(120), margin=0.1)
    path.write_text(schema_1(as_schema_1(old)))
    found = baselines.load(path)
    assert found.entry("vqbet", "keypoints") == Entry(target=Target(value=0.85), baseline=old)
    assert found.entry("bc", "keypoints") == Entry()
    baselines.update(path, {("act", "pixels"): old})
    assert json.loads(path.read_text())["schema"] == 2
    assert baselines.load(path).entry("vqbet", "keypoints") == found.entry("vqbet", "keypoints")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"first_seed": 100_000}, "first_seed = 100000"),
        ({"first_seed": 200_950}, "its episodes have seeds 200950-201049; test seeds are 200000-200999"),
        ({"success": []}, "success = []"),
        ({"success": [2] * 100}, "success.0 = 2"),
        ({"success": [True] * 100}, "success.0 = True"),
        ({"n_steps": [300] * 99}, "n_steps holds 99 episodes, success holds 100"),
        ({"max_reward": [1.0] * 99 + [1.25]}, "max_reward.99 = 1.25"),
        ({"max_reward": [0.5] * 100}, "is a success with max_reward 0.5"),
        ({"checkpoint": "zoo/vqbet"}, "checkpoint = 'zoo/vqbet': unknown field"),
        ({"measured": "2026-11-30"}, "measured = '2026-11-30': unknown field in schema 1"),
        ({"sha256": "abc"}, "sha256 = 'abc'"),
    ],
)
def test_what_is_wrong_in_schema_1_is_named_too(path: Path, change: dict[str, object], message: str) -> None:
    path.write_text(schema_1(as_schema_1(measured(outcomes()), **change)))
    with pytest.raises(IlBenchError, match=f"{BASELINE}: .*{re.escape(message)}.*measure it again"):
        baselines.load(path)


@pytest.mark.parametrize("examples", FUZZ)
def test_every_change_of_schema_1_is_accepted_or_one_sentence(path: Path, examples: int) -> None:
    path.write_text(schema_1(as_schema_1(measured(outcomes(8)))))
    fuzz(path, baselines.load, write, examples=examples)
