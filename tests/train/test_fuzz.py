"""The files that training reads: whatever they hold, they are accepted or refused in a sentence."""

from pathlib import Path
from typing import Any

import pytest

from il_bench.train import checkpoints, recipes
from il_bench.train.batches import policy_config
from il_bench.train.checkpoints import STATE, SavedProgress
from il_bench.train.recipes import Recipe
from tests.fuzzing import FUZZ, TOML, fuzz
from tests.train.small_runs import saved


def without_none(value: Any) -> Any:
    """TOML has no such value: what is None is left out."""
    if isinstance(value, dict):
        return {key: without_none(each) for key, each in value.items() if each is not None}
    return value


def read_recipe(path: Path) -> Recipe:
    recipe = recipes.load(str(path), "keypoints")
    policy_config(recipe, "cpu")
    return recipe


@pytest.mark.parametrize("examples", FUZZ)
@pytest.mark.parametrize("name", ["bet", "diffusion"])
def test_recipes(name: str, examples: int, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes((recipes.HERE / "keypoints" / f"{name}.toml").read_bytes())
    fuzz(
        path,
        read_recipe,
        lambda path, recipe: path.write_text(TOML.dump(without_none(recipe.model_dump(mode="json")))),
        examples=examples,
        form=TOML,
    )


@pytest.mark.parametrize("examples", FUZZ)
def test_progress(examples: int, demos: Path, tmp_path: Path) -> None:
    _, folder = saved("bc", demos, tmp_path, 2)
    path = folder / STATE / checkpoints.PROGRESS_FILE

    def read(path: Path) -> SavedProgress:
        return checkpoints.read(tmp_path, folder)

    fuzz(path, read, lambda path, value: path.write_text(value.model_dump_json()), examples=examples)
