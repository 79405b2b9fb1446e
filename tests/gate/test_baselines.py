"""baselines.json: what it refuses and how it says so, round trips to the bit, updates that lose nothing."""

import difflib
import json
import os
import re
import stat
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import date
from functools import reduce
from itertools import repeat
from operator import getitem
from pathlib import Path

import filelock
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from il_bench.errors import IlBenchError
from il_bench.gate import baselines
from il_bench.gate.baselines import Baselines, Entry, Target
from il_bench.gate.measured import MeasuredBaseline
from il_bench.rollout import Outcomes
from tests.gate.made import FINGERPRINT, OTHER_SHA, SHA, episodes, measured, write


def outcomes(n: int = 100, first: int = 200_000, seed: int = 0) -> Outcomes:
    generator = np.random.default_rng(seed)
    return episodes(generator.random(n) < 0.7, first, generator.random(n))


def example() -> Baselines:
    vqbet = Entry(target=Target(value=0.85, required=True), baseline=measured(outcomes()))
    return Baselines(gates={"vqbet": {"keypoints": vqbet}, "bc": {"keypoints": Entry()}})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "baselines.json"
    write(path, example())
    baselines.update(path, {})
    return path


def test_the_shipped_file_declares_the_targets() -> None:
    shipped = baselines.load(baselines.default_path())
    targets = {
        (policy, track): (entry.target.metric, entry.target.value, entry.target.margin)
        for policy, tracks in shipped.gates.items()
        for track, entry in tracks.items()
        if entry.target is not None
    }
    values = {"vqbet": 0.85, "diffusion": 0.92, "act": 0.65}
    assert targets == {(name, "keypoints"): ("success_rate", value, 0.05) for name, value in values.items()}
    assert set(shipped.gates) == {"act", "bc", "bet", "diffusion", "vqbet"}


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


def test_what_is_saved_is_loaded_readable_and_stable(path: Path) -> None:
    assert baselines.load(path) == example()
    before = path.read_text()
    lines = before.splitlines()
    assert len(lines) <= 60  # a field a line, and one for each block
    of = outcomes().success[50:]
    assert '"200050": "' + "".join(".F"[1 - solved] for solved in of) + '"' in {
        line.strip() for line in lines
    }
    baselines.update(path, {})
    assert path.read_text() == before


