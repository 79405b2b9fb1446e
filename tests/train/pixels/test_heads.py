"""Heads on an eye: resumed to the same bits; the folder is LeRobot's policy, with the eye in it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lerobot.policies.factory import get_policy_class

from il_bench.data import Windows, open_dataset
from il_bench.errors import IlBenchError
from il_bench.policies.expert import poses_of
from il_bench.train import recipes
from il_bench.train.pixels import cache
from il_bench.train.pixels.eye import ENCODERS, load_eye, new_eye, save_eye
from il_bench.train.pixels.eye_training import EYE_FILE
from il_bench.train.pixels.heads import HeadTrainer
from il_bench.train.pixels.scenes import Scenes, to_tensor
from il_bench.zoo import pixels_folder
from tests.train.small_runs import SMALL, run_to, weights

POLICIES = ("act", "bc", "diffusion", "vqbet")


def new_head(name: str, eye: Path, demos: Path, output: Path, **policy: Any) -> HeadTrainer:
    recipe = recipes.load(name, "heads", {"steps": 8, "batch_size": 16, "warmup_steps": 2})
    recipe = recipe.model_copy(update={"policy": {**recipe.policy, **SMALL[name], **policy}})
    return HeadTrainer(recipe, str(demos), eye=eye, seed=1, output=output)


@pytest.mark.parametrize("name", POLICIES)
def test_a_resumed_head_is_the_uninterrupted_one_and_loads_with_its_eye(
    name: str, eye_run: Path, demos: Path, tmp_path: Path
) -> None:
    straight = new_head(name, eye_run, demos, tmp_path / "straight")
    run_to(straight, 2 if name == "vqbet" else 3)  # vqbet: within its first phase of four steps
    saved = straight.save()
    resumed = new_head(name, eye_run, demos, tmp_path / "straight")
    resumed.restore()
    run_to(straight, 7), run_to(resumed, 7)
    found = weights(resumed)
    assert all(torch.equal(tensor, found[key]) for key, tensor in weights(straight).items())

    folder = saved / "pretrained_model"
    kind = straight.policy.config.type
    loaded = get_policy_class(kind).from_pretrained(folder).eval()
    eye = load_eye(eye_run / EYE_FILE)
    images = to_tensor(Scenes().batch(np.random.default_rng(5), 4)[0])
    with torch.no_grad():
        said = loaded.get_submodule(ENCODERS[kind])(images)
        maps = eye.maps(images, bfloat16=False)
        wanted = maps if name == "act" else eye.feature(maps)
    torch.testing.assert_close(said["feature_map"] if name == "act" else said, wanted)


def test_the_cache_is_what_the_eye_says_of_each_frame_and_is_kept(
    eye_run: Path, demos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / EYE_FILE
    path.write_bytes((eye_run / EYE_FILE).read_bytes())
    windows = Windows(open_dataset(str(demos)), {})
    monkeypatch.setattr(cache, "_BLOCK", 50)
    monkeypatch.setattr(cache, "usable_cores", lambda: 1)
    calls: list[int] = []

    def stop_after_one(done: int, of: int) -> None:
        calls.append(done)
        if len(calls) == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.seen_by(path, windows, stop_after_one)
    features, maps, _ = cache.seen_by(tmp_path, windows, stop_after_one)
    assert calls == [50, 100, 120]  # 120 frames, the first 50 not again
    again = cache.seen_by(tmp_path, windows, stop_after_one)[0]
    assert len(calls) == 3 and np.array_equal(again, features)

    columns = windows.batch(torch.arange(50, 100))
    agents = columns["observation.state"].double().numpy()
    poses = poses_of(columns["observation.environment_state"].double().numpy())
    eye = load_eye(path)
    with torch.no_grad():
        seen = eye.maps(to_tensor(Scenes().draw(agents, poses)), bfloat16=True)
        np.testing.assert_array_equal(features[50:100], eye.feature(seen).numpy())
    np.testing.assert_array_equal(maps[50:100], seen.half().numpy())


def test_a_head_on_another_eye_is_not_resumed(eye_run: Path, demos: Path, tmp_path: Path) -> None:
    new_head("bc", eye_run, demos, tmp_path).save()
    other = tmp_path / "other.safetensors"
    save_eye(new_eye(), other)
    with pytest.raises(IlBenchError, match="eye"):
        new_head("bc", other, demos, tmp_path).restore()


def test_a_policy_without_an_image_encoder_is_refused(eye_run: Path, demos: Path, tmp_path: Path) -> None:
    recipe = recipes.load("bet", "keypoints")
    with pytest.raises(IlBenchError, match=r"policy.type = 'il_bet': cannot be trained on an eye"):
        HeadTrainer(recipe, str(demos), eye=eye_run, seed=1, output=tmp_path)


@pytest.mark.parametrize("name", POLICIES)
def test_a_shipped_policy_came_out_of_its_recipe(name: str) -> None:
    folder = pixels_folder()
    if folder is None:
        pytest.skip("the policies on images are not here")
    facts = json.loads((folder / name / "training.json").read_text())
    assert facts["recipe"] == recipes.load(name, "heads").model_dump(mode="json")
    assert facts["step"] == facts["recipe"]["training"]["steps"]
