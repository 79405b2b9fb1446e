"""Checkpoints of policies that were never trained, as LeRobot writes them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

KEYPOINTS = {"observation.state": (2,), "observation.environment_state": (16,), "action": (2,)}


def save_untrained(
    folder: Path,
    kind: str,
    shapes: Mapping[str, tuple[int, ...]],
    statistics: Mapping[str, float],
    **settings: Any,
) -> Path:
    """Write a `pretrained_model` folder, the same weights every time.

    kind: a policy type, such as act. shapes: of observations and action. statistics: every value of every
    feature's, such as {"mean": 256.0, "std": 100.0}; an image's are 0.5. settings: of the configuration.
    """
    import torch
    from lerobot.configs import FeatureType, PolicyFeature
    from lerobot.policies.factory import get_policy_class, make_policy_config, make_pre_post_processors

    kinds = {"observation.state": FeatureType.STATE, "observation.environment_state": FeatureType.ENV}
    features = {
        key: PolicyFeature(kinds.get(key, FeatureType.VISUAL), shape) for key, shape in shapes.items()
    }
    del features["action"]
    config = make_policy_config(
        kind,
        input_features=features,
        output_features={"action": PolicyFeature(FeatureType.ACTION, shapes["action"])},
        device="cpu",
        **settings,
    )
    stats = {
        key: {
            name: torch.full((3, 1, 1), 0.5) if len(shape) == 3 else torch.full(shape, value)
            for name, value in statistics.items()
        }
        for key, shape in shapes.items()
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        policy = get_policy_class(kind)(config)
    for part in (policy, *make_pre_post_processors(config, dataset_stats=stats)):
        part.save_pretrained(folder)
    return folder


def save_diffusion(folder: Path) -> Path:
    """A tiny diffusion policy on keypoints: it pushes about at random."""
    return save_untrained(
        folder,
        "diffusion",
        KEYPOINTS,
        {"min": -128.0, "max": 640.0},
        horizon=8,
        n_action_steps=4,
        down_dims=(16, 32),
        n_groups=4,
        diffusion_step_embed_dim=16,
        noise_scheduler_type="DDIM",
        num_inference_steps=2,
    )
