"""Recipes for images: everything pinned, so that another default of LeRobot's changes nothing."""

import dataclasses
import enum
import shlex
from typing import Any

import draccus
import pytest
from lerobot.configs import PreTrainedConfig

from il_bench.errors import IlBenchError
from il_bench.train import recipes
from il_bench.train.lerobot import flags as lerobot_flags
from il_bench.train.lerobot.command_line import NOT_PINNED, from_recipe, from_words

POLICIES = ("act", "bc", "bet", "diffusion", "vqbet")
RUN = {"dataset.repo_id": "local/pusht", "policy.device": "cpu", "seed": "1", "output_dir": "runs/x"}


def other(value: Any) -> Any:
    """Another value of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, enum.Enum):
        return next(each for each in type(value) if each is not value)
    if isinstance(value, int | float):
        return value * 3 + 1
    if isinstance(value, str):
        return value + "x"
    if isinstance(value, tuple):
        return tuple(other(each) for each in value)
    if isinstance(value, dict):
        return {key: other(each) for key, each in value.items()}
    return value


def with_other_defaults(config: type) -> type:
    """The configuration class of a LeRobot whose every default is another."""
    fields = [
        (field.name, field.type, dataclasses.field(default_factory=lambda value=value: other(value)))
        for field in dataclasses.fields(config)
        if field.name not in NOT_PINNED
        for value in [lerobot_flags._default(field)]
    ]
    return dataclasses.make_dataclass(config.__name__, fields, bases=(config,))


@pytest.mark.parametrize("policy", POLICIES)
def test_every_field_is_pinned_so_another_default_of_lerobots_does_not_change_the_recipe(
    policy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = from_recipe(recipes.load_pixels(policy), RUN, [])
    assert tuple(recipes.names("pixels")) == POLICIES
    assert line.notes == []  # a field that the recipe does not know would be named
    fields = lerobot_flags.policy_fields(line.flags["policy.type"])
    assert {f"policy.{name}" for name in fields if name not in NOT_PINNED} <= line.flags.keys()
    before = draccus.encode(lerobot_flags.read(line.flags).policy)
    policy_type = line.flags["policy.type"]
    changed = with_other_defaults(PreTrainedConfig.get_choice_class(policy_type))
    monkeypatch.setitem(PreTrainedConfig._choice_registry, policy_type, changed)
    after = lerobot_flags.read(line.flags).policy
    assert type(after) is changed
    assert draccus.encode(after) == before


def test_a_setting_that_the_recipe_does_not_know_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    base = PreTrainedConfig.get_choice_class("vqbet")
    newer = dataclasses.make_dataclass("Newer", [("mixup", float, 0.5)], bases=(base,))
    monkeypatch.setitem(PreTrainedConfig._choice_registry, "vqbet", newer)
    assert "mixup is 0.5" in from_recipe(recipes.load_pixels("vqbet"), RUN, []).notes[0]


def test_another_optimizer_of_lerobots_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    config = PreTrainedConfig.get_choice_class("vqbet")
    preset = config.get_optimizer_preset
    monkeypatch.setattr(
        config, "get_optimizer_preset", lambda self: dataclasses.replace(preset(self), grad_clip_norm=1.0)
    )
    with pytest.raises(IlBenchError, match=r"preset.optimizer.*grad_clip_norm was 10.0, is 1.0"):
        from_recipe(recipes.load_pixels("vqbet"), RUN, [])


@pytest.mark.parametrize("policy", ["vqbet", "diffusion"])
def test_the_published_recipe_is_lerobots_of_0_4_4(policy: str) -> None:
    line = from_words(shlex.split(f"--policy.type={policy} --dataset.repo_id=a/b --policy.device=cpu"), {})
    assert draccus.encode(lerobot_flags.read(line.flags).policy) == draccus.encode(
        lerobot_flags.read(from_recipe(recipes.load_pixels(policy), RUN, []).flags).policy
    )


def test_flags_after_the_recipe_and_il_benchs_options_win() -> None:
    recipe = recipes.load_pixels("act", {"steps": 7, "batch_size": 3, "save_freq": 2, "env_eval_freq": 0})
    line = from_recipe(recipe, RUN, ["--policy.n_action_steps=8", "--num_workers=0"])
    config = lerobot_flags.read(line.flags)
    assert (config.policy.n_action_steps, config.num_workers) == (8, 0)
    assert (config.steps, config.batch_size, config.save_freq, config.env_eval_freq) == (7, 3, 2, 0)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"policy": {"type": "vqbet"}, "train": {"steps": 0}}, "train.steps"),
        ({"policy": {"type": "vqbet"}}, "train.steps: Field required"),
        ({"policy": {"type": "vqbet"}, "train": 3}, "mine.toml: train = 3: Input should be"),
    ],
)
def test_a_recipe_that_does_not_hold_together_is_named(data: dict[str, Any], message: str) -> None:
    with pytest.raises(IlBenchError, match=message):
        recipes.parse(recipes.PixelRecipe, data, "mine.toml")
