"""A checkpoint becomes a policy: loaded whole, or refused with the file at fault."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import il_bench
from il_bench.policies.checkpoint import Checkpoint, load_policy, wrap
from tests.small_policies import IMAGE, features, raw_observations, save, small_policy

from .conftest import edited, refuses


def act(policy: Any) -> torch.Tensor:
    policy.reset()
    return policy.select_action(raw_observations())


def test_a_folder_a_checkpoint_and_a_run_are_the_same_policy(saved: Path) -> None:
    loaded = [load_policy(folder) for folder in (saved, saved.parent, saved.parents[2])]
    loaded.append(partial(load_policy, str(saved), device="cpu")())  # as workers are sent it
    loaded.append(il_bench.load_policy(saved))  # as users call it
    assert len({policy.sha256 for policy in loaded}) == 1
    assert all(torch.equal(act(policy), act(loaded[0])) for policy in loaded)
    assert act(loaded[0]).shape == (3, 2) and 0 < act(loaded[0]).mean() < 512  # px, not [-1, 1]


def test_the_hash_follows_what_changes_the_policy(saved: Path) -> None:
    def sha256() -> str:
        return Checkpoint.find(saved).sha256

    before = sha256()
    for name in ("training.json", "README.md", "notes.txt"):
        (saved / name).write_text("{}")
    assert sha256() == before
    for path in [*sorted(saved.glob("*.safetensors")), saved / "config.json"]:
        content = path.read_bytes()
        path.write_bytes(content[:-1] + b"\n")
        assert sha256() != before, path.name
        path.write_bytes(content)


def test_each_file_is_read_once(saved: Path) -> None:
    found = Checkpoint.find(saved)
    assert found.config is found.config and found.processors is found.processors
    before = found.config.hidden_dim, found.sha256, found.data
    for path in saved.iterdir():
        path.unlink()
    assert (found.config.hidden_dim, found.sha256, found.data) == before


def test_data_comes_from_the_training_record_if_it_is_ours(saved: Path) -> None:
    assert load_policy(saved).data == "unknown"
    for text in ("{}", '{"data": "human"}', '{"data": {}}', '{"data": {"name": "human"}}'):
        (saved / "training.json").write_text(text)
        assert Checkpoint.find(saved).data == ("human" if "name" in text else "unknown"), text
    assert load_policy(saved).data == "human"


def test_a_policy_in_memory_can_be_wrapped(saved: Path) -> None:
    loaded = load_policy(saved)
    wrapped = wrap(loaded.policy, loaded.preprocessor, loaded.postprocessor, name="mine")
    assert wrapped.sha256 is None and wrapped.track == "keypoints"
    assert torch.equal(act(wrapped), act(loaded))


def test_missing_files_are_named(saved: Path) -> None:
    (saved / "policy_postprocessor.json").unlink()
    refuses(r"policy_postprocessor.json: missing", load_policy, saved)
    (saved / "config.json").unlink()
    refuses(r"holds no config\.json", load_policy, saved)


def test_weights_of_another_network_and_truncated_ones_are_refused(saved: Path) -> None:
    with edited(saved / "config.json") as config:
        config["hidden_dim"] = 32
    refuses(r"model.safetensors: the weights do not fit il_bc", load_policy, saved)
    weights = saved / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-50])
    refuses(r"model.safetensors: cut: [\d,]+ bytes are there of [\d,]+;", load_policy, saved)


def test_the_device_is_the_runs_and_not_the_configurations(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lerobot.configs.policies.is_torch_device_available", lambda device: True)
    with edited(folder / "config.json") as config:
        config["device"] = "cuda"
    loaded = load_policy(folder)
    assert {parameter.device.type for parameter in loaded.policy.parameters()} == {"cpu"}
    assert loaded.select_action(raw_observations()).device.type == "cpu"


def test_a_preprocessor_without_a_device_step_loads(folder: Path) -> None:
    with edited(folder / "policy_preprocessor.json") as said:
        said["steps"] = [step for step in said["steps"] if step["registry_name"] != "device_processor"]
    assert load_policy(folder).select_action(raw_observations()).shape == (3, 2)


def test_statistics_that_are_missing_are_not_passed_over(folder: Path) -> None:
    """LeRobot would give the policy px in their place, without a word."""
    for name, step in (("policy_preprocessor", 3), ("policy_postprocessor", 0)):
        with edited(folder / f"{name}.json") as said:
            said["steps"][step]["config"]["norm_map"]["ENV"] = "MEAN_STD"
    assert load_policy(folder)
    state = next(folder.glob("policy_preprocessor_step_3*.safetensors"))
    kept = {key: value for key, value in load_file(state).items() if "environment" not in key}
    save_file(kept, state)
    refuses(r"environment_state' is normalised by MEAN_STD, but there are no", load_policy, folder)


def test_a_backbones_own_weights_are_not_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """LeRobot's act and diffusion begin with weights of ImageNet, which the checkpoint's replace."""

    def fetch(*arguments: object, **options: object) -> None:
        raise AssertionError(f"fetched {arguments}")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fetch)
    policy = small_policy("act", input_features=features(image=(3, 32, 32)))
    assert list(policy.config.image_features) == [IMAGE]
    save(policy, tmp_path)
    with edited(tmp_path / "config.json") as config:
        config["pretrained_backbone_weights"] = "ResNet18_Weights.IMAGENET1K_V1"
    loaded = load_policy(tmp_path)
    assert loaded.track == "pixels"
    pairs = zip(policy.parameters(), loaded.policy.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)
