"""The forms that a checkpoint comes in: folders of a run, the Hub's cache, packages of policies."""

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from huggingface_hub.utils import filter_repo_objects
from lerobot.configs import FeatureType, PolicyFeature, PreTrainedConfig
from lerobot.policies.factory import get_policy_class, make_policy_config, make_pre_post_processors
from safetensors.torch import load_file, save_file

from il_bench.errors import IlBenchError
from il_bench.policies.checkpoint import find_checkpoint, load_policy, locating

from .conftest import raw_observations, statistics

COMMIT = "0123456789abcdef0123456789abcdef01234567"


# ---- folders


@pytest.fixture
def run(checkpoint: Path, tmp_path: Path) -> Path:
    """A run folder of `lerobot-train`: two checkpoints, `last` a link to the newer."""
    checkpoints = tmp_path / "run" / "checkpoints"
    for step in ("000010", "000020"):
        shutil.copytree(checkpoint, checkpoints / step / "pretrained_model")
    (checkpoints / "last").symlink_to("000020")
    return tmp_path / "run"


@pytest.mark.parametrize("is_link", [True, False])
def test_the_last_checkpoint_of_a_run_is_found(run: Path, is_link: bool) -> None:
    last = run / "checkpoints" / "last"
    if not is_link:
        last.unlink()
        (run / "checkpoints" / "000020").rename(last)
    for spec in (run, run / "checkpoints", last, last / "pretrained_model"):
        assert find_checkpoint(str(spec)) == last / "pretrained_model"
    assert find_checkpoint(str(run / "checkpoints" / "000010")).parent.name == "000010"


def test_a_last_that_leads_nowhere_names_the_others(run: Path) -> None:
    shutil.rmtree(run / "checkpoints" / "000020")
    with pytest.raises(IlBenchError, match=r"last: missing, or a link to nothing; .*checkpoints/000010\.$"):
        find_checkpoint(str(run))


def test_a_file_of_a_checkpoint_names_its_folder(checkpoint: Path) -> None:
    with pytest.raises(IlBenchError, match=rf"config.json: a file; give the folder it lies in: {checkpoint}"):
        load_policy(checkpoint / "config.json")


# ---- the Hub


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The Hub's cache, without a network."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    return tmp_path


@pytest.fixture
def cached(offline: Path, checkpoint: Path) -> Path:
    """A policy that was fetched before, as huggingface_hub keeps it."""
    repository = offline / "models--some-body--tiny.act"
    shutil.copytree(checkpoint, repository / "snapshots" / COMMIT)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    return repository


@pytest.mark.parametrize(
    "spec", ["some-body/tiny.act", f"some-body/tiny.act@{COMMIT}", "some-body/tiny.act@main"]
)
def test_a_hub_id_is_pinned_to_its_commit(cached: Path, checkpoint: Path, spec: str) -> None:
    loaded = load_policy(spec)
    assert loaded.checkpoint == f"some-body/tiny.act@{COMMIT}"
    assert loaded.sha256 == load_policy(checkpoint).sha256


def test_another_commit_of_a_hub_id_is_another_policy(cached: Path) -> None:
    with pytest.raises(
        IlBenchError, match=r"some-body/tiny.act: not a local folder, and not to be had"
    ) as raised:
        load_policy("some-body/tiny.act@abcdef0")
    assert "\n" not in str(raised.value)


def test_a_hub_repository_without_a_policy_at_its_root_is_named(cached: Path) -> None:
    (cached / "snapshots" / COMMIT / "config.json").unlink()
    with pytest.raises(IlBenchError, match=rf"some-body/tiny.act@{COMMIT}: holds no config.json at its root"):
        load_policy("some-body/tiny.act")


