"""Nothing of a checkpoint is run: no pickle, no module that its files name, no code from the Hub."""

import pickle
import sys
from pathlib import Path
from typing import Any

import pytest

from il_bench.errors import IlBenchError
from il_bench.policies.checkpoint import load_policy

from .conftest import edited


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
        with pytest.raises(IlBenchError, match=rf"{name}: a pickle, which can run anything when it is read"):
            load_policy(spec)
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
    lines = ["from pathlib import Path", "from lerobot.processor import IdentityProcessorStep as Step"]
    source = "\n".join([*lines, f"Path({str(mark)!r}).touch()"])
    (tmp_path / "evil_steps.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    return mark


@pytest.mark.parametrize("name", ["policy_preprocessor.json", "policy_postprocessor.json"])
def test_a_module_that_a_step_names_is_not_imported(folder: Path, evil: Path, name: str) -> None:
    step = {"class": "evil_steps.Step", "config": {}}
    with pytest.raises(
        IlBenchError, match=rf"{name}: steps\.\d: evil_steps.Step is no step of .* neither imported nor run"
    ):
        load_policy(with_step(folder, step, name))
    assert not evil.exists() and "evil_steps" not in sys.modules


@pytest.mark.parametrize(
    ("step", "said"),
    [
        ({"class": "os.system", "config": {"command": "true"}}, "os.system is no step of"),
        (
            {"class": "lerobot.scripts.lerobot_train.main"},
            "lerobot_train.main is no step of lerobot.processor",
        ),
        ({"class": "lerobot.processor.factory.make_default_processors"}, "is no ProcessorStep of LeRobot's"),
        (
            {"class": "lerobot.processor.RewardClassifierProcessorStep"},
            "RewardClassifierProcessorStep is no step of",
        ),
        ({"registry_name": "reward_classifier_processor"}, "reward_classifier_processor is no step of"),
        ({"registry_name": "warp_drive"}, "'warp_drive': no package installed here has such a step"),
        ({"registry_name": "action_tokenizer_processor"}, "trust_remote_code is true"),
        (
            {"registry_name": "tokenizer_processor", "config": {"trust_remote_code": True}},
            "trust_remote_code is true",
        ),
        (
            {"registry_name": "to_batch_processor", "state_file": "../x.safetensors"},
            "state_file '../x.safetensors'",
        ),
        (
            {"registry_name": "to_batch_processor", "state_file": "state.pt"},
            "state_file 'state.pt' is no .safetensors",
        ),
        ({}, " is no step of"),
    ],
    ids=lambda value: str(next(iter(value.values()), "")) if isinstance(value, dict) else "",
)
def test_a_step_that_could_run_something_is_named(folder: Path, step: dict[str, Any], said: str) -> None:
    with pytest.raises(IlBenchError) as raised:
        load_policy(with_step(folder, step))
    assert said in str(raised.value) and "policy_preprocessor.json: steps.4" in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("content", ["{", "[]", '{"steps": 3}', '{"steps": ["a"]}'])
def test_processors_that_are_none_are_named(folder: Path, content: str) -> None:
    (folder / "policy_postprocessor.json").write_text(content)
    with pytest.raises(
        IlBenchError, match=r"policy_postprocessor.json: (not readable as JSON|steps is no list|holds list)"
    ):
        load_policy(folder)


def test_a_step_with_settings_of_another_lerobot_is_one_line(folder: Path) -> None:
    step = {"registry_name": "rename_observations_processor", "config": {"moons": 2}}
    with pytest.raises(IlBenchError, match=r"do not make processors in this LeRobot: .*moons") as raised:
        load_policy(with_step(folder, step))
    assert "\n" not in str(raised.value)
