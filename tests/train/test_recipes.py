"""Recipes on keypoints: every field is checked, and named when it is wrong."""

from pathlib import Path
from typing import Any

import pytest

from il_bench.data import open_dataset
from il_bench.errors import IlBenchError
from il_bench.train import recipes
from il_bench.train.batches import make_network, policy_config
from il_bench.train.recipes import Recipe


@pytest.mark.parametrize(
    ("changes", "overrides", "message"),
    [
        ({"training": 3}, {"steps": 2}, "training = 3: Input should be"),
        ({}, {"steps": 0}, "training.steps = 0: "),
        ({}, {"stesp": 5}, "training.stesp"),
        ({}, {"cosine_steps": 6}, "cosine_steps 6 is less than steps"),
    ],
)
def test_recipes_name_the_field_that_is_wrong(
    changes: dict[str, Any], overrides: dict[str, int], message: str
) -> None:
    good = {"policy": {"type": "il_bc"}, "training": {"steps": 7, "batch_size": 1, "lr": 0.1}}
    recipes.parse(Recipe, good, "mine.toml")
    with pytest.raises(IlBenchError, match=f"^mine.toml: .*{message}"):
        recipes.parse(Recipe, {**good, **changes}, "mine.toml", overrides)


def test_a_recipe_of_ones_own_is_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('[policy]\ntype = "il_bc"\n[training]\nsteps = 7\nbatch_size = 2\nlr = 0.1\n')
    assert recipes.load(str(path), "keypoints").training.steps == 7
    assert recipes.load(str(path), "keypoints", {"steps": 9}).training.steps == 9
    path.write_text(path.read_text() + "cosine_steps = 40\n")
    assert recipes.load(str(path), "keypoints", {"steps": 50}).training.cosine_steps == 50
    assert recipes.load(str(path), "keypoints", {"steps": 35}).training.cosine_steps == 40
    with pytest.raises(IlBenchError, match=r"none.toml: cannot be read \(No such file"):
        recipes.load(str(tmp_path / "none.toml"), "keypoints")
    for text, said in (("[policy\n", "is not valid TOML"), ("[policy]\n", "training.steps: Field required")):
        path.write_text(text)
        with pytest.raises(IlBenchError, match=f"mine.toml: {said}"):
            recipes.load(str(path), "keypoints")


@pytest.mark.parametrize("name", recipes.names("keypoints"))
@pytest.mark.parametrize("folder", ["keypoints", "human"])
def test_every_recipe_normalises_the_keypoints(folder: str, name: str) -> None:
    """LeRobot's own defaults leave ENV features in pixels."""
    recipe = recipes.load(str(recipes.HERE / folder / f"{name}.toml"), "keypoints")
    config = policy_config(recipe, "cpu")
    normalised = ["IDENTITY"] if recipe.processing.pusht_features else ["MIN_MAX", "MEAN_STD"]
    assert config.normalization_mapping["ENV"].value in normalised


WRONG: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"lr": float("inf")}, {}, "training.lr = inf: Input should be a finite number"),
    ({"lr": float("nan")}, {}, "training.lr = nan"),
    ({"lr": True}, {}, "training.lr = True: Input should be a valid number"),
    ({"lr": "0.1"}, {}, "training.lr = '0.1'"),
    ({"weight_decay": float("inf")}, {}, "training.weight_decay = inf"),
    ({"grad_clip_norm": float("inf")}, {}, "training.grad_clip_norm = inf"),
    ({"betas": [0.9, 1.0]}, {}, "training.betas.1 = 1.0: Input should be less than 1"),
    ({"betas": [0.9, True]}, {}, "training.betas.1 = True"),
    ({"betas": [0.9]}, {}, "training.betas"),
    ({"betas": 0.9}, {}, "training.betas = 0.9"),
    ({"steps": True}, {}, "training.steps = True"),
    ({"steps": 1.5}, {}, "training.steps = 1.5"),
    ({"steps": [3]}, {}, r"training.steps = \[3\]"),
    ({"ema_decay": 1.0}, {}, "training.ema_decay = 1.0"),
    ({"autocast": "float16"}, {}, "training.autocast = 'float16'"),
    ({"learning_rate": 0.1}, {}, "training.learning_rate = 0.1: unknown field"),
    ({"warmup_step": 5}, {}, "training.warmup_step = 5: unknown field; the nearest is warmup_steps"),
    ({}, {"hiden_dim": 5}, "policy.hiden_dim: il_bc has no such field; the nearest is hidden_dim"),
    ({}, {"type": "il_bcc"}, "policy.type = 'il_bcc': LeRobot has no such policy; the nearest is il_bc"),
    ({}, {"type": 3}, "policy.type = 3"),
    ({}, {"hidden_dim": True}, "policy.hidden_dim = True"),
    ({}, {"hidden_dim": "16"}, "policy.hidden_dim = '16'"),
    ({}, {"hidden_dim": 16.5}, "policy.hidden_dim = 16.5"),
    ({}, {"hidden_dim": [16]}, r"policy.hidden_dim = \[16\]"),
    ({}, {"dropout": "much"}, "policy.dropout"),
    ({}, {"dropout": float("nan")}, "policy.dropout = nan: not finite"),
    ({}, {"normalization_mapping": {"STATE": "MEAN"}}, "policy.normalization_mapping"),
]


@pytest.mark.parametrize(("training", "policy", "said"), WRONG)
def test_a_field_that_is_wrong_is_named(training: dict[str, Any], policy: dict[str, Any], said: str) -> None:
    data = {
        "policy": {"type": "il_bc", **policy},
        "training": {"steps": 7, "batch_size": 1, "lr": 0.1, **training},
    }
    with pytest.raises(IlBenchError, match=f"^mine.toml: {said}") as caught:
        policy_config(recipes.parse(Recipe, data, "mine.toml"), "cpu")
    assert len(str(caught.value)) < 300


def test_whole_numbers_may_be_written_as_toml_writes_large_ones() -> None:
    data = {"policy": {"type": "il_bc"}, "training": {"steps": 1e5, "batch_size": 64, "lr": 1}}
    training = recipes.parse(Recipe, data, "mine.toml").training
    assert (training.steps, training.lr) == (100_000, 1.0) and isinstance(training.steps, int)


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        ({"hidden_dim": -3}, "no network can be built from these fields: "),
        (
            {"hidden_dim": 10_000_000},
            r".* numbers take .* GB to train, and this machine has",
        ),
    ],
)
def test_dimensions_that_no_network_has_are_told(policy: dict[str, Any], said: str) -> None:
    data = {
        "policy": {"type": "il_bc", **policy},
        "training": {"steps": 7, "batch_size": 1, "lr": 0.1},
    }
    recipe, dataset = recipes.parse(Recipe, data, "mine.toml"), open_dataset("expert")
    with pytest.raises(IlBenchError, match=rf"^mine.toml: policy \(il_bc\): {said}"):
        make_network(recipe, policy_config(recipe, "cpu"), dataset)
