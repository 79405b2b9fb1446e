"""Checkpoints by folder, run or name: loaded whole, refused by name."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from il_bench.errors import IlBenchError
from il_bench.policies.checkpoint import (
    PolicyLoader,
    checkpoint_sha256,
    find_checkpoint,
    load_policy,
    locating,
    wrap,
)

from .conftest import raw_observations


def act(policy: Any) -> torch.Tensor:
    policy.reset()
    return policy.select_action(raw_observations())


def test_a_folder_a_checkpoint_and_a_run_are_the_same_policy(saved: Path) -> None:
    folders = [saved, saved.parent, saved.parents[2]]
    loaded = [load_policy(folder) for folder in folders]
    assert len({policy.sha256 for policy in loaded}) == 1
    assert all(torch.equal(act(policy), act(loaded[0])) for policy in loaded)
    assert act(loaded[0]).shape == (3, 2) and 0 < act(loaded[0]).mean() < 512  # px, not [-1, 1]
    assert torch.equal(act(PolicyLoader(str(saved))()), act(loaded[0]))


def test_the_hash_follows_what_changes_the_policy(saved: Path) -> None:
    before = checkpoint_sha256(saved)
    (saved / "training.json").write_text("{}")
    assert checkpoint_sha256(saved) == before
    for path in [*sorted(saved.glob("*.safetensors")), saved / "config.json"]:
        content = path.read_bytes()
        path.write_bytes(content[:-1] + b"\n")
        assert checkpoint_sha256(saved) != before, path.name
        path.write_bytes(content)


def test_data_comes_from_the_training_record(saved: Path) -> None:
    assert load_policy(saved).data == "unknown"
    (saved / "training.json").write_text(json.dumps({"data": {"name": "human"}}))
    assert load_policy(saved).data == "human"


@pytest.mark.parametrize("text", ["{", "[]", '{"data": "human"}', '{"data": {}}', "\xff"])
def test_somebody_elses_training_record_says_nothing_of_the_data(saved: Path, text: str) -> None:
    (saved / "training.json").write_bytes(text.encode("latin-1"))
    assert load_policy(saved).data == "unknown"


def test_a_policy_in_memory_can_be_wrapped(saved: Path) -> None:
    loaded = load_policy(saved)
    wrapped = wrap(loaded.policy, loaded.preprocessor, loaded.postprocessor, name="mine")
    assert wrapped.sha256 is None and wrapped.track == "keypoints"
    assert torch.equal(act(wrapped), act(loaded))


def test_missing_files_are_named(saved: Path) -> None:
    (saved / "policy_postprocessor.json").unlink()
    with pytest.raises(IlBenchError, match=r"policy_postprocessor.json: missing"):
        load_policy(saved)
    (saved / "config.json").unlink()
    with pytest.raises(IlBenchError, match=r"holds no config\.json"):
        load_policy(saved)


def test_weights_of_another_network_are_refused(saved: Path) -> None:
    config = json.loads((saved / "config.json").read_text())
    (saved / "config.json").write_text(json.dumps({**config, "hidden_dim": 32}))
    with pytest.raises(IlBenchError, match=r"model.safetensors: the weights do not fit il_bc"):
        load_policy(saved)


def test_truncated_weights_are_refused(saved: Path) -> None:
    weights = saved / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-50])
    with pytest.raises(IlBenchError, match=r"model.safetensors"):
        load_policy(saved)


def test_an_unreadable_configuration_is_refused(saved: Path) -> None:
    (saved / "config.json").write_text("{")
    with pytest.raises(IlBenchError, match=r"config.json: not readable as JSON"):
        load_policy(saved)


def test_a_feature_that_is_not_pushts_is_named(saved: Path) -> None:
    config = json.loads((saved / "config.json").read_text())
    config["input_features"]["observation.state"]["shape"] = [7]
    (saved / "config.json").write_text(json.dumps(config))
    with pytest.raises(IlBenchError, match=r"'observation.state' of shape \(7,\) does not fit PushT"):
        load_policy(saved)


@pytest.mark.parametrize("name", ["definitely-not-here", 300 * "x", "~nobody-here/act", "a\0b"])
def test_a_name_that_is_nothing_lists_the_zoo(name: str) -> None:
    """Also one that no file can have."""
    with pytest.raises(IlBenchError, match=r"no such policy\. Give one of"):
        find_checkpoint(name)


def test_a_folder_that_may_not_be_entered_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_: Path) -> Path:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(locating, "_in_folder", refused)
    with pytest.raises(IlBenchError, match=r"cannot be read \(.*Permission denied\); give the folder"):
        find_checkpoint(str(tmp_path))


def test_a_hub_id_offline_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(
        IlBenchError, match="nobody/nothing: not a local folder, and not to be had from the Hub"
    ):
        find_checkpoint("nobody/nothing")
