"""Recipes for images: every flag of ``lerobot-train``, as data in ``recipes/pixels/<policy>.toml``.

LeRobot's own trainer runs them, so a recipe is a list of its flags, and an expectation of the optimizer and
the learning rate that LeRobot derives from them and lets nobody give.
"""

import json
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from il_bench.errors import IlBenchError, wrong_field

TRACK = "pixels"


class Preset(BaseModel):
    """What LeRobot's policy configuration is expected to return for optimizer and learning rate."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    optimizer: dict[str, Any]
    scheduler: dict[str, Any] | None = None


class Schedule(BaseModel):
    """Flags of ``lerobot-train`` beside the policy's; il_bench's options replace those named here."""

    model_config = ConfigDict(extra="allow", frozen=True)

    steps: int = Field(gt=0)
    batch_size: int = Field(gt=0)
    save_freq: int = Field(gt=0)
    env_eval_freq: int = Field(ge=0)


class PixelRecipe(BaseModel):
    """One policy on images: ``policy`` holds LeRobot's configuration, ``type`` among its fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    policy: dict[str, Any]
    train: Schedule
    preset: Preset

    @property
    def first_phase_steps(self) -> int:
        """Steps of VQ-BeT that train its residual VQ alone; 0 of other policies."""
        return int(self.policy.get("n_vqvae_training_steps", 0))

    def flags(self) -> dict[str, str]:
        """Every flag of ``lerobot-train`` that the recipe gives, by dotted name, as a line spells it."""
        policy = {f"policy.{key}": spell(value) for key, value in self.policy.items()}
        return policy | dict(_dotted(self.train.model_dump()))


def parse(data: dict[str, Any], source: str, overrides: dict[str, Any]) -> PixelRecipe:
    """A recipe out of ``data``, ``[train]`` changed by ``overrides``; ``source`` names it in errors.

    Raises:
        IlBenchError: for a field that is missing, unknown or out of bounds.
    """
    try:
        return PixelRecipe.model_validate(changed(data, "train", overrides))
    except ValidationError as error:
        raise IlBenchError(f"{source}: {wrong_field(error)}.") from None


def changed(data: dict[str, Any], table: str, overrides: dict[str, Any]) -> dict[str, Any]:
    """``data`` with ``overrides`` in one of its tables, if that is one: what it is else, the model says."""
    before = data.get(table, {})
    return {**data, table: {**before, **overrides}} if isinstance(before, dict) else data


def spell(value: Any) -> str:
    """A value as draccus, LeRobot's parser, reads it from a command line."""
    return value if isinstance(value, str) else json.dumps(value)


def _dotted(data: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in data.items():
        if isinstance(value, dict):
            yield from _dotted(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", spell(value)
