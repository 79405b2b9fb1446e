"""``il_bc``: behaviour cloning, a residual MLP that regresses action chunks from keypoints or an image."""

from dataclasses import dataclass
from typing import Any

import torch
from lerobot.configs import PreTrainedConfig
from lerobot.processor import make_default_pre_post_processors
from lerobot.utils.constants import ACTION, OBS_STATE
from torch import Tensor, nn

from il_bench.policies.chunking import BlockEncoder, ChunkingConfig, ChunkingPolicy, l1_loss


@PreTrainedConfig.register_subclass("il_bc")
@dataclass
class ILBCConfig(ChunkingConfig):
    """Fields of `ChunkingConfig`, and the network's."""

    hidden_dim: int = 512
    n_layers: int = 3  # residual blocks
    dropout: float = 0.1  # inside each block

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is {self.dropout}; it must lie in [0, 1).")


make_il_bc_pre_post_processors = make_default_pre_post_processors  # LeRobot looks it up by this name


class ILBCPolicy(ChunkingPolicy):
    """Plain regression, the baseline for the other policies: it predicts the mean of what people do."""

    config_class = ILBCConfig
    name = "il_bc"

    def __init__(self, config: ILBCConfig, **kwargs: Any) -> None:
        super().__init__(config)
        config.validate_features()
        self.block_encoder = BlockEncoder(config)
        observation_dim = config.input_features[OBS_STATE].shape[0] + self.block_encoder.feature_dim
        blocks = [_ResidualBlock(config.hidden_dim, config.dropout) for _ in range(config.n_layers)]
        self.net = nn.Sequential(
            nn.Linear(config.n_obs_steps * observation_dim, config.hidden_dim),
            *blocks,
            nn.LayerNorm(config.hidden_dim),
            nn.Linear(config.hidden_dim, config.chunk_size * config.action_feature.shape[0]),
        )
        self.reset()

    def predict(self, batch: dict[str, Tensor]) -> Tensor:
        block = self.block_encoder(batch)  # (B, T, F), F = 16 of keypoints
        observations = torch.cat([batch[OBS_STATE], block], dim=-1)  # (B, T, 2 + F)
        chunk: Tensor = self.net(observations.flatten(1)).unflatten(1, (self.config.chunk_size, -1))
        return chunk + self.origin(batch)  # (B, W, 2)

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        """L1 loss over the steps of the chunk that lie inside the episode."""
        loss = l1_loss(self.predict(batch), batch[ACTION], batch[f"{ACTION}_is_pad"])
        return loss, {"l1_loss": loss.item()}


class _ResidualBlock(nn.Module):
    def __init__(self, dim: int, dropout: float) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.LayerNorm(dim), nn.Linear(dim, dim), nn.GELU(), nn.Dropout(dropout), nn.Linear(dim, dim)
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.net(x)  # type: ignore[no-any-return]
