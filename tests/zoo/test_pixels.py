"""The policies on images: one eye and heads, put together, rolled out, and told where they are missing."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from il_bench import machine, zoo
from il_bench.cli import app
from il_bench.errors import IlBenchError
from il_bench.gate.baselines import Baselines
from il_bench.plugin import collect, settings
from il_bench.plugin.options import Invocation
from il_bench.policies.checkpoint import LoadedPolicy, load_policy
from il_bench.protocol import IMAGE_BLOCK_SIZE
from il_bench.rollout import blocks, rollout
from il_bench.zoo import pixels
from tests.small_policies import features, save, small_policy

FIRST = 100_000


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is shipped of an untrained act and an untrained diffusion policy with one eye."""
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("pixels")
    seen = features(state=(2,), image=(3, 96, 96))
    made = {
        "act": small_policy("act", input_features=seen, n_action_steps=2),
        "diffusion": small_policy(
            "diffusion",
            input_features=seen,
            pretrained_backbone_weights=None,
            crop_shape=None,
            use_group_norm=False,
            spatial_softmax_num_keypoints=4,
            n_action_steps=1,
        ),
    }
    (encoder,) = made["diffusion"].diffusion.rgb_encoder
    eye = {
        name: tensor.half().float() if tensor.ndim > 1 else tensor
        for name, tensor in encoder.state_dict().items()
    }
    encoder.load_state_dict(eye)
    backbone = [each for name, each in encoder.backbone.state_dict().items() if "num_batches" not in name]
    taken = made["act"].model.backbone.state_dict()
    made["act"].model.backbone.load_state_dict(dict(zip(taken, backbone, strict=True)))
    save_file(eye, folder / "eye.safetensors")
    for name, policy in made.items():
        save(policy, folder / "trained" / name)
        measured = {"success_rate": {"estimate": 0.5}, "n_episodes": 2}
        (folder / "trained" / name / "training.json").write_text(json.dumps({"data": {"name": name}}))
        (folder / "packed" / name).mkdir(parents=True)
        (folder / "packed" / name / "measured.json").write_text(json.dumps(measured))
    pixels.pack(
        folder / "eye.safetensors", {name: folder / "trained" / name for name in made}, folder / "packed"
    )
    return folder


@pytest.fixture
def shipped(packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """They are found, and put together in a cache of the test's own."""
    monkeypatch.setattr(zoo, "pixels_folder", lambda: packed / "packed")
    monkeypatch.setattr(pixels, "pixels_folder", lambda: packed / "packed")
    monkeypatch.setenv("XDG_CACHE_HOME", str(packed / "cache"))
    return packed


@pytest.fixture
def missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zoo, "pixels_folder", lambda: None)


def command(*words: str) -> Any:
    return CliRunner().invoke(app, list(words))


@pytest.mark.parametrize("name", ["act", "diffusion"])
def test_an_exported_policy_is_lerobots_and_acts_as_the_one_that_was_packed(
    name: str, shipped: Path, tmp_path: Path
) -> None:
    from lerobot.policies.factory import get_policy_class

    done = command("zoo", "export", name, "--track", "pixels", "--output", str(tmp_path / "out"))
    assert done.exit_code == 0, done.output
    loaded = load_policy(name, track="pixels")
    assert (loaded.name, loaded.track, loaded.checkpoint, loaded.data) == (
        name,
        "pixels",
        f"zoo/{name}@pixels",
        name,
    )
    assert loaded.sha256 == load_policy(tmp_path / "out").sha256 == load_policy(f"{name}@pixels").sha256
    theirs = get_policy_class(name).from_pretrained(tmp_path / "out").eval()
    before = load_policy(shipped / "trained" / name).policy.state_dict()
    for key, tensor in theirs.state_dict().items():
        assert torch.equal(tensor, loaded.policy.state_dict()[key])
        torch.testing.assert_close(tensor, before[key], rtol=1e-3, atol=1e-6)


def test_the_eye_is_stored_once(shipped: Path) -> None:
    sizes = {
        path.parent.name: path.stat().st_size for path in (shipped / "packed").glob("*/head.safetensors")
    }
    eye = (shipped / "packed" / "eye.safetensors").stat().st_size
    assert 22e6 < eye < 23e6, "11.2 M numbers of 16 bits"
    assert set(sizes) == {"act", "diffusion"} and max(sizes.values()) < 1e6


