"""Folders of an older LeRobot: the same policy as in today's form, whatever their fields were called."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from lerobot.configs import FeatureType, PolicyFeature
from lerobot.processor.migrate_policy_normalization import extract_normalization_stats
from safetensors.torch import load_file, save_file

import il_bench
from il_bench.errors import IlBenchError
from il_bench.policies.checkpoint import Checkpoint, load_policy
from il_bench.policies.tokenizers import PolicyCoordinates
from tests.small_policies import raw_observations, save, small_policy, statistics

from .conftest import edited, refuses

PROCESSORS = "policy_*processor*"
KEYS = ("observation.state", "observation.environment_state", "action")


def todays(kind: str, folder: Path) -> Path:
    """A policy on keypoints as today's LeRobot saves it."""
    modes = dict.fromkeys(("STATE", "ENV", "ACTION"), "MIN_MAX")
    return save(small_policy(kind, normalization_mapping=modes), folder)


def of_2025(new: Path, folder: Path) -> Path:
    """The same as LeRobot 0.1 to 0.3 saved it: no processors, their statistics among the weights."""
    shutil.copytree(new, folder, ignore=shutil.ignore_patterns(PROCESSORS))
    weights = load_file(folder / "model.safetensors")
    for key in KEYS:
        parts = ("normalize_targets", "unnormalize_outputs") if key == "action" else ("normalize_inputs",)
        for part, name in product(parts, ("min", "max")):
            weights[f"{part}.buffer_{key.replace('.', '_')}.{name}"] = statistics()[key][name].clone()
    save_file(weights, folder / "model.safetensors")
    return folder


def of_2024(new: Path, folder: Path) -> Path:
    """The same as LeRobot saved it in its first year: no type, shapes and modes in the place of features."""
    of_2025(new, folder)
    dropped = ("type", "normalization_mapping", "use_separate_rgb_encoder_per_camera", "device", "use_amp")
    dropped += ("use_peft", "push_to_hub", "repo_id", "tags", "license", "private")
    with edited(folder / "config.json") as config:
        for name in dropped:
            config.pop(name, None)
        for direction in ("input", "output"):
            features = config.pop(f"{direction}_features")
            config[f"{direction}_shapes"] = {key: feature["shape"] for key, feature in features.items()}
            config[f"{direction}_normalization_modes"] = dict.fromkeys(features, "min_max")
    return folder


def configured(folder: Path, **fields: Any) -> Any:
    """What becomes of a config.json with these fields."""
    (folder / "config.json").write_text(json.dumps(fields))
    return Checkpoint.find(folder).config


def actions(folder: Path) -> torch.Tensor:
    policy = load_policy(folder)
    policy.reset()
    torch.manual_seed(1)
    return policy.select_action(raw_observations())


@pytest.mark.parametrize("older", [of_2025, of_2024])
@pytest.mark.parametrize("kind", ["act", "diffusion"])
def test_an_old_folder_is_the_same_policy(kind: str, older: Callable[..., Path], tmp_path: Path) -> None:
    new = todays(kind, tmp_path / "new")
    old = older(new, tmp_path / "old")
    loaded = load_policy(old)
    assert loaded.track == "keypoints" and loaded.policy.config.type == kind
    assert loaded.parameters == load_policy(new).parameters
    assert torch.equal(actions(old), actions(new))
    assert 0 < actions(old).mean() < 512  # px, not [-1, 1]


def test_an_old_folder_with_todays_processors_beside_it_loads(tmp_path: Path) -> None:
    """What LeRobot's migration leaves of diffusion_pusht, put together by hand."""
    new = todays("diffusion", tmp_path / "new")
    old = of_2025(new, tmp_path / "old")
    for path in new.glob(PROCESSORS):
        shutil.copy(path, old)
    assert torch.equal(actions(old), actions(new))


def test_an_old_policy_on_pixels_shares_its_image_encoder(tmp_path: Path) -> None:
    """Before there was a choice all cameras had one encoder; LeRobot's default became one for each."""
    found = configured(
        tmp_path,
        noise_scheduler_type="DDPM",
        input_shapes={"observation.image": [3, 96, 96], "observation.state": [2]},
        output_shapes={"action": [2]},
        input_normalization_modes={"observation.image": "mean_std", "observation.state": "min_max"},
        output_normalization_modes={"action": "min_max"},
    )
    assert found.type == "diffusion" and not found.use_separate_rgb_encoder_per_camera
    assert found.input_features["observation.image"] == PolicyFeature(FeatureType.VISUAL, (3, 96, 96))
    assert {kind: mode.value for kind, mode in found.normalization_mapping.items()} == {
        "VISUAL": "MEAN_STD",
        "STATE": "MIN_MAX",
        "ACTION": "MIN_MAX",
    }


