"""A checkpoint's config.json: what it says wrong is named, and installed packages of policies are found."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from lerobot.configs import PreTrainedConfig

from il_bench.policies.checkpoint import load_policy
from tests.small_policies import features, raw_observations, save, small_policy

from .conftest import edited, refuses


def feature(direction: str, name: str, size: int) -> dict[str, object]:
    kind = "ACTION" if direction == "output" else "STATE"
    return {f"{direction}_features": {name: {"type": kind, "shape": [size]}}}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"n_moons": 2, "gravity": 1}, r"unknown field 'gravity', 'n_moons': type 'act' of LeRobot 0\.6"),
        ({"chunk_size": "many"}, r"config.json: chunk_size = 'many': Input should be a valid integer"),
        ({"chunk_size": True}, r"chunk_size = True: Input should be a valid integer"),
        ({"chunk_size": None}, r"chunk_size = None: Input should be a valid integer"),
        ({"dropout": "0.1"}, r"dropout = '0.1': Input should be a valid number"),
        ({"dropout": 7}, r"config.json: a policy of type act cannot be built .*dropout probability"),
        ({"dim_model": -16}, r"config.json"),
        ({"optimizer_lr": [1]}, r"optimizer_lr = \[1\]"),
        ({"normalization_mapping": {"STATE": "LOG"}}, r"normalization_mapping.STATE = 'LOG'"),
        ({"type": ["act"]}, r"type = \['act'\]; that is not the name of a policy type"),
        ({"n_obs_steps": 0}, r"n_obs_steps = 0: has to be between 1 and 10,000"),
        ({"n_action_steps": 9}, r"not a configuration of act: The chunk size is the upper bound"),
        ({"use_peft": True}, r"use_peft: the folder holds an adapter"),
        ({"type": "dp3"}, r"type 'dp3' is not a policy type of LeRobot .* such as lerobot_policy_dp3\."),
        ({"type": "groot"}, r"type 'groot': LeRobot runs code from the Hub"),
        ({"input_features": {}}, r"input_features is empty"),
        (feature("output", "action", 7), r"'action' of shape \(7,\) does not fit"),
        (
            feature("input", "observation.effort", 2),
            r"input feature 'observation.effort' of shape \(2,\) does not fit PushT, which gives",
        ),
        (feature("input", "observation.state", 7), r"'observation.state' of shape \(7,\) does not fit PushT"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_what_a_configuration_says_wrong_is_named_in_one_line(
    folder: Path, fields: dict[str, object], said: str
) -> None:
    with edited(folder / "config.json") as config:
        config |= fields
    refuses(said, load_policy, folder)


@pytest.mark.parametrize(
    ("text", "said"),
    [("{", "broken JSON at line 1, column 2"), ("[]", "holds a list, not an object with fields")],
)
def test_an_unreadable_configuration_is_refused(folder: Path, text: str, said: str) -> None:
    (folder / "config.json").write_text(text)
    refuses(rf"config.json: {said}", load_policy, folder)


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
    with edited(saved / "config.json") as config:
        config |= {"type": "crab", "sideways": False}
    with edited(saved / "policy_preprocessor.json") as said:
        said["steps"].insert(0, {"class": f"{PACKAGE}.steps.Sideways", "config": {}})
    return saved


def test_a_policy_of_an_installed_package_loads(saved: Path, crab: Path) -> None:
    expected = load_policy(saved).select_action(raw_observations())
    loaded = load_policy(as_crab(saved))
    assert loaded.policy.config.type == "crab" and loaded.policy.config.sideways is False
    assert type(loaded.preprocessor.steps[0]).__name__ == "Sideways"
    assert torch.equal(loaded.select_action(raw_observations()), expected)


def test_a_package_that_cannot_be_imported_is_named(saved: Path, crab: Path) -> None:
    (crab / PACKAGE / "__init__.py").write_text("import a_package_that_is_not_there")
    refuses(r"type 'crab' .*lerobot_policy_crab, which cannot be imported \(", load_policy, as_crab(saved))


@pytest.mark.parametrize("module", ["modeling_crab", "steps"])
def test_what_a_package_lacks_is_named(saved: Path, crab: Path, module: str) -> None:
    path = crab / PACKAGE / f"{module}.py"
    path.write_text(f"import a_package_that_is_not_there\n{path.read_text()}")
    refuses(
        r"(config|policy_preprocessor).json: .*No module named 'a_package_that", load_policy, as_crab(saved)
    )


def test_all_that_a_policy_of_somebodys_own_could_read_is_in_its_hash(saved: Path, crab: Path) -> None:
    (as_crab(saved) / "words").mkdir()
    seen = set()
    for text in ("a", "b"):
        (saved / "words" / "vocabulary.txt").write_text(text)
        seen.add(load_policy(saved).sha256)
    assert len(seen) == 2
    (saved / "README.md").write_text("Nothing loads this.")
    assert load_policy(saved).sha256 in seen


# ---- LeRobot's gaussian_actor


def gaussian(folder: Path, **fields: object) -> Path:
    """A policy that fetches nothing, or of which a field says so."""
    policy = small_policy("gaussian_actor", input_features=features(state=(2,), image=(3, 64, 64)))
    save(policy, folder)
    with edited(folder / "config.json") as config:
        config |= fields
    return folder


def test_a_gaussian_actor_loads_unless_it_fetches_code(tmp_path: Path) -> None:
    loaded = load_policy(gaussian(tmp_path / "mine"))
    assert loaded.track == "pixels" and loaded.camera is not None and loaded.camera.width == 64
    image = {"observation.image": torch.rand(3, 3, 64, 64), "observation.state": torch.rand(3, 2) * 512}
    assert loaded.select_action(image).shape == (3, 2)
    fetching = gaussian(tmp_path / "fetching", vision_encoder_name="lerobot/resnet10")
    refuses(r"vision_encoder_name 'lerobot/resnet10': LeRobot runs code from the Hub", load_policy, fetching)
