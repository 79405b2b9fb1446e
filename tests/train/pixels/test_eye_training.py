"""The eye's training: resumed to the same bits, and refused where it would not be the same run."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from il_bench.errors import IlBenchError
from il_bench.train.pixels.eye import load_eye
from il_bench.train.pixels.eye_training import EYE_FILE, LAST, Validation, load_recipe
from tests.train.pixels.conftest import new_eye


def test_a_resumed_eye_is_the_uninterrupted_one_to_the_bit(eye_run: Path, tmp_path: Path) -> None:
    straight, resumed = new_eye(tmp_path), new_eye(eye_run)
    resumed.restore()
    assert resumed.step == 2
    for trainer, steps in ((straight, 4), (resumed, 2)):
        for _ in range(steps):
            trainer.train_step()
    for name, tensor in straight.average.state_dict().items():
        assert torch.equal(tensor, resumed.average.state_dict()[name]), name
    assert straight.eye.backbone[1].training is False  # batch norm keeps its statistics at the end


def test_the_file_holds_16_bits_and_brings_back_the_eye(eye_run: Path) -> None:
    state = load_file(eye_run / EYE_FILE)
    assert not any(name.startswith("probe.") for name in state)
    assert state["backbone.0.weight"].dtype == torch.float16
    assert state["backbone.1.running_var"].dtype == torch.float32
    eye = load_eye(eye_run / EYE_FILE)
    assert torch.equal(eye.backbone[0].weight, state["backbone.0.weight"].float())


@pytest.mark.parametrize("damage", ["other seed", "half a file"])
def test_another_run_or_a_damaged_file_is_refused(eye_run: Path, tmp_path: Path, damage: str) -> None:
    whole = (eye_run / LAST).read_bytes()
    (tmp_path / LAST).write_bytes(whole if damage == "other seed" else whole[: len(whole) // 2])
    trainer = new_eye(tmp_path, seed=4 if damage == "other seed" else 3)
    with pytest.raises(IlBenchError, match=r"seed" if damage == "other seed" else "damaged"):
        trainer.restore()


def test_what_is_no_eye_is_refused(tmp_path: Path) -> None:
    (tmp_path / EYE_FILE).write_bytes(b"no weights")
    for path in (tmp_path / EYE_FILE, tmp_path / "nothing"):
        with pytest.raises(IlBenchError, match="il-bench train eye"):
            load_eye(path)


def test_errors_are_told_by_distance(eye_run: Path) -> None:
    errors = Validation(40)(load_eye(eye_run / EYE_FILE), bfloat16=False)
    median, high, highest = errors["feature"]["near"]
    assert 0 < median <= high <= highest
    assert sum(row[-1] for row in errors["feature"]["by_distance"].values()) == 40


def test_the_learning_rate_warms_up_and_ends_at_zero() -> None:
    recipe = load_recipe()
    assert recipe.lr_at(0) == pytest.approx(recipe.lr / 200)
    assert recipe.lr_at(recipe.steps) == pytest.approx(0, abs=1e-12)
