"""Every hyperparameter of every policy and track, as data: ``recipes/<track>/<policy>.toml``.

A ``Recipe``, on keypoints, is for il_bench's own training loop. A ``PixelRecipe`` lists flags for LeRobot's
trainer, with the optimizer and learning rate that LeRobot should derive from them.
"""

import difflib
import json
import math
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from draccus.utils import flatten
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    model_validator,
)

from il_bench.errors import IlBenchError, wrong_field
from il_bench.files import read_whole
from il_bench.protocol import PIXELS, TRACKS

HERE = Path(__file__).parent


# TOML writes 100000 also as 1e5, which is a float there.
Whole = Annotated[int, BeforeValidator(lambda given: int(given) if _is_whole(given) else given)]
Beta = Annotated[float, Field(ge=0, lt=1, strict=True)]


def _is_whole(given: Any) -> bool:
    return isinstance(given, float) and given.is_integer()


class RecipePart(BaseModel):
    """A table of a recipe; an unknown field is an error, and so is a number that is not finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Training(RecipePart):
    """How a policy is trained, whatever its type."""

    steps: Whole = Field(gt=0)
    batch_size: Whole = Field(gt=0)
    lr: float = Field(gt=0)
    betas: Annotated[tuple[Beta, Beta], Field(strict=False)] = (0.9, 0.999)
    weight_decay: float = Field(default=1e-4, ge=0)
    warmup_steps: Whole = Field(default=500, ge=0, description="linear rise of the learning rate, in steps")
    final_lr_fraction: float = Field(
        default=0.0, ge=0, le=1, description="where the cosine ends, as a share of lr"
    )
    cosine_steps: Whole | None = Field(default=None, gt=0, description="length of the cosine; None: steps")
    cooldown_steps: Whole = Field(
        default=0, ge=0, description="the last steps, over which lr falls to 0 in a straight line besides"
    )
    grad_clip_norm: float = Field(default=10.0, gt=0)
    ema_decay: float = Field(default=0.999, ge=0, lt=1)
    autocast: Literal["float32", "bfloat16"] = "float32"

    @model_validator(mode="after")
    def _cosine_covers_the_run(self) -> Self:
        if self.cosine_steps is not None and self.cosine_steps < self.steps:
            raise ValueError(
                f"cosine_steps {self.cosine_steps} is less than steps {self.steps}: lr would rise again"
            )
        return self

    def lr_factor(self, step: int, residual_vq_steps: int = 0) -> float:
        """Share of lr at ``step``: warm-up, cosine, cooldown; 1 before, while VQ-BeT's residual VQ trains."""
        step = min(step, self.steps)
        if step < residual_vq_steps:
            return 1.0
        done, length = step - residual_vq_steps, (self.cosine_steps or self.steps) - residual_vq_steps
        warmup = min(1.0, (done + 1) / max(1, self.warmup_steps))
        cosine = 0.5 * (1 + math.cos(math.pi * done / length))
        final = self.final_lr_fraction
        cooldown = min(1.0, (self.steps - step) / max(1, self.cooldown_steps))
        return warmup * cooldown * (final + (1 - final) * cosine)


class Processing(RecipePart):
    """Processing steps besides LeRobot's normalisation: pusht_features.py."""

    pusht_features: bool = Field(default=False, description="add features computed from the keypoints")
    relative_actions: bool = Field(
        default=False, description="each action relative to the agent's place at the same step"
    )


class Recipe(RecipePart):
    """One policy on one track. ``policy`` holds LeRobot's configuration, including its ``type``."""

    SCHEDULE: ClassVar = "training"
    policy: dict[str, Any]
    training: Training
    processing: Processing = Processing()
    _source: str = PrivateAttr("the recipe")

    @property
    def source(self) -> str:
        """What errors call the recipe: its file."""
        return self._source


class Preset(RecipePart):
    """The optimizer and scheduler that LeRobot's policy configuration should return."""

    optimizer: dict[str, Any]
    scheduler: dict[str, Any] | None = None


class PixelTraining(RecipePart, extra="allow"):
    """Flags of ``lerobot-train`` besides the policy's; il_bench's options override the four declared here."""

    steps: Whole = Field(gt=0)
    batch_size: Whole = Field(gt=0)
    save_freq: Whole = Field(gt=0)
    env_eval_freq: Whole = Field(ge=0)


class PixelRecipe(RecipePart):
    """One policy on images. ``policy`` holds LeRobot's configuration, including its ``type``."""

    SCHEDULE: ClassVar = "train"
    policy: dict[str, Any]
    train: PixelTraining
    preset: Preset

    def flags(self) -> dict[str, str]:
        """The recipe's flags of ``lerobot-train`` by dotted name, as a command line spells them."""
        policy = {f"policy.{name}": spell(value) for name, value in self.policy.items()}
        return policy | {name: spell(value) for name, value in flatten(self.train.model_dump()).items()}


