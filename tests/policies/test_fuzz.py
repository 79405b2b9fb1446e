"""Every field of a checkpoint's files, changed in every way: taken and the same again, or one sentence."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from il_bench.policies.checkpoint import Checkpoint, load_policy
from il_bench.policies.checkpoint.configuration import read_config
from il_bench.policies.checkpoint.normalisation import check_normalisation
from il_bench.policies.checkpoint.processors import load_processors
from tests.fuzzing import FUZZ, fuzz


def configuration(path: Path) -> Any:
    return read_config(path.parent, "cpu")


def save_beside(path: Path, value: Any) -> None:
    value.save_pretrained(path.parent)


@pytest.mark.parametrize("examples", FUZZ)
@pytest.mark.parametrize("policy", ["act", "vqbet"])
def test_no_third_outcome_of_a_configuration(policy: str, examples: int, tmp_path: Path) -> None:
    path = shutil.copy(Checkpoint.find(policy).folder / "config.json", tmp_path)
    counts = fuzz(Path(path), configuration, save_beside, examples=examples, unnamed="not a configuration of")
    assert min(counts.values()) > examples / 50


@pytest.mark.parametrize("examples", [100, pytest.param(10_000, marks=pytest.mark.slow)])
def test_no_third_outcome_of_a_policy_that_is_made_of_it(folder: Path, examples: int) -> None:
    def read(path: Path) -> str:
        return load_policy(path.parent).name

    fuzz(folder / "config.json", read, examples=examples, unnamed=".*")


@pytest.mark.parametrize("examples", FUZZ)
@pytest.mark.parametrize("name", ["policy_preprocessor.json", "policy_postprocessor.json"])
def test_no_third_outcome_of_processors(folder: Path, name: str, examples: int) -> None:
    config = read_config(folder, "cpu")

    def read(path: Path) -> list[Any]:
        pre, post = load_processors(folder, config, "cpu")
        check_normalisation(config, pre, post, folder, is_pusht=True)
        return (pre if "pre" in name else post).steps

    def write(path: Path, steps: list[Any]) -> None:
        from lerobot.processor import PolicyProcessorPipeline

        PolicyProcessorPipeline(steps, name=path.stem).save_pretrained(folder)

    def are_equal(one: list[Any], other: list[Any]) -> bool:
        return [(type(step), step.get_config()) for step in one] == [
            (type(step), step.get_config()) for step in other
        ]

    fuzz(folder / name, read, write, examples=examples, equal=are_equal)


@pytest.mark.parametrize("examples", FUZZ)
def test_no_third_outcome_of_a_training_record(tmp_path: Path, examples: int) -> None:
    path = shutil.copy(Checkpoint.find("bc").folder / "training.json", tmp_path)
    fuzz(Path(path), lambda path: Checkpoint(path.parent, "mine").data, examples=examples)
