"""Configuration of ``il_bc``."""

from dataclasses import dataclass

from lerobot.configs import PreTrainedConfig

from il_bench.policies.keypoints import KeypointsConfig


@PreTrainedConfig.register_subclass("il_bc")
@dataclass
class ILBCConfig(KeypointsConfig):
    """Behaviour cloning: a residual MLP regresses the action chunk by the L1 loss.

    Args:
        hidden_dim: width of the network.
        n_layers: residual blocks.
        dropout: rate inside each block.
    """

    hidden_dim: int = 512
    n_layers: int = 3
    dropout: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is {self.dropout}; it must lie in [0, 1).")
