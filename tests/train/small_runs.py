"""Runs of il_bench's own loop as small as can be: tiny networks, ten steps."""

from pathlib import Path
from typing import Any

import torch

from il_bench.train import recipes
from il_bench.train.loop import Trainer
from il_bench.train.recipes import Recipe

SMALL_GPT = {f"gpt_{name}_dim": 16 for name in ("input", "hidden", "output")}
SMALL_GPT |= {"gpt_n_layer": 1, "gpt_n_head": 2}
SMALL: dict[str, dict[str, Any]] = {
    "bc": {"hidden_dim": 16, "n_layers": 1},
    "bet": {"codebook_size": 4, **SMALL_GPT},
    "vqbet": {"n_vqvae_training_steps": 4, "vqvae_n_embed": 4, "vqvae_embedding_dim": 8, **SMALL_GPT},
    "act": {"dim_model": 16, "n_heads": 2, "dim_feedforward": 16, "n_encoder_layers": 1},
    "diffusion": {"down_dims": [8, 16], "n_groups": 2, "diffusion_step_embed_dim": 8},
}
STEPS = 10


def small_recipe(name: str, steps: int = STEPS, **policy: Any) -> Recipe:
    """The recipe of ``name`` with a tiny network and a short run."""
    recipe = recipes.load(name, "keypoints", {"steps": steps, "batch_size": 16, "warmup_steps": 2})
    return recipe.model_copy(update={"policy": {**recipe.policy, **SMALL[name], **policy}})


def make(name: str, demos: Path, output: Path, seed: int = 1, steps: int = STEPS) -> Trainer:
    return Trainer(small_recipe(name, steps), str(demos), seed=seed, output=output)


def weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    raw = {f"raw.{key}": value for key, value in trainer.policy.state_dict().items()}
    return raw | {f"average.{key}": value for key, value in trainer.average.policy.state_dict().items()}


def run_to(trainer: Trainer, step: int) -> None:
    while trainer.step < step:
        trainer.train_step()


def saved(name: str, demos: Path, output: Path, step: int = 1) -> tuple[Trainer, Path]:
    """A run at ``step``, and the folder of its checkpoint."""
    trainer = make(name, demos, output)
    run_to(trainer, step)
    return trainer, trainer.save()
