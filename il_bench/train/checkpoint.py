"""Checkpoints of a training run, in LeRobot's layout: whole or not at all, and enough to go on exactly."""

import json
import os
import shutil
from pathlib import Path
from typing import Any, Protocol

import torch
from draccus.utils import flatten
from lerobot.optim.optimizers import load_optimizer_state, save_optimizer_state
from lerobot.policies.pretrained import PreTrainedPolicy
from lerobot.processor import PolicyProcessorPipeline
from safetensors import SafetensorError
from safetensors.torch import load_model, save_model

from il_bench.errors import IlBenchError
from il_bench.machine import differences
from il_bench.train.optimization import AveragedPolicy
from il_bench.train.recipes import Recipe

PRETRAINED, STATE = "pretrained_model", "training_state"
TRAINING_FILE, PROGRESS_FILE, RAW_WEIGHTS = "training.json", "progress.json", "raw.safetensors"


class TrainingRun(Protocol):
    """What of a run a checkpoint holds, and puts back."""

    output: Path
    recipe: Recipe
    data: dict[str, Any]
    seed: int
    step: int
    seconds: float
    core_seconds: float
    data_seconds: float
    policy: PreTrainedPolicy
    average: AveragedPolicy
    optimizer: torch.optim.AdamW
    preprocessor: PolicyProcessorPipeline
    postprocessor: PolicyProcessorPipeline


def save(run: TrainingRun) -> Path:
    """Write ``checkpoints/<step>`` and point ``checkpoints/last`` at it; only the last one is kept."""
    checkpoints = run.output / "checkpoints"
    checkpoints.mkdir(parents=True, exist_ok=True)
    final = checkpoints / f"{run.step:06d}"
    partial = checkpoints / f".{final.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    save_pretrained(run, partial / PRETRAINED)
    _save_state(run, partial / STATE)
    if final.exists():
        shutil.rmtree(final)
    partial.rename(final)
    link = checkpoints / ".last"
    link.unlink(missing_ok=True)
    link.symlink_to(final.name)
    os.replace(link, checkpoints / "last")
    for old in checkpoints.iterdir():
        if old.is_dir() and not old.is_symlink() and old != final:
            shutil.rmtree(old)
    return final


def save_pretrained(run: TrainingRun, folder: Path) -> None:
    """The averaged policy as a LeRobot ``pretrained_model`` folder; ``training.json`` says what made it."""
    run.average.policy.save_pretrained(folder)
    run.preprocessor.save_pretrained(folder)
    run.postprocessor.save_pretrained(folder)
    facts = {**_settings(run), "step": run.step, "core_seconds": round(run.core_seconds, 1)}
    (folder / TRAINING_FILE).write_text(json.dumps(facts, indent=2) + "\n")


def _settings(run: TrainingRun) -> dict[str, Any]:
    return {"recipe": run.recipe.model_dump(mode="json"), "data": run.data, "seed": run.seed}


def _save_state(run: TrainingRun, folder: Path) -> None:
    folder.mkdir(parents=True)
    save_model(run.policy, str(folder / RAW_WEIGHTS))
    save_optimizer_state(run.optimizer, folder)
    progress = {
        **_settings(run),
        "step": run.step,
        "seconds": run.seconds,
        "core_seconds": run.core_seconds,
        "data_seconds": run.data_seconds,
        "ema_updates": run.average.n_updates,
    }
    (folder / PROGRESS_FILE).write_text(json.dumps(progress, indent=2) + "\n")


def exists(output: Path) -> bool:
    """Whether ``output`` holds a checkpoint to go on from."""
    return (output / "checkpoints" / "last" / STATE / PROGRESS_FILE).exists()


def restore(run: TrainingRun) -> None:
    """Put ``run`` where its output folder's last checkpoint left off.

    Raises:
        IlBenchError: when that run had another recipe, seed or data, or its files are damaged.
    """
    last = run.output / "checkpoints" / "last"
    try:
        progress = json.loads((last / STATE / PROGRESS_FILE).read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise IlBenchError(f"{last / STATE / PROGRESS_FILE}: cannot go on from here ({error}).") from None
    settings = _settings(run)
    changed = differences(flatten({name: progress[name] for name in settings}), flatten(settings))
    if changed:
        raise IlBenchError(
            f"{run.output}: was trained with other settings ({'; '.join(changed)}). "
            "Give another --output, or the same settings again."
        )
    try:
        load_model(run.policy, str(last / STATE / RAW_WEIGHTS))
        load_model(run.average.policy, str(last / PRETRAINED / "model.safetensors"))
        load_optimizer_state(run.optimizer, last / STATE)
    except (OSError, SafetensorError, RuntimeError) as error:
        raise IlBenchError(
            f"{last}: the checkpoint is damaged ({error}); delete it and train again."
        ) from None
    run.step, run.seconds = progress["step"], progress["seconds"]
    run.core_seconds, run.data_seconds = progress["core_seconds"], progress["data_seconds"]
    run.average.n_updates = progress["ema_updates"]
