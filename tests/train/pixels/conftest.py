"""An eye after two steps, and an eye's view of the smallest demonstrations."""

from pathlib import Path

import pytest

from il_bench.train.pixels.eye_training import EyeTrainer, load_recipe


def new_eye(output: Path, seed: int = 3) -> EyeTrainer:
    return EyeTrainer(load_recipe(steps=4, batch_size=4), seed=seed, output=output)


@pytest.fixture(scope="package")
def eye_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an eye's run that was stopped after two of four steps."""
    trainer = new_eye(tmp_path_factory.mktemp("eye"))
    trainer.train_step(), trainer.train_step()
    trainer.save()
    return trainer.output
