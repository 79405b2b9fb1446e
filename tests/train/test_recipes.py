"""Recipes on keypoints: every field is checked, and named when it is wrong."""

from pathlib import Path
from typing import Any

import pytest

from il_bench.errors import IlBenchError
from il_bench.train import recipes
from il_bench.train.batches import policy_config
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
    with pytest.raises(IlBenchError, match=r"none.toml: cannot be read \(No such file"):
        recipes.load(str(tmp_path / "none.toml"), "keypoints")
    for text, said in (("[policy\n", "is not valid TOML"), ("[policy]\n", "training.steps: Field required")):
        path.write_text(text)
        with pytest.raises(IlBenchError, match=f"mine.toml: {said}"):
            recipes.load(str(path), "keypoints")


@pytest.mark.parametrize("name", recipes.names("keypoints"))
def test_every_recipe_normalises_the_keypoints(name: str) -> None:
    """LeRobot's own defaults leave ENV features in pixels."""
    recipe = recipes.load(name, "keypoints")
    config = policy_config(recipe, "cpu")
    normalised = ["IDENTITY"] if recipe.processing.pusht_features else ["MIN_MAX", "MEAN_STD"]
    assert config.normalization_mapping["ENV"].value in normalised
