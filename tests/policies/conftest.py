"""Small policies of every kind, untrained or barely trained."""

from pathlib import Path
from typing import Any

import pytest
import torch

KEYPOINTS = {"observation.state": 2, "observation.environment_state": 16}


def features() -> dict[str, Any]:
    from lerobot.configs import FeatureType, PolicyFeature

    kinds = {"observation.state": FeatureType.STATE, "observation.environment_state": FeatureType.ENV}
    return {
        "input_features": {key: PolicyFeature(kinds[key], (dim,)) for key, dim in KEYPOINTS.items()},
        "output_features": {"action": PolicyFeature(FeatureType.ACTION, (2,))},
        "device": "cpu",
    }


def training_batch(config: Any, n: int = 64, seed: int = 0) -> dict[str, torch.Tensor]:
    """Random normalised windows of the lengths that ``config`` asks for."""
    generator = torch.Generator().manual_seed(seed)
    n_actions = len(config.action_delta_indices)
    batch = {
        key: torch.rand(n, config.n_obs_steps, dim, generator=generator) for key, dim in KEYPOINTS.items()
    }
    batch["action"] = torch.rand(n, n_actions, 2, generator=generator)
    batch["action_is_pad"] = torch.zeros(n, n_actions, dtype=torch.bool)
    return batch


def observations(n: int = 5, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {key: torch.rand(n, dim, generator=generator) for key, dim in KEYPOINTS.items()}


SMALL_GPT = {
    "gpt_input_dim": 16,
    "gpt_hidden_dim": 16,
    "gpt_output_dim": 16,
    "gpt_n_layer": 1,
    "gpt_n_head": 2,
    "dropout": 0.0,
}
SMALL = {
    "il_bc": {"hidden_dim": 16, "n_layers": 1},
    "il_bet": {"codebook_size": 4, **SMALL_GPT},
    "il_vqbet": {"n_vqvae_training_steps": 3, "vqvae_n_embed": 4, "vqvae_embedding_dim": 8, **SMALL_GPT},
}


def small_policy(policy_type: str, **fields: Any) -> Any:
    """A policy of ``policy_type``, made by LeRobot's own factory functions."""
    from lerobot.policies.factory import get_policy_class, make_policy_config

    import il_bench.policies  # noqa: F401

    torch.manual_seed(0)
    config = make_policy_config(policy_type, **{**features(), **SMALL[policy_type], **fields})
    return get_policy_class(policy_type)(config)


def train_a_little(policy: Any, steps: int = 6) -> None:
    """A few optimizer steps: past VQ-BeT's first phase, and BeT's centres fitted."""
    optimizer = torch.optim.AdamW(policy.get_optim_params(), lr=1e-3)
    policy.train()
    for step in range(steps):
        loss, _ = policy.forward(training_batch(policy.config, seed=step))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    policy.eval()


@pytest.fixture(params=sorted(SMALL))
def trained(request: pytest.FixtureRequest) -> Any:
    policy = small_policy(request.param)
    train_a_little(policy)
    return policy


def raw_observations(n: int = 3) -> dict[str, torch.Tensor]:
    """What a policy is shown of PushT, in px."""
    generator = torch.Generator().manual_seed(0)
    return {key: 512 * torch.rand(n, dim, generator=generator) for key, dim in KEYPOINTS.items()}


def statistics() -> dict[str, dict[str, torch.Tensor]]:
    """What LeRobot's processors normalise by."""
    dims = {**KEYPOINTS, "action": 2}
    return {
        key: {
            "min": torch.zeros(d),
            "max": torch.full((d,), 512.0),
            "mean": torch.full((d,), 256.0),
            "std": torch.ones(d),
        }
        for key, d in dims.items()
    }


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """The last checkpoint of a run of il_bc."""
    from lerobot.policies.factory import make_pre_post_processors

    policy = small_policy("il_bc")
    train_a_little(policy, steps=1)
    folder = tmp_path / "run" / "checkpoints" / "last" / "pretrained_model"
    policy.save_pretrained(folder)
    for processor in make_pre_post_processors(policy.config, dataset_stats=statistics()):
        processor.save_pretrained(folder)
    return folder