TARGET, BASELINE = "gates.vqbet.keypoints.target", "gates.vqbet.keypoints.baseline"


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("alpha", 0.05, "alpha = 0.05: unknown field"),
        (f"{TARGET}.goal", 0.9, "goal = 0.9: unknown field"),
        (f"{TARGET}.value", 1.5, "value = 1.5: Input should be less than 1"),
        (f"{TARGET}.value", "0.85", "value = '0.85': Input should be a valid number"),
        (f"{TARGET}.value", float("nan"), "value = nan"),
        (f"{TARGET}.margin", 0.9, "margin 0.9 must be below value 0.85"),
        (f"{TARGET}.cap", 1001, "cap = 1001: Input should be less than or equal to 1000"),
        (f"{TARGET}.cap", 0, "cap = 0"),
        (f"{TARGET}.alpha", 0, "alpha = 0"),
        (f"{TARGET}.required", "yes", "required = 'yes'"),
        (f"{TARGET}.metric", "avg_max_reward", "metric = 'avg_max_reward'"),
        ("gates.vqbet.li dar", {}, "li dar"),
        (f"{BASELINE}.sha256", "abc", "sha256 = 'abc'"),
        (f"{BASELINE}.measured", "yesterday", "measured = 'yesterday': Input should be a valid date"),
        (f"{BASELINE}.n_episodes", 99, "n_episodes counts 99, but `episodes` holds 100 episodes"),
        (f"{BASELINE}.n_episodes", True, "n_episodes = True"),
        (
            f"{BASELINE}.metrics.success_rate",
            0.99,
            "metrics.success_rate is 0.99, but the episodes give 0.63",
        ),
        (f"{BASELINE}.metrics.mean_max_reward", 0.9, "mean_max_reward is 0.9, but the episodes give 0.8"),
        (f"{BASELINE}.metrics", {}, "metrics.success_rate is None, but the episodes give 0.63"),
        (f"{BASELINE}.metrics.reward", 0.9, "metrics.reward: no such metric; there are success_rate"),
        (f"{BASELINE}.episodes", {}, "episodes = {}: Dictionary should have at least 1 item"),
        (f"{BASELINE}.episodes.200000", "." * 49 + "x", "episodes.200000 = '...."),
        (f"{BASELINE}.episodes.200000", "." * 50, "failed_max_reward counts 37, but `episodes` holds 22 f"),
        (f"{BASELINE}.episodes.200000", "." * 49, "200050: the line before it ends at seed 200048"),
        (f"{BASELINE}.episodes.200100", ".", "n_episodes counts 100, but `episodes` holds 101"),
        (f"{BASELINE}.episodes.seed", "....", "episodes.seed"),
        (f"{BASELINE}.n_steps", [300] * 99, "n_steps counts 99, but `episodes` holds 100 episodes"),
        (f"{BASELINE}.failed_max_reward", [0.5] * 26 + [1.25], "failed_max_reward.26 = 1.25"),
        (f"{BASELINE}.fingerprint", {"task": "PushT"}, "fingerprint lacks 'simulator'"),
        (f"{BASELINE}.fingerprint", FINGERPRINT | {"clock": float("inf")}, "fingerprint.clock"),
        (f"{BASELINE}.checkpoint", "zoo/vqbet", "unknown field"),
        ("schema", 3, "schema = 3, but this il_bench reads schema 2"),
        ("schema", True, "schema = True"),
    ],
)
def test_one_error_names_file_field_value_and_way_out(
    path: Path, field: str, value: object, message: str
) -> None:
    content = json.loads(path.read_text())
    *parents, last = field.split(".")
    reduce(getitem, parents, content)[last] = value
    path.write_text(json.dumps(content))
    with pytest.raises(IlBenchError) as caught:
        baselines.load(path)
    said = str(caught.value)
    assert str(path) in said and message in said
    if field.startswith(BASELINE):
        assert BASELINE in said and "make it null and measure it again" in said
    else:
        assert "correct the field" in said or "--il-update-baselines" in said
    assert len(said) < 500 and "\n" not in said


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"schema": 1,', "broken JSON at line 1, column 14"),
        (b"<<<<<<< HEAD\n{}", "broken JSON at line 1, column 1"),
        (b"", "broken JSON"),
        (b"[]", "schema = None"),
        (b'{"gates": {}}', "schema = None"),
        (b"\xff\xfe", "not UTF-8"),
        (b'{"schema": 1, "gates": {"bc": {}, "bc": {}}}', "'bc' occurs twice"),
        (None, "cannot be read"),
    ],
)
def test_a_file_that_is_no_baselines_file(path: Path, content: bytes | None, message: str) -> None:
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(IlBenchError, match=f"{path.name}.*{message}"):
        baselines.load(path)


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


def test_alpha_is_divided_over_all_gates_declared() -> None:
    gates = example()  # one target, one baseline, and an entry that declares nothing
    assert gates.n_gates == 2
    tested, entry = gates.tested("vqbet", "keypoints"), gates.entry("vqbet", "keypoints")
    assert tested.target.alpha == tested.baseline.alpha == 0.025
    assert entry.target.alpha == entry.baseline.alpha == 0.05
    for nobody in (gates.entry("vqbet", "pixels"), gates.tested("nobody", "keypoints")):
        assert nobody == Entry()


