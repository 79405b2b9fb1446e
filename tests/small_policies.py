"""Small policies of every kind, untrained or barely trained, in memory and as LeRobot saves them.

LeRobot is imported when one is made, as this module is imported by files whose tests need none.
"""

from pathlib import Path
from typing import Any

import torch

KEYPOINTS = {"observation.state": 2, "observation.environment_state": 16}
IMAGE = "observation.image"

_GPT = {"gpt_n_layer": 1, "gpt_n_head": 2}
_GPT |= dict.fromkeys(("gpt_input_dim", "gpt_hidden_dim", "gpt_output_dim"), 16)
#: The fields of each type that make it small.
SMALL: dict[str, dict[str, Any]] = {
    "il_bc": {"hidden_dim": 16, "n_layers": 1},
    "il_bet": {"codebook_size": 4, "dropout": 0.0, **_GPT},
    "il_vqbet": {
        "n_vqvae_training_steps": 3,
        "vqvae_n_embed": 4,
        "vqvae_embedding_dim": 8,
        "dropout": 0.0,
        **_GPT,
    },
    "act": {
        "dim_model": 16,
        "n_heads": 2,
        "dim_feedforward": 16,
        "n_encoder_layers": 1,
        "use_vae": False,
        "chunk_size": 8,
        "n_action_steps": 8,
        "pretrained_backbone_weights": None,
    },
    "diffusion": {
        "down_dims": (16, 32),
        "horizon": 8,
        "n_action_steps": 4,
        "n_groups": 4,
        "diffusion_step_embed_dim": 16,
        "num_train_timesteps": 4,
    },
    "gaussian_actor": {"state_encoder_hidden_dim": 16, "latent_dim": 16},
    "vqbet": {"vqvae_n_embed": 8, "vqvae_embedding_dim": 16, "pretrained_backbone_weights": None, **_GPT},
}
OURS = ("il_bc", "il_bet", "il_vqbet")


def features(**shapes: tuple[int, ...]) -> dict[str, Any]:
    """Input features by the names that follow ``observation.``: the keypoints, or of these shapes."""
    from lerobot.configs import FeatureType, PolicyFeature

    kinds = {"state": FeatureType.STATE, "environment_state": FeatureType.ENV}
    return {
        f"observation.{name}": PolicyFeature(kinds.get(name, FeatureType.VISUAL), shape)
        for name, shape in (shapes or {"state": (2,), "environment_state": (16,)}).items()
    }


def small_config(policy_type: str, *, action_dim: int = 2, **fields: Any) -> Any:
    """A configuration by LeRobot's factory, on keypoints where ``fields`` do not say otherwise."""
    from lerobot.configs import FeatureType, PolicyFeature
    from lerobot.policies.factory import make_policy_config

    import il_bench.policies  # noqa: F401

    given = {
        "input_features": features(),
        "output_features": {"action": PolicyFeature(FeatureType.ACTION, (action_dim,))},
        "device": "cpu",
    }
    return make_policy_config(policy_type, **{**given, **SMALL[policy_type], **fields})


def small_policy(policy_type: str, *, seed: int = 0, **fields: Any) -> Any:
    """A policy of ``small_config``, its weights drawn from ``seed``."""
    from lerobot.policies.factory import get_policy_class

    config = small_config(policy_type, **fields)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return get_policy_class(policy_type)(config)


def statistics(low: float = 0.0, high: float = 512.0) -> dict[str, dict[str, torch.Tensor]]:
    """What LeRobot's processors normalise by: px of the arena, and an image's brightness."""
    dims = {**KEYPOINTS, "action": 2}
    values = {"min": low, "max": high, "mean": 256.0, "std": 100.0}
    stats = {
        key: {name: torch.full((d,), value) for name, value in values.items()} for key, d in dims.items()
    }
    half = torch.full((3, 1, 1), 0.5)
    return {**stats, IMAGE: {"mean": half, "std": half}}


def processors(config: Any, stats: dict[str, dict[str, torch.Tensor]] | None = None) -> tuple[Any, Any]:
    """The pre- and post-processor of a configuration."""
    from lerobot.policies.factory import make_pre_post_processors

    pre, post = make_pre_post_processors(config, dataset_stats=stats or statistics())
    return pre, post


def save(policy: Any, folder: Path, stats: dict[str, dict[str, torch.Tensor]] | None = None) -> Path:
    """A `pretrained_model` folder of a policy and its processors."""
    for part in (policy, *processors(policy.config, stats)):
        part.save_pretrained(folder)
    return folder


def act_on_pixels(folder: Path, **shapes: tuple[int, ...]) -> Path:
    """An untrained ACT that sees the agent and the camera, as a ``pretrained_model`` folder."""
    seen = features(**(shapes or {"state": (2,), "image": (3, 96, 96)}))
    return save(small_policy("act", input_features=seen, chunk_size=30, n_action_steps=30), folder)


def save_diffusion(folder: Path) -> Path:
    """An untrained diffusion policy: it pushes about at random."""
    policy = small_policy(
        "diffusion", num_train_timesteps=100, noise_scheduler_type="DDIM", num_inference_steps=2
    )
    return save(policy, folder, statistics(-128.0, 640.0))


def training_batch(config: Any, n: int = 64, seed: int = 0) -> dict[str, torch.Tensor]:
    """Random normalised windows of the lengths that ``config`` asks for."""
    generator = torch.Generator().manual_seed(seed)
    n_actions = len(config.action_delta_indices)
    batch = {
        key: torch.rand(n, config.n_obs_steps, *feature.shape, generator=generator)
        for key, feature in config.input_features.items()
    }
    batch["action"] = torch.rand(n, n_actions, 2, generator=generator)
    batch["action_is_pad"] = torch.zeros(n, n_actions, dtype=torch.bool)
    return batch


def train_a_little(policy: Any, steps: int = 6) -> Any:
    """The policy after a few optimizer steps: past VQ-BeT's first phase, and BeT's centres fitted."""
    torch.manual_seed(0)
    optimizer = torch.optim.AdamW(policy.get_optim_params(), lr=1e-3)
    policy.train()
    for step in range(steps):
        loss, _ = policy.forward(training_batch(policy.config, seed=step))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return policy.eval()


def observations(n: int = 5, seed: int = 0) -> dict[str, torch.Tensor]:
    """Random normalised keypoints of one step."""
    generator = torch.Generator().manual_seed(seed)
    return {key: torch.rand(n, dim, generator=generator) for key, dim in KEYPOINTS.items()}


def raw_observations(n: int = 3) -> dict[str, torch.Tensor]:
    """What a policy is shown of PushT, in px."""
    return {key: 512 * value for key, value in observations(n).items()}
