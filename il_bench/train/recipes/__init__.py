"""Every hyperparameter of every policy and track, as data: ``recipes/<track>/<policy>.toml``.

Those of keypoints are for il_bench's own training loop, those of pixels (``pixel_recipe.py``) for
LeRobot's.
"""

import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from il_bench.errors import IlBenchError, wrong_field
from il_bench.train.recipes import pixel_recipe


class Training(BaseModel):
    """How a policy is trained, whatever it is."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    steps: int = Field(gt=0)
    batch_size: int = Field(gt=0)
    lr: float = Field(gt=0)
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = Field(default=1e-4, ge=0)
    warmup_steps: int = Field(default=500, ge=0, description="linear rise of the learning rate, in steps")
    final_lr_fraction: float = Field(
        default=0.0, ge=0, le=1, description="where the cosine ends, as a share of lr"
    )
    cosine_steps: int | None = Field(default=None, gt=0, description="length of the cosine; None: steps")
    cooldown_steps: int = Field(
        default=0, ge=0, description="the last steps, over which lr falls to 0 in a straight line besides"
    )
    grad_clip_norm: float = Field(default=10.0, gt=0)
    ema_decay: float = Field(default=0.999, ge=0, lt=1)
    autocast: Literal["float32", "bfloat16"] = "float32"

    @model_validator(mode="after")
    def _cosine_covers_the_run(self) -> "Training":
        if self.cosine_steps is not None and self.cosine_steps < self.steps:
            raise ValueError(
                f"cosine_steps {self.cosine_steps} is less than steps {self.steps}: lr would rise again"
            )
        return self


class Processing(BaseModel):
    """What stands between PushT and the policy besides LeRobot's normalisation: pusht_features.py."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    pusht_features: bool = Field(default=False, description="show what the keypoints say besides their px")
    relative_actions: bool = Field(default=False, description="actions relative to the agent's last place")


class Recipe(BaseModel):
    """One policy on one track. ``policy`` holds LeRobot's configuration, ``type`` among its fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    policy: dict[str, Any]
    training: Training
    processing: Processing = Processing()

    @model_validator(mode="after")
    def _predicts_at_every_step(self) -> "Recipe":
        n_action_steps = self.policy.get("n_action_steps")
        if self.processing.relative_actions and n_action_steps != 1:
            raise ValueError(
                f"relative_actions needs n_action_steps = 1 under [policy], not {n_action_steps}: "
                "a later action of a chunk would be added to a place the agent has left"
            )
        return self


def names(track: str) -> list[str]:
    """Policies that have a recipe for ``track``."""
    folder = files(__name__) / track
    if not folder.is_dir():
        return []
    return sorted(f.name.removesuffix(".toml") for f in folder.iterdir() if f.name.endswith(".toml"))


def load(policy: str, track: str, overrides: dict[str, Any] | None = None) -> Recipe:
    """The recipe of ``policy`` on ``track``, with fields of ``[training]`` replaced by ``overrides``.

    Args:
        policy: a policy's name, or the path of a recipe, which ends in ``.toml``.

    Raises:
        IlBenchError: for a policy or track without a recipe; a file that cannot be read; a field that is
            unknown or out of bounds.
    """
    data, source = _find(policy, track)
    return parse(data, source, overrides)


def load_pixels(policy: str, overrides: dict[str, Any] | None = None) -> pixel_recipe.PixelRecipe:
    """The recipe of ``policy`` on images, with fields of ``[train]`` replaced by ``overrides``.

    Raises:
        IlBenchError: as ``load``.
    """
    data, source = _find(policy, pixel_recipe.TRACK)
    return pixel_recipe.parse(data, source, overrides or {})


def _find(policy: str, track: str) -> tuple[dict[str, Any], str]:
    """What the recipe of ``policy`` says, and what errors call it."""
    if policy.endswith(".toml"):
        return _read(Path(policy)), policy
    known = names(track)
    if policy not in known:
        raise IlBenchError(
            f"There is no recipe for policy {policy!r} on track {track!r}; "
            + (
                f"there is one for {', '.join(known)}; your own is a file that ends in .toml."
                if known
                else "the tracks with recipes are: keypoints, pixels."
            )
        )
    source = f"recipes/{track}/{policy}.toml"
    return tomllib.loads((files(__name__) / track / f"{policy}.toml").read_text()), source


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise IlBenchError(f"{path}: cannot be read ({error.strerror}); give a recipe's path.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise IlBenchError(
            f"{path}: is no TOML ({error}); il_bench/train/recipes/ shows what one holds."
        ) from None


def parse(data: dict[str, Any], source: str, overrides: dict[str, Any] | None = None) -> Recipe:
    """A recipe out of ``data``, ``[training]`` changed by ``overrides``; ``source`` names it in errors.

    Raises:
        IlBenchError: for a field that is missing, unknown or out of bounds.
    """
    try:
        return Recipe.model_validate(pixel_recipe.changed(data, "training", overrides or {}))
    except ValidationError as error:
        raise IlBenchError(f"{source}: {wrong_field(error)}.") from None