def test_stale_entries_are_named(path: Path) -> None:
    baselines.check_stale(example(), {"keypoints": ["vqbet", "bc"]}, path=path)
    with pytest.raises(
        IlBenchError, match=r"gates\.bc\.keypoints is stale.*it has act, vqbet.*delete the en"
    ):
        baselines.check_stale(example(), {"keypoints": ["vqbet", "act"]}, path=path)
    with pytest.raises(IlBenchError, match=r"gates\.vqbet\.keypoints is stale"):
        baselines.check_stale(example(), {"pixels": ["vqbet"], "keypoints": ["bc"]}, path=path)


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


def test_update_replaces_baselines_and_keeps_everything_else(path: Path) -> None:
    new = measured(outcomes(50, seed=3))
    after = baselines.update(path, {("vqbet", "keypoints"): new, ("act", "pixels"): new})
    assert after == baselines.load(path)
    assert after.entry("vqbet", "keypoints") == Entry(target=Target(value=0.85, required=True), baseline=new)
    assert after.entry("act", "pixels") == Entry(baseline=new)
    assert "bc" in after.gates


def test_update_refuses_a_broken_file(path: Path) -> None:
    path.write_text("{")
    with pytest.raises(IlBenchError, match="broken JSON"):
        baselines.update(path, {("bc", "keypoints"): measured(outcomes())})
    assert path.read_text() == "{"


def test_the_diff_of_an_update_is_short_and_says_what_changed(path: Path) -> None:
    """A reviewer sees the rates before and after, and the blocks whose episodes came out otherwise."""
    before = path.read_text().splitlines()
    now = outcomes()
    now.success[60:70], now.max_reward[60:70] = True, 1.0
    baselines.update(path, {("vqbet", "keypoints"): measured(now, measured=date(2026, 11, 30))})
    changes = [
        line for line in difflib.unified_diff(before, path.read_text().splitlines(), n=0) if ": " in line
    ]
    fields = [line[1:].split(":")[0].strip().strip('"') for line in changes if line[0] == "+"]
    assert fields == ["measured", "success_rate", "mean_max_reward", "200050", "failed_max_reward"]


def test_updates_at_the_same_time_lose_nothing(path: Path) -> None:
    policies = [f"policy{i}" for i in range(8)]
    found = [{(name, "keypoints"): measured(outcomes())} for name in policies]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(baselines.update, repeat(path), found))
    assert set(baselines.load(path).gates) == {"vqbet", "bc", *policies}


@pytest.mark.parametrize("broken", ["fsync", "replace"])
def test_a_failed_write_leaves_the_old_file_and_no_litter(
    path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, broken, full)
    with pytest.raises(IlBenchError, match=r"cannot be written \(No space left on device, .* MB free\)"):
        baselines.update(path, {("bc", "keypoints"): measured(outcomes())})
    assert path.read_bytes() == before
    assert {file.name for file in path.parent.iterdir()} <= {path.name, f".{path.name}.lock"}


def test_a_held_lock_is_waited_for_and_named(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baselines, "_LOCK_SECONDS", 0.1)
    held = filelock.FileLock(path.with_name(".baselines.json.lock"))
    with held, pytest.raises(IlBenchError, match=r"another process has held \.baselines"):
        baselines.update(path, {})


def test_permissions_and_links_survive_and_a_missing_file_is_made(path: Path) -> None:
    path.chmod(0o664)
    link, new = path.with_name("link.json"), path.with_name("new.json")
    link.symlink_to(path)
    for each, mode in ((link, 0o664), (new, 0o644)):
        baselines.update(each, {("new", "pixels"): measured(outcomes())})
        assert baselines.load(each).entry("new", "pixels").baseline == measured(outcomes())
        assert stat.S_IMODE(each.stat().st_mode) == mode
    assert link.is_symlink() and "new" in baselines.load(path).gates


def test_the_default_is_the_checkouts_or_the_wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "il_bench"
    monkeypatch.setattr(baselines, "__file__", str(package / "gate" / "baselines.py"))
    assert baselines.default_path() == package / "baselines.json"
    (tmp_path / "pyproject.toml").touch()
    assert baselines.default_path() == tmp_path / "baselines.json"
