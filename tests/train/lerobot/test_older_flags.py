"""Lines of an older lerobot-train: renamed, pinned and noted, or refused in one sentence."""

import json
import shlex
from pathlib import Path

import draccus
import pytest

from il_bench.errors import IlBenchError
from il_bench.train.lerobot import flags as lerobot_flags
from il_bench.train.lerobot.command_line import from_words
from il_bench.train.lerobot.older_flags import CHANGED_DEFAULTS, GONE, RENAMED, translate
from il_bench.train.recipes import spell

COURSE = (
    "--policy.type=vqbet --dataset.repo_id=lerobot/pusht --env.type=pusht --env.task=PushT-v0 "
    "--batch_size=16 --steps=100000 --eval_freq=10000 --output_dir=runs/vqbet_pusht --seed=1"
)


def note_on(flag: str, notes: list[str]) -> str:
    return next(note for note in notes if note.startswith(f"--{flag}"))


def test_the_courses_line_becomes_one_that_the_installed_lerobot_reads() -> None:
    line = from_words(shlex.split(COURSE), {})
    config = lerobot_flags.read(line.flags)
    assert (config.policy.type, config.batch_size, config.steps, config.seed) == ("vqbet", 16, 100_000, 1)
    assert config.env_eval_freq == 10_000 and config.env.task == "PushT-v0"
    assert not config.policy.push_to_hub  # else LeRobot asks where to
    assert "--env_eval_freq" in note_on("eval_freq", line.notes)
    assert line.residual_vq_steps == 20_000


@pytest.mark.parametrize("policy", ["vqbet", "diffusion", "act"])
def test_every_default_that_changed_is_put_back_and_named(policy: str) -> None:
    flags, notes = translate(lerobot_flags.split(shlex.split(COURSE.replace("vqbet", policy))))
    changed = [change for change in CHANGED_DEFAULTS if change.policy in (None, policy)]
    for change in changed:
        assert flags[change.flag] == spell(change.before)
        assert change.effect in note_on(change.flag, notes)
    config = lerobot_flags.read(flags)
    if policy == "diffusion":
        assert (config.policy.horizon, config.policy.n_action_steps) == (16, 8)
        assert tuple(config.policy.crop_shape) == (84, 84)
    if policy != "act":
        assert config.policy.use_group_norm and config.policy.pretrained_backbone_weights is None
    assert config.eval.batch_size == 50 and not config.eval.use_async_envs


def test_the_tables_are_true_of_the_installed_lerobot() -> None:
    for change in CHANGED_DEFAULTS:
        known = lerobot_flags.defaults({"policy.type": change.policy} if change.policy else {})
        assert known[change.flag] == change.now, change.flag
    known = lerobot_flags.defaults({})
    assert not {*RENAMED, *GONE} & known.keys() and set(RENAMED.values()) <= known.keys()


def test_what_the_line_says_itself_is_left_as_it_says() -> None:
    words = ["lerobot-train", "--policy.type", "diffusion", "--policy.horizon=32", "--policy.repo_id=me/mine"]
    flags, notes = translate(lerobot_flags.split(words))
    assert flags["policy.type"] == "diffusion"
    assert flags["policy.horizon"] == "32" and "policy.push_to_hub" not in flags
    assert not [note for note in notes if "horizon" in note]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--policy.type=vqbet --evall_freq=3", "--evall_freq: LeRobot .* no such flag; the nearest is --"),
        ("--policy.type=vqbet --policy.horizon=3", "with --policy.type=vqbet"),
        ("--policy.type=bc", "il-bench train bc --track pixels"),
        ("--policy.type=bet", "--policy.type=il_bet"),
        ("--policy.type=vqbet --use_rabc=true", "--sample_weighting.type=rabc"),
        ("--policy.type=vqbet --eval_freq=1 --env_eval_freq=2", "is the old name of --env_eval_freq"),
        ("--policy.type=vqbet --steps", "--steps has no value"),
        ("--policy.type=vqbet runs/mine", "'runs/mine' is not a flag"),
        ("--steps=1 --steps=2 --policy.type=vqbet", "given twice"),
        ("--policy.type=vqbet --dataset.repo_id=a/b --steps=many", "many"),
        ("--policy.type=diffusion --dataset.repo_id=a/b --policy.horizon=9", "should be an integer multiple"),
        ("--policy.type=vqbtt --dataset.repo_id=a/b", "vqbtt"),
        ("--policy.type=vqbet", "names no data"),
        ("--dataset.repo_id=a/b", "names no policy"),
    ],
)
def test_what_cannot_be_meant_is_one_sentence_with_a_way_out(words: str, message: str) -> None:
    with pytest.raises(IlBenchError, match=message) as raised:
        from_words(shlex.split(words), {})
    assert "\n" not in str(raised.value)


