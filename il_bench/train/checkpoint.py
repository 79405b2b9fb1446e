"""Checkpoints of a training run, in LeRobot's layout: whole or not at all, and enough to go on exactly."""

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.optim.optimizers import load_optimizer_state, save_optimizer_state
from safetensors import SafetensorError
from safetensors.torch import load_model, save_model

from il_bench.data import Windows
from il_bench.errors import IlBenchError

PRETRAINED, STATE = "pretrained_model", "training_state"
TRAINING_FILE, PROGRESS_FILE, RAW_WEIGHTS = "training.json", "progress.json", "raw.safetensors"


def describe_data(dataset: LeRobotDataset, name: str, windows: Windows) -> dict[str, Any]:
    """What a policy was trained on: name, size, and a hash of its states and actions."""
    everything = torch.arange(len(windows))
    columns = windows.batch(everything)
    digest = hashlib.sha256()
    for key in ("observation.state", "observation.environment_state", "action"):
        column = columns[key]
        own = column if column.ndim == 2 else column[:, 0]
        digest.update(own.contiguous().numpy().tobytes())
    return {
        "name": name,
        "episodes": dataset.meta.total_episodes,
        "frames": dataset.meta.total_frames,
        "sha256": digest.hexdigest(),
    }


def save(trainer: Any) -> Path:
    """Write ``checkpoints/<step>`` and point ``checkpoints/last`` at it; only the last one is kept."""
    checkpoints: Path = trainer.output / "checkpoints"
    checkpoints.mkdir(parents=True, exist_ok=True)
    final = checkpoints / f"{trainer.step:06d}"
    partial = checkpoints / f".{final.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    save_pretrained(trainer, partial / PRETRAINED)
    _save_state(trainer, partial / STATE)
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


def save_pretrained(trainer: Any, folder: Path) -> None:
    """The averaged policy as a LeRobot ``pretrained_model`` folder; what made it is in ``training.json``."""
    trainer.average.policy.save_pretrained(folder)
    trainer.preprocessor.save_pretrained(folder)
    trainer.postprocessor.save_pretrained(folder)
    (folder / TRAINING_FILE).write_text(json.dumps(_training_facts(trainer), indent=2) + "\n")


def _training_facts(trainer: Any) -> dict[str, Any]:
    return {
        "recipe": trainer.recipe.model_dump(mode="json"),
        "data": trainer.data,
        "seed": trainer.seed,
        "step": trainer.step,
        "core_seconds": round(trainer.core_seconds, 1),
    }


def _save_state(trainer: Any, folder: Path) -> None:
    folder.mkdir(parents=True)
    save_model(trainer.policy, str(folder / RAW_WEIGHTS))
    save_optimizer_state(trainer.optimizer, folder)
    progress = {
        **_training_facts(trainer),
        "seconds": trainer.seconds,
        "core_seconds": trainer.core_seconds,
        "data_seconds": trainer.data_seconds,
        "ema_updates": trainer.average.n_updates,
    }
    (folder / PROGRESS_FILE).write_text(json.dumps(progress, indent=2) + "\n")


def exists(output: Path) -> bool:
    """Whether ``output`` holds a checkpoint to go on from."""
    return (output / "checkpoints" / "last" / STATE / PROGRESS_FILE).exists()


def restore(trainer: Any) -> None:
    """Put ``trainer`` where its output folder's last checkpoint left off.

    Raises:
        IlBenchError: when that run had another recipe, seed or data, or its files are damaged.
    """
    last = trainer.output / "checkpoints" / "last"
    try:
        progress = json.loads((last / STATE / PROGRESS_FILE).read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise IlBenchError(f"{last / STATE / PROGRESS_FILE}: cannot go on from here ({error}).") from None
    facts = _training_facts(trainer)
    for field in ("recipe", "seed", "data"):
        if progress[field] != facts[field]:
            difference = _difference(progress[field], facts[field])
            raise IlBenchError(
                f"{trainer.output}: was trained with another {field} ({difference}). "
                "Give another --output, or the same settings again."
            )
    try:
        load_model(trainer.policy, str(last / STATE / RAW_WEIGHTS))
        load_model(trainer.average.policy, str(last / PRETRAINED / "model.safetensors"))
        load_optimizer_state(trainer.optimizer, last / STATE)
    except (OSError, SafetensorError, RuntimeError) as error:
        raise IlBenchError(
            f"{last}: the checkpoint is damaged ({error}); delete it and train again."
        ) from None
    trainer.step, trainer.seconds = progress["step"], progress["seconds"]
    trainer.core_seconds = progress["core_seconds"]
    trainer.data_seconds, trainer.average.n_updates = progress["data_seconds"], progress["ema_updates"]


def _difference(before: Any, now: Any) -> str:
    if isinstance(before, dict) and isinstance(now, dict):
        keys = [key for key in {**before, **now} if before.get(key) != now.get(key)]
        return "; ".join(f"{key}: {_difference(before.get(key), now.get(key))}" for key in keys)
    return f"{before!r} then, {now!r} now"