def test_a_field_that_nothing_ever_read_is_left_out(tmp_path: Path) -> None:
    assert configured(tmp_path, type="vqbet", mlp_hidden_dim=1024).type == "vqbet"
    refuses(
        "unknown field 'mlp_hidden_dim': type 'act'", configured, tmp_path, type="act", mlp_hidden_dim=1024
    )


def test_acts_fields_of_2024_are_todays(tmp_path: Path) -> None:
    off = {"use_temporal_aggregation": False, "temporal_ensemble_momentum": None}
    found = configured(tmp_path, n_vae_encoder_layers=4, d_model=64, **off)
    assert (found.type, found.dim_model, found.temporal_ensemble_coeff) == ("act", 64, None)
    # It weighed otherwise than the coefficient of today.
    on = {"temporal_ensemble_momentum": 0.9}
    refuses("unknown field 'temporal_ensemble_momentum'", configured, tmp_path, type="act", **on)


def test_a_configuration_that_tells_no_type_says_what_to_add(tmp_path: Path) -> None:
    refuses(r"config.json: field 'type' is missing, .* add it", configured, tmp_path, horizon=16)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"normalize_inputs.buffer_observation_state.min": torch.full((2,), torch.inf)}, "was never filled"),
        (
            {"normalize_inputs.buffer_observation_effort.min": torch.zeros(2)},
            "a statistic of a feature that config.json does not have",
        ),
        ({"diffusion.unet.moon": torch.zeros(2)}, "the weights do not fit diffusion"),
    ],
)
def test_old_weights_that_do_not_fit_are_named(
    change: dict[str, torch.Tensor], said: str, tmp_path: Path
) -> None:
    old = of_2025(todays("diffusion", tmp_path / "new"), tmp_path / "old")
    weights = load_file(old / "model.safetensors")
    save_file({**weights, **change}, old / "model.safetensors")
    refuses(rf"model.safetensors.*{said}", load_policy, old)


def test_the_coordinates_of_an_old_policys_chunks_are_known(tmp_path: Path) -> None:
    new = todays("diffusion", tmp_path / "new")
    old = of_2025(new, tmp_path / "old")
    chunk, agents = torch.tensor([[[0.5, -0.5]]]), torch.zeros(1, 2)
    one, other = (PolicyCoordinates(Checkpoint.find(folder)) for folder in (old, new))
    assert torch.equal(one.pixels(chunk, agents), other.pixels(chunk, agents))


@pytest.mark.xfail(
    strict=True,
    reason="LeRobot 0.6.1 takes every underscore of a buffer for a dot (lerobot#4460)",
)
def test_lerobots_migration_keeps_the_name_of_the_keypoints() -> None:
    buffer = "normalize_inputs.buffer_observation_environment_state.min"
    assert "observation.environment_state" in extract_normalization_stats({buffer: torch.zeros(16)})


def without_processors(tmp_path: Path) -> tuple[Path, str]:
    """A folder whose normalisation is nowhere, and what loading it says."""
    folder = todays("act", tmp_path / "new")
    for path in folder.glob(PROCESSORS):
        path.unlink()
    with pytest.raises(IlBenchError) as raised:
        load_policy(folder)
    return folder, str(raised.value)


def test_a_folder_whose_normalisation_is_nowhere_says_what_to_run(tmp_path: Path) -> None:
    folder, said = without_processors(tmp_path)
    assert (
        f"{folder / 'policy_preprocessor.json'}: missing, and model.safetensors holds no normalisation"
        in said
    )
    assert "\n" not in said and 'DATASET: python -c "import il_bench.policies; ' in said


@pytest.mark.slow
def test_what_it_says_makes_the_folder_whole(tmp_path: Path) -> None:
    expert_data = Path(il_bench.__file__).parent / "data" / "expert"
    folder, said = without_processors(tmp_path)
    found = re.search(r'python -c "(.*)"', said)
    assert found is not None
    code = found[1].replace("'DATASET'", f"'local/expert', root={str(expert_data)!r}")
    subprocess.run([sys.executable, "-c", code], check=True)
    assert 0 < actions(folder).mean() < 512
