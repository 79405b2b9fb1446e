"""A checkpoint that would load and be worth nothing is refused by file and tensor; a right one is not."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lerobot.configs import FeatureType, PolicyFeature
from lerobot.policies.factory import make_policy_config, make_pre_post_processors
from safetensors.torch import load_file, save_file

from il_bench.policies.checkpoint import Checkpoint, load_policy
from il_bench.policies.checkpoint.configuration import read_config
from il_bench.policies.checkpoint.normalisation import check_normalisation
from tests.small_policies import features, raw_observations, save, small_policy
from tests.small_policies import statistics as statistics_of_px

from .conftest import edited, refuses

BEFORE, AFTER = "policy_preprocessor.json", "policy_postprocessor.json"
Tensors = dict[str, torch.Tensor]


def weights(folder: Path, change: Callable[[Tensors], Tensors]) -> None:
    path = folder / "model.safetensors"
    save_file(change(load_file(path)), path)


def statistics(folder: Path, change: Callable[[Tensors], Tensors], name: str = BEFORE) -> None:
    (path,) = folder.glob(f"{Path(name).stem}_step_*.safetensors")
    save_file(change(load_file(path)), path)


def one(name: str, change: Callable[[torch.Tensor], Any]) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {**tensors, name: change(tensors[name]).contiguous()}


# ---- statistics

STD, MEAN = "observation.state.std", "observation.state.mean"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (one(STD, torch.zeros_like), r"'observation.state': its 'std' is 0 in one place"),
        (one(STD, torch.neg), r"'observation.state': its 'std' is -100 in one place"),
        (one(MEAN, lambda mean: mean * torch.nan), r"its 'mean' holds NaN or infinity"),
        (one(MEAN, lambda mean: mean[:1]), r"its 'mean' has shape \(1,\), and the feature \(2,\)"),
        (one(MEAN, lambda mean: mean[None]), r"its 'mean' has shape \(1, 2\)"),
        (
            lambda stats: {key: value for key, value in stats.items() if key != STD},
            r"has no 'std' for MEAN_STD",
        ),
    ],
)
def test_statistics_that_are_none_are_refused(folder: Path, change: Any, said: str) -> None:
    statistics(folder, change)
    refuses(rf"{BEFORE}: steps: .*{said}.*save the processors again", load_policy, folder)


def test_a_range_that_is_empty_or_the_wrong_way_round_is_refused(saved: Path) -> None:
    statistics(saved, lambda stats: {**stats, "action.max": stats["action.min"] - 1}, AFTER)
    refuses(rf"{AFTER}: steps: 'action': its 'max' - 'min' is -1 in one place", load_policy, saved)


def test_a_number_that_never_varies_is_right_elsewhere(folder: Path) -> None:
    statistics(folder, one(STD, torch.zeros_like))
    assert load_policy(folder, track="reacher").track == "reacher"


@pytest.mark.parametrize("name", [BEFORE, AFTER])
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda steps, one: steps.remove(one), "is normalised by nothing, and config.json says MEAN_STD"),
        (lambda steps, one: steps.append(one), "is normalised 2 times"),
        (lambda steps, one: one["config"].update(norm_map={}), "is normalised by nothing"),
        (lambda steps, one: one["config"].update(features={}), "is normalised by nothing"),
        (
            lambda steps, one: one["config"].update(norm_map=dict.fromkeys(("STATE", "ACTION"), "MIN_MAX")),
            "is normalised by MIN_MAX, and config.json says MEAN_STD",
        ),
        (lambda steps, one: one["config"].update(eps=1), "eps = 1: has to be at most 0.001"),
    ],
    ids=["missing", "doubled", "no modes", "no features", "other modes", "eps"],
)
def test_steps_that_do_not_normalise_as_configured_are_refused(
    folder: Path, name: str, change: Any, said: str
) -> None:
    kind = "normalizer_processor" if name == BEFORE else "unnormalizer_processor"
    with edited(folder / name) as content:
        (step,) = (each for each in content["steps"] if each["registry_name"] == kind)
        change(content["steps"], step)
    refuses(rf"{name}: steps: '(observation.state|action)'.*{said}", load_policy, folder)


@pytest.mark.parametrize("kind", ["evo1", "lingbot_va", "tdmpc", "vla_jepa"])
def test_processors_as_lerobot_makes_them_are_right(kind: str, tmp_path: Path) -> None:
    shapes = {"input_features": features(state=(2,), image=(3, 96, 96)), "device": "cpu"}
    action = {"action": PolicyFeature(FeatureType.ACTION, (2,))}
    config = make_policy_config(kind, output_features=action, **shapes)
    stats = statistics_of_px()
    stats["action"] |= {"q01": stats["action"]["min"], "q99": stats["action"]["max"]}
    made = make_pre_post_processors(config, dataset_stats=stats)
    check_normalisation(config, *made, tmp_path, is_pusht=True)
    config.save_pretrained(tmp_path)
    assert read_config(tmp_path, "cpu").type == kind


def test_actions_that_are_made_relative_are_made_absolute_once(tmp_path: Path) -> None:
    shutil.copytree(Checkpoint.find("diffusion").folder, tmp_path / "copy")
    assert load_policy(tmp_path / "copy").name.startswith("diffusion")
    with edited(tmp_path / "copy" / AFTER) as content:
        (absolute,) = (
            each for each in content["steps"] if each.get("registry_name") == "absolute_actions_processor"
        )
        content["steps"].remove(absolute)
    refuses(r"has 1 steps for relative actions .* 0 that make them", load_policy, tmp_path / "copy")
    with edited(tmp_path / "copy" / AFTER) as content:
        content["steps"].insert(1, absolute | {"config": {"enabled": False}})
    with edited(tmp_path / "copy" / BEFORE) as content:
        (relative,) = (
            each for each in content["steps"] if each.get("registry_name") == "relative_actions_processor"
        )
        relative["config"]["enabled"] = True
    with edited(tmp_path / "copy" / "config.json") as config:
        config["n_action_steps"] = 1
    refuses(r"\(1 enabled\), .* absolute \(0 enabled\)", load_policy, tmp_path / "copy")


def test_a_state_file_that_is_missing_is_not_looked_for_on_the_hub(folder: Path) -> None:
    (path,) = folder.glob("policy_preprocessor_step_*.safetensors")
    path.unlink()
    refuses(rf"{BEFORE}: steps.3.state_file: .*{path.name}: cannot be read \(No such", load_policy, folder)


# ---- weights


@pytest.mark.parametrize(("dtype", "name"), [(torch.int64, "I64"), (torch.bool, "BOOL")])
def test_weights_without_fractions_are_refused_by_name_and_type(
    folder: Path, dtype: torch.dtype, name: str
) -> None:
    weights(folder, lambda tensors: {key: value.to(dtype) for key, value in tensors.items()})
    refuses(
        rf"model.safetensors: model\.[\w.]+ is of type {name}, and .* float32: the decimals",
        load_policy,
        folder,
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_other_lengths_are_welcome(folder: Path, dtype: torch.dtype) -> None:
    weights(folder, lambda tensors: {key: value.to(dtype) for key, value in tensors.items()})
    assert torch.isfinite(load_policy(folder).select_action(raw_observations())).all()


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_weights_that_are_not_finite_are_named(folder: Path, bad: float) -> None:
    name = "model.action_head.bias"
    weights(folder, one(name, lambda bias: torch.where(torch.arange(len(bias)) == 1, bad, bias)))
    refuses(rf"model.safetensors: {name} holds NaN or infinity", load_policy, folder)


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:%064d\nsize 3700000\n" % 1


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", BEFORE, "policy_preprocessor_step*"])
def test_a_git_lfs_pointer_is_told(folder: Path, name: str) -> None:
    (path,) = folder.glob(name)
    path.write_bytes(LFS)
    refuses(rf"{path.name}: a git-lfs pointer, .* run `git lfs pull`", load_policy, folder)


@pytest.mark.parametrize("size", [0, 5, 8, 100, 6000])
@pytest.mark.parametrize("name", ["model.safetensors", "policy_postprocessor_step*"])
def test_a_cut_file_is_called_cut(folder: Path, name: str, size: int) -> None:
    (path,) = folder.glob(name)
    content = path.read_bytes()
    path.write_bytes(content[: min(size, len(content) - 1)])
    refuses(rf"{path.name}: cut: [\d,]+ bytes are there of [\d,]+", load_policy, folder)


def test_other_bytes_in_place_of_weights_are_told(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"<!doctype html><html><body>Not Found</body></html>")
    refuses(r"model.safetensors: not readable as safetensors", load_policy, folder)


@pytest.mark.parametrize(
    "fields",
    [
        {"dim_feedforward": 10**9},
        {"dim_model": 10**10},
        {"n_encoder_layers": 10**9},
        {"dim_feedforward": 10**30},
    ],
    ids=str,
)
def test_a_policy_of_absurd_size_is_refused_before_memory_is_asked_for(
    folder: Path, fields: dict[str, int]
) -> None:
    with edited(folder / "config.json") as config:
        config |= fields
    refuses(r"config.json", load_policy, folder)


def test_images_of_absurd_size_and_lengths_are_refused(tmp_path: Path) -> None:
    save(small_policy("act", input_features=features(state=(2,), image=(3, 96, 96))), tmp_path)
    with edited(tmp_path / "config.json") as config:
        config["input_features"]["observation.image"]["shape"] = [3, 10**6, 10**6]
    refuses(r"config.json: input feature 'observation.image' of shape", load_policy, tmp_path)
    with edited(tmp_path / "config.json") as config:
        config["chunk_size"] = 10**9
    refuses(r"config.json: chunk_size = 1000000000: has to be between 1 and 10,000", load_policy, tmp_path)


# ---- the rest


def test_every_file_that_is_loaded_is_in_the_hash_whatever_its_name(folder: Path) -> None:
    (path,) = folder.glob("policy_preprocessor_step_*.safetensors")
    with edited(folder / BEFORE) as content:
        content["steps"][3]["state_file"] = ".safetensors"
    hidden = path.rename(folder / ".safetensors")
    before = load_policy(folder).sha256
    save_file(one(MEAN, lambda mean: mean + 1)(load_file(hidden)), hidden)
    assert load_policy(folder).sha256 != before


@pytest.mark.parametrize("device", ["cuda:7", "warp"])
def test_a_device_that_is_not_there_is_one_sentence(folder: Path, device: str) -> None:
    refuses(r"device: (torch finds no cuda:7 here|unknown device 'warp')", load_policy, folder, device=device)


def test_a_policy_gets_the_task_in_words_in_pusht(folder: Path) -> None:
    loaded = load_policy(folder)
    before = loaded.preprocess(raw_observations())
    assert before["task"] == ["Push the T-shaped blue block onto the T-shaped green target surface."] * 3
    assert "task" not in load_policy(folder, track="reacher").preprocess(raw_observations())


@pytest.mark.parametrize("name", ["folder", "saved"])
def test_what_a_policy_does_not_read_is_left_alone(name: str, request: pytest.FixtureRequest) -> None:
    loaded = load_policy(request.getfixturevalue(name))
    actions = []
    for extra in (
        {},
        {"observation.images.wrist": torch.full((3, 3, 8, 8), torch.nan), "observation.note": None},
    ):
        loaded.reset()
        actions.append(loaded.select_action({**raw_observations(), **extra}))
    assert torch.equal(*actions)
