"""Train the eye, from nothing, on scenes drawn on the spot; batch k depends on the seed and k alone.

The output folder holds ``eye.safetensors`` (16 bits, the average of the weights), ``training.json``,
``log.jsonl`` and, to go on from, ``last.pt``.
"""

import hashlib
import json
import math
import time
import tomllib
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import smooth_l1_loss

from il_bench.errors import IlBenchError
from il_bench.files import write_whole, writing
from il_bench.machine import differences, one_thread
from il_bench.train.loop import asked_to_stop
from il_bench.train.pixels.eye import Eye, new_eye, save_eye
from il_bench.train.pixels.scenes import (
    AGENT,
    KEYPOINTS,
    N_TARGETS,
    SHORT_WAVES,
    Scenes,
    distance_to_goal,
    targets,
    to_tensor,
)
from il_bench.train.recipes import HERE, RecipePart, Whole

EYE_FILE, LAST = "eye.safetensors", "last.pt"
VALIDATE_EVERY = 500  # steps
LOG_EVERY = 100
_VALIDATION_SEED = 99_000  # of scenes, not of start states
_BINS = (0, 5, 15, 40, 100, math.inf)  # px, distance to the goal


class EyeRecipe(RecipePart):
    """How the eye is trained: ``recipes/eye.toml``."""

    steps: Whole = Field(gt=0)
    batch_size: Whole = Field(gt=1)
    lr: float = Field(gt=0)
    weight_decay: float = Field(ge=0)
    warmup_steps: Whole = Field(ge=1)
    grad_clip_norm: float = Field(gt=0)
    ema_decay: float = Field(ge=0, lt=1)
    smooth_l1_beta: float = Field(gt=0)
    batch_norm_momentum: float = Field(gt=0, lt=1)
    batch_norm_fixed_from: float = Field(ge=0, le=1)

    def lr_at(self, step: int) -> float:
        """Linear warm-up, below a cosine that ends at 0."""
        done = step / self.steps
        return self.lr * min((step + 1) / self.warmup_steps, 0.5 * (1 + math.cos(math.pi * done)))


def load_recipe(**overrides: Any) -> EyeRecipe:
    """The shipped recipe, with ``overrides``."""
    return EyeRecipe.model_validate({**tomllib.loads((HERE / "eye.toml").read_text()), **overrides})


def _weights() -> Tensor:
    """Of each target in the loss: keypoints and agent 1/16, the others 0.25 together, short waves nothing."""
    weights = torch.full((N_TARGETS,), 0.25 / (N_TARGETS - 18 - 16))
    weights[AGENT] = weights[KEYPOINTS] = 1 / 16
    for waves in SHORT_WAVES:
        weights[waves] = 0
    return weights


_WEIGHTS = _weights()