def spell(value: Any) -> str:
    """A value as LeRobot's parser, draccus, reads it from a command line."""
    return value if isinstance(value, str) else json.dumps(value)


def names(track: str) -> list[str]:
    """The policies that have a recipe for ``track``."""
    return sorted(path.stem for path in (HERE / track).glob("*.toml"))


def load(policy: str, track: str, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """The recipe of ``policy``, a policy's name or the path of a .toml file, on ``track``; see ``parse``."""
    return parse(Recipe, *_find(policy, track), overrides)


def load_pixels(policy: str, overrides: Mapping[str, Any] | None = None) -> PixelRecipe:
    """The recipe of ``policy``, a policy's name or the path of a .toml file, on images; see ``parse``."""
    return parse(PixelRecipe, *_find(policy, PIXELS), overrides)


def parse[Kind: (Recipe, PixelRecipe)](
    kind: type[Kind], data: dict[str, Any], source: str, overrides: Mapping[str, Any] | None = None
) -> Kind:
    """A recipe from ``data``, with ``overrides`` of its schedule; ``source`` names it in errors.

    More steps than its cosine has lengthen the cosine.
    Raises IlBenchError for a field that is missing, unknown or out of bounds.
    """
    schedule, overrides = data.get(kind.SCHEDULE, {}), dict(overrides or {})
    if isinstance(schedule, dict):  # otherwise the model says that it is not a table
        cosine, steps = schedule.get("cosine_steps"), overrides.get("steps", 0)
        if isinstance(cosine, int | float) and cosine < steps:
            overrides["cosine_steps"] = steps
        data = {**data, kind.SCHEDULE: {**schedule, **overrides}}
    try:
        recipe = kind.model_validate(data)
    except ValidationError as error:
        raise IlBenchError(f"{source}: {wrong_field(error)}{_nearest(kind, error)}.") from None
    if isinstance(recipe, Recipe):
        recipe._source = source
    return recipe


def _nearest(kind: type[BaseModel], error: ValidationError) -> str:
    """For an unknown field: the field whose name is nearest, of the table that it is in."""
    first = error.errors()[0]
    if first["type"] != "extra_forbidden":
        return ""
    table, name = kind, str(first["loc"][-1])
    for part in first["loc"][:-1]:
        inner = table.model_fields[str(part)].annotation
        table = inner if isinstance(inner, type) and issubclass(inner, BaseModel) else table
    return nearest(name, table.model_fields)


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of a sentence about an unknown name: the nearest among those that there are."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; the nearest is {near[0]}" if near else ""


def check_name(policy: str, track: str) -> None:
    """Raise IlBenchError unless there is such a recipe, or a file of that name is one; say the nearest."""
    _find(policy, track)


def _find(policy: str, track: str) -> tuple[dict[str, Any], str]:
    """The contents of the recipe of ``policy``, and its name for errors."""
    path, source, known = Path(policy), policy, names(track)
    if policy in known:
        source = f"{track}/{policy}.toml"
        path, source = HERE / source, f"recipes/{source}"
    elif not policy.endswith(".toml"):
        near = difflib.get_close_matches(policy, known, n=1)
        others = f"there is one for {', '.join(known)}; a recipe of your own is a .toml file"
        others = f"the nearest is {near[0]}; {others}" if near else others
        raise IlBenchError(
            f"There is no recipe for policy {policy!r} on track {track!r}; "
            + (f"{others}." if known else f"the tracks with recipes are: {', '.join(TRACKS)}.")
        )
    way_out = "give a recipe's path; il_bench/train/recipes/ has examples"
    try:
        text = read_whole(path, way_out).decode()
    except UnicodeDecodeError as error:
        raise IlBenchError(f"{path}: not UTF-8 text (byte {error.start}); {way_out}") from None
    try:
        return tomllib.loads(text), source
    except (ValueError, RecursionError) as error:
        raise IlBenchError(f"{path}: is not valid TOML ({error}{_place(text, error)}); {way_out}") from None


def _place(text: str, error: Exception) -> str:
    """What stands where a TOML file is wrong."""
    found = re.search(r"at line (\d+), column (\d+)", str(error))
    if not found:
        return ""
    line, column = text.splitlines()[int(found[1]) - 1], int(found[2])
    return f", after {line[max(0, column - 60) : column].strip()!r} in the line {line[:40]!r}"
