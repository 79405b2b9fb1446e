"""``il-bench train eye``: a run from its options."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from il_bench.errors import IlBenchError, wrong_field
from il_bench.files import given_path, writing
from il_bench.train import TrainOptions
from il_bench.train.pixels.eye_training import LAST, EyeTrainer, load_recipe


def train_eye(options: TrainOptions, say: Callable[[str], object]) -> bool:
    """Train an eye, or go on; False if it was interrupted. Raises IlBenchError where options do not fit."""
    if options.output is None:
        raise IlBenchError("--output is missing; `il-bench train --help` says what it takes.")
    output = given_path(options.output)
    if (output / LAST).exists() != options.resume:
        state = "already holds an eye; add --resume, or" if not options.resume else "holds no eye to resume;"
        raise IlBenchError(f"{output}: {state} give another --output.")
    given = options.given_as({"steps": "steps", "batch_size": "batch_size"})
    try:
        recipe = load_recipe(**given)
    except ValidationError as error:
        raise IlBenchError(f"recipes/eye.toml: {wrong_field(error)}.") from None
    trainer = EyeTrainer(recipe, seed=1 if options.seed is None else options.seed, output=output)
    if options.resume:
        trainer.restore()

    def on_progress(line: dict[str, Any]) -> None:
        _append(output / "log.jsonl", line)
        if "loss" in line:
            say(f"{line['images']:,} images, loss {line['loss']:.5f}, {line['cpu_s']} s of processor time")
        else:
            near = line["validation"]["feature"]["near"]
            say(f"{line['images']:,} images: near the goal {near[0]} px median, {near[2]} px 99 %")

    return trainer.run(on_progress)


def _append(path: Path, line: dict[str, Any]) -> None:
    with writing(path, "make room and give the same command with --resume"):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
