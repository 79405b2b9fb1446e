"""What several test files need.

Not at the root of the checkout: there, everybody who runs the suite out of an editable install would read it
too.
"""

from pathlib import Path

import pytest

pytest_plugins = ["pytester"]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the slow tests to runs with --benchmark (and to those that name them with -m slow)."""
    if config.getoption("il_benchmark") or "slow" in (config.option.markexpr or ""):
        return
    skip = pytest.mark.skip(reason="slow: runs with --benchmark or -m slow")
    for item in items:
        if item.get_closest_marker("slow"):
            item.add_marker(skip)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A `pretrained_model` folder as LeRobot writes it: a tiny act on keypoints, never trained."""
    import torch
    from lerobot.configs import FeatureType, PolicyFeature
    from lerobot.policies.act.configuration_act import ACTConfig
    from lerobot.policies.act.modeling_act import ACTPolicy
    from lerobot.policies.factory import make_pre_post_processors

    dims = {"observation.state": 2, "observation.environment_state": 16, "action": 2}
    kinds = (FeatureType.STATE, FeatureType.ENV, FeatureType.ACTION)
    features = {key: PolicyFeature(kind, (dims[key],)) for key, kind in zip(dims, kinds, strict=True)}
    config = ACTConfig(
        output_features={"action": features.pop("action")},
        input_features=features,
        device="cpu",
        dim_model=32,
        n_heads=2,
        dim_feedforward=32,
        n_encoder_layers=1,
        n_decoder_layers=1,
        use_vae=False,
        chunk_size=8,
        n_action_steps=8,
    )
    stats = {
        key: {"mean": torch.full((dim,), 256.0), "std": torch.full((dim,), 100.0)}
        for key, dim in dims.items()
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        policy = ACTPolicy(config)
    folder = tmp_path_factory.mktemp("policies") / "tiny"
    for part in (policy, *make_pre_post_processors(config, dataset_stats=stats)):
        part.save_pretrained(folder)
    return folder