def test_our_own_policies_are_found_by_lerobot() -> None:
    line = from_words(shlex.split("--policy.type=il_vqbet --dataset.repo_id=a/b"), {})
    assert line.words()[0] == "--policy.discover_packages_path=il_bench.policies"
    assert line.residual_vq_steps == lerobot_flags.policy_fields("il_vqbet")["n_vqvae_training_steps"]


def test_il_benchs_options_are_added_and_not_said_twice() -> None:
    line = from_words(shlex.split(COURSE), {"dataset.root": "data/pusht"})
    assert line.flags["dataset.root"] == "data/pusht"
    with pytest.raises(IlBenchError, match="--seed is in the lerobot-train command"):
        from_words(shlex.split(COURSE), {"seed": "2"})


OLD = {
    "dataset": {"repo_id": "lerobot/pusht", "image_transforms": {"enable": False}, "episodes": None},
    "env": {"type": "pusht", "task": "PushT-v0"},
    "policy": {
        "type": "diffusion",
        "device": "cpu",
        "push_to_hub": False,
        "crop_shape": [84, 84],
        "input_features": {"observation.state": {"type": "STATE", "shape": [2]}},
        "normalization_mapping": {"STATE": "MIN_MAX"},
    },
    "output_dir": "run",
    "batch_size": 8,
    "eval_freq": 50,
    **{"use_rabc": False, "rabc_progress_path": None, "rabc_kappa": 0.01},
}


def test_a_configuration_file_is_translated_as_the_flags_are(tmp_path: Path) -> None:
    (tmp_path / "train_config.json").write_text(json.dumps(OLD))
    given = ["--policy.horizon=8", "--steps=100"]
    for path in (tmp_path, tmp_path / "train_config.json"):
        line = from_words([f"--config_path={path}", *given], {"seed": "3"})
        assert "config_path" not in line.flags and "eval_freq" not in line.flags
        config = lerobot_flags.read(line.flags)
        assert (config.env_eval_freq, config.batch_size, config.steps, config.seed) == (50, 8, 100, 3)
        assert (config.policy.horizon, config.policy.n_action_steps) == (8, 8)  # 0.4.4's
        assert config.policy.input_features["observation.state"].shape == (2,)
        assert config.policy.normalization_mapping["STATE"].value == "MIN_MAX"
        assert "--env_eval_freq" in note_on("eval_freq", line.notes)
        assert "left out" in note_on("use_rabc", line.notes) and str(path) in line.notes[0]


def test_a_configuration_that_the_installed_lerobot_saved_means_the_same(tmp_path: Path) -> None:
    line = from_words(shlex.split(COURSE), {})
    config = draccus.encode(lerobot_flags.read(line.flags))
    (tmp_path / "now.json").write_text(json.dumps(config))
    again = from_words([f"--config_path={tmp_path / 'now.json'}"], {})
    assert draccus.encode(lerobot_flags.read(again.flags)) == config


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", r"old.json: broken JSON"),
        (
            '{"policy": {"type": "act", "horizons": 3}}',
            r"old.json: --policy.horizons: LeRobot .* no such",
        ),
        (json.dumps({**OLD, "use_rabc": True}), r"old.json: --use_rabc: LeRobot has dropped it"),
        ('{"steps": 3}', "names no policy"),
    ],
)
def test_a_configuration_file_that_cannot_be_meant_is_named(content: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "old.json").write_text(content)
    with pytest.raises(IlBenchError, match=said):
        from_words([f"--config_path={tmp_path / 'old.json'}"], {})


def test_a_run_is_resumed_from_its_configuration(tmp_path: Path) -> None:
    (tmp_path / "now.json").write_text("{}")
    line = from_words([f"--config_path={tmp_path / 'now.json'}", "--resume=true"], {})
    assert line.flags["config_path"] == str(tmp_path / "now.json")