def test_of_a_hub_repository_no_pickle_and_no_other_checkpoint_is_fetched() -> None:
    wanted = ["config.json", "model.safetensors", "policy_preprocessor.json", "training.json"]
    wanted += ["policy_preprocessor_step_3_normalizer_processor.safetensors"]
    others = [
        "pytorch_model.bin",
        "policy.pt",
        "checkpoints/000010/pretrained_model/model.safetensors",
        "README.md",
    ]
    fetched = filter_repo_objects([*wanted, *others], allow_patterns=list(locating._FETCHED))
    assert list(fetched) == wanted


# ---- configurations


def edit(folder: Path, **fields: object) -> Path:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **fields}))
    return folder


@pytest.fixture
def folder(checkpoint: Path, tmp_path: Path) -> Path:
    return shutil.copytree(checkpoint, tmp_path / "copy")


def test_the_device_is_the_runs_and_not_the_configurations(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lerobot.configs.policies.is_torch_device_available", lambda device: True)
    loaded = load_policy(edit(folder, device="cuda"))
    assert {parameter.device.type for parameter in loaded.policy.parameters()} == {"cpu"}
    assert loaded.select_action(raw_observations()).device.type == "cpu"


def test_a_preprocessor_without_a_device_step_loads(folder: Path) -> None:
    path = folder / "policy_preprocessor.json"
    said = json.loads(path.read_text())
    said["steps"] = [step for step in said["steps"] if step["registry_name"] != "device_processor"]
    path.write_text(json.dumps(said))
    assert load_policy(folder).select_action(raw_observations()).shape == (3, 2)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (
            {"n_moons": 2, "gravity": 1},
            r"unknown field 'gravity', 'n_moons': ACTConfig of LeRobot 0\.6\S* has none",
        ),
        (
            {"chunk_size": "many"},
            r"not a configuration of act: `chunk_size`: Couldn't parse 'many' into an int",
        ),
        ({"n_action_steps": 9}, r"not a configuration of act: The chunk size is the upper bound"),
        ({"use_peft": True}, r"use_peft: the folder holds an adapter"),
        ({"type": "dp3"}, r"type 'dp3' is no policy of LeRobot .* such as lerobot_policy_dp3\."),
        ({"type": "groot"}, r"type 'groot': LeRobot runs code from the Hub"),
        ({"input_features": {}}, r"input_features is empty"),
        (
            {"output_features": {"action": {"type": "ACTION", "shape": [7]}}},
            r"'action' of shape \(7,\) does not fit",
        ),
        (
            {"input_features": {"observation.effort": {"type": "STATE", "shape": [2]}}},
            r"input feature 'observation.effort' of shape \(2,\) does not fit PushT, which gives",
        ),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_what_a_configuration_says_wrong_is_named_in_one_line(
    folder: Path, fields: dict[str, object], said: str
) -> None:
    with pytest.raises(IlBenchError, match=said) as raised:
        load_policy(edit(folder, **fields))
    assert "\n" not in str(raised.value)


def test_statistics_that_are_missing_are_not_passed_over(folder: Path) -> None:
    """LeRobot would give the policy px in their place, without a word."""
    edit(folder)
    for name, step in (("policy_preprocessor", 3), ("policy_postprocessor", 0)):
        path = folder / f"{name}.json"
        said = json.loads(path.read_text())
        said["steps"][step]["config"]["norm_map"]["ENV"] = "MEAN_STD"
        path.write_text(json.dumps(said))
    assert load_policy(folder)
    state = next(folder.glob("policy_preprocessor_step_3*.safetensors"))
    kept = {key: value for key, value in load_file(state).items() if "environment" not in key}
    save_file(kept, state)
    with pytest.raises(
        IlBenchError, match=r"'observation.environment_state' by MEAN_STD, but has no statistics"
    ):
        load_policy(folder)


def test_a_backbones_own_weights_are_not_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """LeRobot's act and diffusion begin with weights of ImageNet, which the checkpoint's replace."""

    def fetch(*arguments: object, **options: object) -> None:
        raise AssertionError(f"fetched {arguments}")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fetch)
    config = make_policy_config(
        "act",
        input_features={"observation.image": PolicyFeature(FeatureType.VISUAL, (3, 32, 32))},
        output_features={"action": PolicyFeature(FeatureType.ACTION, (2,))},
        device="cpu",
        pretrained_backbone_weights=None,
        use_vae=False,
        **{"dim_model": 16, "n_heads": 2, "dim_feedforward": 16, "chunk_size": 4, "n_action_steps": 4},
    )
    policy = get_policy_class("act")(config)
    policy.save_pretrained(tmp_path)
    stats = {"observation.image": {"mean": torch.zeros(3, 1, 1), "std": torch.ones(3, 1, 1)}}
    for processor in make_pre_post_processors(config, dataset_stats={**statistics(), **stats}):
        processor.save_pretrained(tmp_path)
    loaded = load_policy(edit(tmp_path, pretrained_backbone_weights="ResNet18_Weights.IMAGENET1K_V1"))
    assert loaded.track == "pixels"
    pairs = zip(policy.parameters(), loaded.policy.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


# ---- packages of policies

PACKAGE = "lerobot_policy_crab"
MODULES = {
    "__init__": f"from {PACKAGE}.configuration_crab import CrabConfig",
    "configuration_crab": """
        from dataclasses import dataclass
        from lerobot.configs import PreTrainedConfig
        from il_bench.policies import ILBCConfig

        @PreTrainedConfig.register_subclass("crab")
        @dataclass
        class CrabConfig(ILBCConfig):
            sideways: bool = True
    """,
    "modeling_crab": f"""
        from il_bench.policies.bc import ILBCPolicy
        from {PACKAGE}.configuration_crab import CrabConfig

        class CrabPolicy(ILBCPolicy):
            config_class = CrabConfig
            name = "crab"
    """,
    "steps": """
        from lerobot.processor import IdentityProcessorStep

        class Sideways(IdentityProcessorStep):
            pass
    """,
}


@pytest.fixture
def crab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Somebody's package of a policy, installed as far as LeRobot looks."""
    site = tmp_path / "site"
    (site / PACKAGE).mkdir(parents=True)
    for name, source in MODULES.items():
        lines = [line.removeprefix("        ") for line in source.splitlines()]
        (site / PACKAGE / f"{name}.py").write_text("\n".join(lines))
    (site / f"{PACKAGE}-1.0.dist-info").mkdir()
    metadata = f"Metadata-Version: 2.1\nName: {PACKAGE}\nVersion: 1.0\n"
    (site / f"{PACKAGE}-1.0.dist-info" / "METADATA").write_text(metadata)
    monkeypatch.syspath_prepend(str(site))
    yield site
    PreTrainedConfig._choice_registry.pop("crab", None)
    for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
        del sys.modules[name]


def as_crab(saved: Path) -> Path:
    """Make the folder one of the package's policy, with a step of the package."""
    edit(saved, type="crab", sideways=False)
    path = saved / "policy_preprocessor.json"
    said = json.loads(path.read_text())
    said["steps"].insert(0, {"class": f"{PACKAGE}.steps.Sideways", "config": {}})
    path.write_text(json.dumps(said))
    return saved


def test_a_policy_of_an_installed_package_loads(saved: Path, crab: Path) -> None:
    expected = load_policy(saved).select_action(raw_observations())
    loaded = load_policy(as_crab(saved))
    assert loaded.policy.config.type == "crab" and loaded.policy.config.sideways is False
    assert type(loaded.preprocessor.steps[0]).__name__ == "Sideways"
    assert torch.equal(loaded.select_action(raw_observations()), expected)


def test_a_package_that_cannot_be_imported_is_named(saved: Path, crab: Path) -> None:
    (crab / PACKAGE / "__init__.py").write_text("import a_package_that_is_not_there")
    with pytest.raises(
        IlBenchError, match=r"type 'crab' .*lerobot_policy_crab, which cannot be imported \(Module"
    ):
        load_policy(as_crab(saved))
