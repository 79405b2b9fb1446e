"""Going on with a run of ``lerobot-train`` from its last checkpoint."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import draccus

from il_bench.errors import IlBenchError
from il_bench.train.lerobot import installed
from il_bench.train.lerobot.plan import NOT_PINNED, Plan

LAST = Path("checkpoints") / "last"
CONFIG = LAST / "pretrained_model" / "train_config.json"
STEP = LAST / "training_state" / "training_step.json"
# What a run that goes on has to have in common with what it was, beside the policy's own fields.
SAME = ("steps", "batch_size", "seed", "dataset.repo_id", "dataset.use_imagenet_stats")
# What may differ, and is given again.
FREE = (
    *("output_dir", "policy.device", "dataset.root", "num_workers"),
    *("log_freq", "save_freq", "env_eval_freq", "eval.n_episodes"),
)


def exists(output: Path) -> bool:
    """Whether ``output`` holds a checkpoint of ``lerobot-train`` to go on from."""
    return (output / CONFIG).exists()


def saved_step(output: Path) -> int:
    """Step of the last checkpoint in ``output``; 0 without one.

    Raises:
        IlBenchError: its state is damaged.
    """
    path = output / STEP
    if not path.exists():
        return 0
    try:
        return int(json.loads(path.read_text())["step"])
    except (ValueError, KeyError, TypeError) as error:
        raise IlBenchError(
            f"{path}: cannot go on from here ({error}); delete {path.parent.parent}."
        ) from None


def plan(new: Plan, output: Path) -> Plan:
    """The flags that go on with the run in ``output``, which ``new`` would begin.

    LeRobot 0.6.1 does not save how many steps of VQ-BeT's first phase are done, and begins to count again; so
    the steps that are left are given instead. (The checkpoints of such a run name that number.)

    Raises:
        IlBenchError: that run had other hyperparameters or data; its files are damaged.
    """
    path = output / CONFIG
    try:
        saved = dict(_dotted(json.loads(path.read_text())))
    except (OSError, ValueError) as error:
        raise IlBenchError(f"{path}: cannot go on from here ({error}).") from None
    now = dict(_dotted(draccus.encode(installed.read(new.flags))))
    for name in _compared(now):
        # Of a run interrupted in its first phase twice, the policy's field is what was left.
        before = "scheduler.num_vqvae_training_steps" if name == "policy.n_vqvae_training_steps" else name
        if saved.get(before) != now[name]:
            raise IlBenchError(
                f"{output}: was trained with {name} {saved.get(before)}, not {now[name]}. Give another "
                "--output, or the same settings again."
            )
    flags = {"config_path": str(path), "resume": "true"}
    flags |= {name: new.flags[name] for name in (installed.DISCOVER, *FREE) if name in new.flags}
    if new.first_phase_steps:
        left = new.first_phase_steps - saved_step(output)
        flags["policy.n_vqvae_training_steps"] = str(left if left > 0 else new.first_phase_steps)
    return Plan(flags, new.notes, new.first_phase_steps)


def _compared(config: dict[str, Any]) -> list[str]:
    policy = [name for name in config if name.startswith("policy.")]
    return [*SAME, *(name for name in policy if name.split(".")[1] not in NOT_PINNED)]


def _dotted(data: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in data.items():
        if isinstance(value, dict) and value:
            yield from _dotted(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", list(value) if isinstance(value, tuple) else value