def actions(policy: LoadedPolicy, steps: int, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    monkeypatch.setattr(blocks, "MAX_STEPS", steps)
    return rollout(policy, range(FIRST, FIRST + IMAGE_BLOCK_SIZE + 1)).to_records()


class Every:
    """A policy that encodes every frame whenever it is asked."""

    def __init__(self, policy: LoadedPolicy) -> None:
        self.reset, self.camera, self.select_action = policy.reset, policy.camera, policy.select_action


@pytest.mark.parametrize(("name", "frames", "all_frames"), [("act", 40, 40), ("diffusion", 80, 160)])
def test_no_frame_is_encoded_twice_and_the_episodes_are_the_same(
    name: str, frames: int, all_frames: int, shipped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In two blocks of ten worlds, four steps each; a history of two frames begins with one frame twice."""
    policy = load_policy(name, track="pixels")
    network = policy.policy.model if name == "act" else policy.policy.diffusion.rgb_encoder[0]
    seen: list[int] = []
    first = next(network.backbone.children()) if name == "diffusion" else network.backbone.conv1
    first.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    once = actions(policy, 4, monkeypatch)
    assert sum(seen) == frames
    seen.clear()
    assert actions(Every(policy), 4, monkeypatch) == once  # type: ignore[arg-type]
    assert sum(seen) == all_frames
    assert "forward" not in vars(network.backbone)


def test_episodes_do_not_depend_on_how_many_seeds_are_handed_out_at_once(
    shipped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "MAX_STEPS", 2)
    policy, kept, seeds = load_policy("act", track="pixels"), [], range(FIRST + 8, FIRST + 13)
    whole = rollout(policy, seeds, size=50, record=kept.append)
    assert whole.to_records() == rollout(policy, seeds).to_records()
    (block,) = kept
    assert [seed for seed, _ in block.recording] == list(seeds)


def test_the_fingerprint_holds_the_block_size_of_the_track() -> None:
    sizes = {track: machine.fingerprint(track=track)["block_size"] for track in ("keypoints", "pixels")}
    assert sizes == {"keypoints": 50, "pixels": 10}


def test_the_track_says_which_policy_a_name_means(shipped: Path, tmp_path: Path) -> None:
    assert zoo.shipped("pixels") == ("act", "diffusion") and "bet" in zoo.shipped()
    assert zoo.resolve("act", tmp_path, track="pixels").spec == "act@pixels"
    assert zoo.resolve("act@pixels", tmp_path).track == "pixels" != zoo.resolve("act", tmp_path).track
    with pytest.raises(IlBenchError, match=r"bet: no such policy\. Give one of act, diffusion, expert"):
        zoo.resolve("bet", tmp_path, track="pixels")
    listed = command("list").output
    assert (
        "act          keypoints  success rate 0.9" in listed
        and "act          pixels     success rate 0.500" in listed
    )


def run_with(**given: Any) -> Invocation:
    values = {each.dest: each.parser["default"] for each in settings.OPTIONS.values()}
    return Invocation((values | {"il_benchmark": True, **given}).__getitem__, Path())


def test_a_run_on_images_takes_every_policy_that_sees_them(shipped: Path) -> None:
    chosen = settings.read(run_with(il_track="pixels")).policies
    assert [(each.gate_name, each.source) for each in chosen] == [
        ("act", "act@pixels"),
        ("diffusion", "diffusion@pixels"),
    ]
    (one,) = settings.read(run_with(il_policy=["act@pixels"])).policies
    assert (one.gate_name, one.source) == ("act", "act@pixels")


@pytest.mark.usefixtures("missing")
def test_without_the_distribution_one_sentence_says_how_to_get_it(tmp_path: Path) -> None:
    sentence = "package of their own, il_bench_pixels, which is not installed"
    for act in (
        lambda: settings.read(run_with(il_track="pixels")),
        lambda: load_policy("act", track="pixels"),
        lambda: load_policy("act@pixels"),
    ):
        with pytest.raises(IlBenchError, match=sentence):
            act()
    for words in (["evaluate", "act", "--track", "pixels"], ["zoo", "export", "act@pixels", "--output", "x"]):
        done = command(*words)
        assert done.exit_code == 2 and sentence in done.output and done.output.count("\n") == 1
    assert sentence in command("list").output


def test_gates_on_images_are_not_stale_where_the_policies_are_not_installed(
    missing: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = Baselines.model_validate({"gates": {"act": {"pixels": {"target": None, "baseline": None}}}})
    monkeypatch.setattr(collect, "load_baselines", lambda _: found)
    collect.check_baselines(settings.read(run_with()))


def test_what_cannot_be_put_together_is_told_in_one_line(shipped: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    for words, message in (
        (["act", "--output", str(tmp_path / "mine")], "mine: already exists; name a new folder"),
        (["expert", "--output", str(tmp_path / "new")], "expert: the planner, which has no weights"),
        (["act", "--track", "sound", "--output", str(tmp_path / "new")], "'sound' is not a track"),
    ):
        done = command("zoo", "export", *words)
        assert done.exit_code == 2 and message in done.output
    assert [path.name for path in tmp_path.rglob("*")] == ["mine", "notes.txt"]


def test_a_damaged_head_and_numbers_beyond_16_bits_are_named(packed: Path, tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    head = tmp_path / "act" / "head.safetensors"
    head.parent.mkdir()
    head.write_bytes((packed / "packed" / "act" / "head.safetensors").read_bytes()[:-10])
    with pytest.raises(
        IlBenchError, match=r"head\.safetensors: does not fit eye\.safetensors, or is damaged"
    ):
        pixels._joined(packed / "packed" / "eye.safetensors", head)
    save_file({"out.weight": np.full((2, 2), 1e5, np.float32)}, tmp_path / "eye.safetensors")
    with pytest.raises(IlBenchError, match=r"out\.weight: holds numbers beyond 65504"):
        pixels.pack(tmp_path / "eye.safetensors", {}, tmp_path / "out")


@pytest.mark.slow
def test_lerobot_eval_takes_an_exported_policy(shipped: Path, tmp_path: Path) -> None:
    import subprocess
    import sys

    command("zoo", "export", "act", "--track", "pixels", "--output", str(tmp_path / "act"))
    words = [
        f"--policy.path={tmp_path / 'act'}",
        "--policy.device=cpu",
        "--env.type=pusht",
        "--eval.n_episodes=1",
    ]
    words += ["--eval.batch_size=1", "--eval.use_async_envs=false", f"--output_dir={tmp_path / 'out'}"]
    run = [sys.executable, "-m", "lerobot.scripts.lerobot_eval", *words, "--env.episode_length=5"]
    done = subprocess.run(run, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "pc_success" in (tmp_path / "out" / "eval_info.json").read_text()
