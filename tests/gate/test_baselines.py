"""baselines.json: what it refuses and how it says so, round trips to the bit, updates that lose nothing."""

import difflib
import json
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from functools import reduce
from itertools import repeat
from operator import getitem
from pathlib import Path

import filelock
import pytest

from il_bench.errors import IlBenchError
from il_bench.gate import baselines
from il_bench.gate.baselines import Baselines, Entry, Target
from il_bench.protocol import TRACKS
from tests.fuzzing import FUZZ, fuzz
from tests.gate.made import FINGERPRINT, measured, outcomes, write


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
    assert targets == {
        (name, track): ("success_rate", value, 0.05) for name, value in values.items() for track in TRACKS
    }
    assert set(shipped.gates) == {"act", "bc", "bet", "diffusion", "vqbet"}


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


def test_targets_under_stress_are_gates_and_stay_where_a_baseline_changes(tmp_path: Path) -> None:
    path, arms = tmp_path / "baselines.json", {"delay 1": Target(value=0.9, required=True)}
    write(path, Baselines(gates={"vqbet": {"keypoints": Entry(target=Target(value=0.85), arms=arms)}}))
    assert baselines.load(path).n_gates == 2
    after = baselines.update(path, {("vqbet", "keypoints"): measured(outcomes())})
    assert baselines.load(path) == after
    assert after.entry("vqbet", "keypoints").arms == arms
    assert after.tested("vqbet", "keypoints").arms["delay 1"].alpha == pytest.approx(0.05 / 3)


TARGET, BASELINE = "gates.vqbet.keypoints.target", "gates.vqbet.keypoints.baseline"


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("alpha", 0.05, "alpha = 0.05: unknown field"),
        (f"{TARGET}.goal", 0.9, "goal = 0.9: unknown field"),
        (f"{TARGET}.value", 1.5, "value = 1.5: Input should be less than 1"),
        (f"{TARGET}.value", "0.85", "value = '0.85': Input should be a valid number"),
        (f"{TARGET}.value", float("nan"), "value is nan, not a finite number"),
        (f"{TARGET}.margin", 0.9, "margin 0.9 must be below value 0.85"),
        (f"{TARGET}.cap", 1001, "cap = 1001: Input should be less than or equal to 1000"),
        (f"{TARGET}.cap", 0, "cap = 0"),
        (f"{TARGET}.alpha", 0, "alpha = 0"),
        (f"{TARGET}.required", "yes", "required = 'yes'"),
        (f"{TARGET}.metric", "avg_max_reward", "metric = 'avg_max_reward'"),
        ("gates.vqbet.li dar", {}, "li dar"),
        ("gates.vqbet.keypoints.arms", {"delay 1": {"value": 2}}, "arms.delay 1.value = 2"),
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
        (
            f"{BASELINE}.fingerprint",
            FINGERPRINT | {"clock": float("inf")},
            "fingerprint.clock is inf, not a finite number",
        ),
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
    if field.startswith(BASELINE) and "finite" not in message:
        assert BASELINE in said and "make it null and measure it again" in said
    else:
        assert "correct the field" in said or "--il-update-baselines" in said
    assert len(said) < 500 and "\n" not in said


@pytest.mark.parametrize("examples", FUZZ)
def test_every_change_of_the_file_is_accepted_or_one_sentence(path: Path, examples: int) -> None:
    fuzz(path, baselines.load, write, examples=examples)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"schema": 1,', "broken JSON at line 1, column 14"),
        (b"<<<<<<< HEAD\n{}", "broken JSON at line 1, column 1"),
        (b"", "broken JSON"),
        (b"[]", "holds a list, not an object with fields"),
        (b'{"gates": {}}', "schema = None"),
        (b"\xff\xfe", "not UTF-8"),
        (b'{"schema": 1, "gates": {"bc": {}, "bc": {}}}', "gates.bc occurs twice"),
        (None, "cannot be read"),
    ],
)
def test_a_file_that_is_no_baselines_file(path: Path, content: bytes | None, message: str) -> None:
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(IlBenchError, match=f"{path.name}.*{message}"):
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
