"""Nothing of a checkpoint is run: no pickle, no module that its files name, no code from the Hub."""

import pickle
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from il_bench.policies.checkpoint import load_policy

from .conftest import edited, refuses


class Bomb:
    """Leaves a file where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return (Path.touch, (self.mark,))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "policy.pt", "model.pth", "policy.pkl", "last.ckpt"])
def test_a_pickle_is_refused_by_name_and_not_read(folder: Path, tmp_path: Path, name: str) -> None:
    (folder / name).write_bytes(pickle.dumps(Bomb(tmp_path / "read")))
    (folder / "model.safetensors").unlink()
    for spec in (folder, folder / name):
        refuses(rf"{name}: a pickle, which can run anything when it is loaded", load_policy, spec)
    assert not (tmp_path / "read").exists()


def test_a_pickle_beside_the_weights_is_not_read(folder: Path, tmp_path: Path) -> None:
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb(tmp_path / "read")))
    assert load_policy(folder).policy.config.type == "act"
    assert not (tmp_path / "read").exists()


def with_step(folder: Path, step: dict[str, Any], name: str = "policy_preprocessor.json") -> Path:
    with edited(folder / name) as said:
        said["steps"].append(step)
    return folder


@pytest.fixture
def evil(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module on the path that leaves a file where it is imported, as LeRobot would do it."""
    mark = tmp_path / "imported"
    step = "from lerobot.processor import IdentityProcessorStep as Step"
    (tmp_path / "evil_steps.py").write_text(f"import pathlib\n{step}\npathlib.Path({str(mark)!r}).touch()")
    monkeypatch.syspath_prepend(str(tmp_path))
    return mark


@pytest.mark.parametrize("name", ["policy_preprocessor.json", "policy_postprocessor.json"])
def test_a_module_that_a_step_names_is_not_imported(folder: Path, evil: Path, name: str) -> None:
    with_step(folder, {"class": "evil_steps.Step", "config": {}}, name)
    refuses(rf"{name}: steps\.\d: evil_steps.Step is not a step of .* neither imported", load_policy, folder)
    assert not evil.exists() and "evil_steps" not in sys.modules


@pytest.mark.parametrize(
    ("step", "said"),
    [
        ({"class": "os.system", "config": {"command": "true"}}, "os.system is not a step of"),
        ({"class": "lerobot.scripts.lerobot_train.main"}, "main is not a step of lerobot.processor"),
        (
            {"class": "lerobot.processor.factory.make_default_processors"},
            "is not one of LeRobot's ProcessorSteps",
        ),
        ({"class": "lerobot.processor.RewardClassifierProcessorStep"}, "ProcessorStep is not a step of"),
        ({"registry_name": "reward_classifier_processor"}, "reward_classifier_processor is not a step of"),
        ({"registry_name": "warp_drive"}, "'warp_drive': no installed package provides this step"),
        ({"registry_name": "action_tokenizer_processor"}, "trust_remote_code is true"),
        ({"registry_name": "tokenizer_processor", "config": {"trust_remote_code": True}}, "code is true"),
        (
            {"registry_name": "to_batch_processor", "state_file": "../x.safetensors"},
            "'../x.safetensors' is",
        ),
        ({"registry_name": "to_batch_processor", "state_file": "state.pt"}, "state_file 'state.pt' is not"),
        ({}, " is not a step of"),
    ],
    ids=lambda value: str(next(iter(value.values()), "")) if isinstance(value, dict) else "",
)
def test_a_step_that_could_run_something_is_named(folder: Path, step: dict[str, Any], said: str) -> None:
    refuses(rf"policy_preprocessor.json: steps\.4.*{re.escape(said)}", load_policy, with_step(folder, step))


@pytest.mark.parametrize("content", ["{", "[]", '{"steps": 3}', '{"steps": ["a"]}'])
def test_processors_that_are_none_are_named(folder: Path, content: str) -> None:
    (folder / "policy_postprocessor.json").write_text(content)
    refuses(r"policy_postprocessor.json: (broken JSON|steps is not a list|holds a list)", load_policy, folder)


def test_a_step_with_settings_of_another_lerobot_is_one_line(folder: Path) -> None:
    step = {"registry_name": "rename_observations_processor", "config": {"moons": 2}}
    refuses(r"do not make processors in this LeRobot: .*moons", load_policy, with_step(folder, step))