class EyeTrainer:
    """A run at some step. Random numbers come from ``seed`` and the step's number alone."""

    def __init__(self, recipe: EyeRecipe, *, seed: int, output: Path) -> None:
        self.recipe, self.seed, self.output = recipe, seed, output
        torch.manual_seed(seed)
        self.eye = new_eye()
        for module in _batch_norms(self.eye):
            module.momentum = recipe.batch_norm_momentum
        self.average = new_eye().eval().requires_grad_(False)
        self.average.load_state_dict(self.eye.state_dict())
        self._averaged, self._current = (
            [tensor for tensor in eye.state_dict().values() if tensor.is_floating_point()]
            for eye in (self.average, self.eye)
        )
        self.optimizer = torch.optim.AdamW(
            self.eye.parameters(), recipe.lr, weight_decay=recipe.weight_decay, fused=True
        )
        self._scenes = Scenes()
        self.step, self.core_seconds = 0, 0.0

    def run(self, on_progress: Callable[[dict[str, Any]], None]) -> bool:
        """Train to the end. On Ctrl-C or SIGTERM, finish the step, save, and return False."""
        if self.step == self.recipe.steps:
            return True
        validation, losses = Validation(), []
        with asked_to_stop() as interrupted, one_thread():
            while self.step < self.recipe.steps and not interrupted():
                losses.append(self.train_step())
                if self.step % LOG_EVERY == 0:
                    on_progress(self._note(loss=round(float(np.mean(losses)), 5)))
                    losses = []
                if self.step % VALIDATE_EVERY == 0 or self.step == self.recipe.steps:
                    on_progress(self._note(validation=validation(self.average)))
                    self.save()
        self.save()
        return self.step == self.recipe.steps

    def train_step(self) -> float:
        """Draw a batch, take one optimizer step, and return the loss."""
        started, recipe = time.process_time(), self.recipe
        self.eye.train()
        if self.step >= int(recipe.batch_norm_fixed_from * recipe.steps):
            for module in _batch_norms(self.eye):
                module.eval()
        rng = np.random.default_rng([self.seed, self.step])
        images, agents, poses = self._scenes.batch(rng, recipe.batch_size)
        wanted = targets(agents, poses)
        feature, flat = self.eye(to_tensor(images), bfloat16=True)
        loss = self._loss(feature, wanted) + self._loss(flat, wanted)
        for group in self.optimizer.param_groups:
            group["lr"] = recipe.lr_at(self.step)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.eye.parameters(), recipe.grad_clip_norm)
        self.optimizer.step()
        self.step += 1
        with torch.no_grad():
            weight = 1 - min(recipe.ema_decay, self.step / (self.step + 10))
            torch._foreach_lerp_(self._averaged, self._current, weight)
        self.core_seconds += time.process_time() - started
        if not math.isfinite(value := loss.item()):
            raise IlBenchError(f"step {self.step}: the eye's loss is {value}; lower lr in its recipe.")
        return value

    def save(self) -> None:
        """Write the eye as it is, what made it, and what is needed to go on."""
        last = {
            "eye": self.eye.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "core_seconds": self.core_seconds,
            "made_by": self._made_by(),
        }
        with writing(self.output, "make room and give the same command with --resume"):
            self.output.mkdir(parents=True, exist_ok=True)
            for name, write in (
                (EYE_FILE, lambda to: save_eye(self.average, to)),
                (LAST, self._saving(last)),
            ):
                partial = self.output / f".{name}"
                write(partial)
                partial.replace(self.output / name)
            sha256 = hashlib.sha256((self.output / EYE_FILE).read_bytes()).hexdigest()
            facts = {**self._made_by(), "step": self.step, "core_seconds": round(self.core_seconds, 1)}
            text = json.dumps({**facts, "sha256": sha256}, indent=2) + "\n"
            write_whole(self.output / "training.json", text.encode())

    @staticmethod
    def _saving(last: dict[str, Any]) -> Callable[[Path], None]:
        return lambda to: torch.save(last, to)

    def restore(self) -> None:
        """Go on from ``last.pt``; IlBenchError if it is missing or damaged, or had another recipe or seed."""
        path = self.output / LAST
        try:
            last = torch.load(path, weights_only=True)
            made_by = last["made_by"]
            if changed := differences(made_by, self._made_by()):
                raise IlBenchError(
                    f"{path}: was trained with other settings ({'; '.join(changed)}). Give another --output."
                )
            self.eye.load_state_dict(last["eye"])
            self.average.load_state_dict(last["average"])
            self.optimizer.load_state_dict(last["optimizer"])
            self.step, self.core_seconds = last["step"], last["core_seconds"]
        except FileNotFoundError:
            raise IlBenchError(f"{path}: nothing to resume; leave --resume out to start.") from None
        except (OSError, RuntimeError, ValueError, LookupError, TypeError, EOFError) as error:
            raise IlBenchError(f"{path}: is damaged ({error}); remove it and train again.") from None

    def _made_by(self) -> dict[str, Any]:
        return {"recipe": self.recipe.model_dump(mode="json"), "seed": self.seed}

    def _loss(self, said: Tensor, wanted: Tensor) -> Tensor:
        loss = smooth_l1_loss(said, wanted, beta=self.recipe.smooth_l1_beta, reduction="none")
        return (loss * _WEIGHTS).sum(1).mean()

    def _note(self, **what: Any) -> dict[str, Any]:
        images = self.step * self.recipe.batch_size
        return {**what, "images": images, "cpu_s": round(self.core_seconds)}


def _batch_norms(eye: nn.Module) -> list[nn.BatchNorm2d]:
    return [module for module in eye.modules() if isinstance(module, nn.BatchNorm2d)]


class Validation:
    """The eye's errors on fixed scenes, half of them near the goal."""

    def __init__(self, n: int = 2000) -> None:
        self._images, agents, poses = Scenes().batch(np.random.default_rng([_VALIDATION_SEED, 0]), n)
        self._targets = targets(agents, poses)
        self._distance = distance_to_goal(poses)
        self._near = np.arange(n) >= n // 2

    @torch.no_grad()
    def __call__(self, eye: Eye, bfloat16: bool = True) -> dict[str, Any]:
        """For ``feature`` and ``flat`` map: median, 90 % and 99 % of an image's error in px.

        An image's error is the root mean square, over the corners, of how far they are told from their place.
        """
        n = len(self._images)
        said = [eye(to_tensor(self._images[i : i + 100]), bfloat16) for i in range(0, n, 100)]
        feature, flat = (torch.cat(parts) for parts in zip(*said, strict=True))
        return {"feature": self._errors(feature), "flat": self._errors(flat)}

    def _errors(self, said: Tensor) -> dict[str, Any]:
        apart = (said - self._targets)[:, KEYPOINTS].unflatten(1, (8, 2)) * 256
        errors = apart.square().sum(-1).mean(-1).sqrt().numpy()
        agent = (said - self._targets)[:, AGENT].square().sum(1).sqrt().numpy() * 256
        by_distance = {}
        for low, high in pairwise(_BINS):
            inside = (self._distance >= low) & (self._distance < high)
            if inside.any():
                by_distance[f"{low:g}-{high:g}"] = [*_quantiles(errors[inside]), int(inside.sum())]
        return {
            "near": _quantiles(errors[self._near]),
            "all": _quantiles(errors),
            "by_distance": by_distance,
            "agent_px": _quantiles(agent),
        }


def _quantiles(errors: NDArray[np.floating]) -> list[float]:
    return [round(float(q), 3) for q in np.quantile(errors, (0.5, 0.9, 0.99))]
