"""Configuration of ``il_bet``."""

from dataclasses import dataclass

from lerobot.configs import PreTrainedConfig

from il_bench.policies.keypoints import KeypointsConfig


@PreTrainedConfig.register_subclass("il_bet")
@dataclass
class ILBeTConfig(KeypointsConfig):
    """Behavior Transformer (Shafiullah et al. 2022): k-means centre by classification, offset by regression.

    Args:
        codebook_size: cluster centres.
        offset_loss_weight: weight of the offset's L1 loss beside the focal loss of the centre.
        focal_gamma: focusing parameter of the focal loss (the paper's section 3.3).
        softmax_temperature: of the distribution a centre is drawn from in a rollout; 0 takes the likeliest.
        gpt_*, dropout: LeRobot's minGPT, as in its VQ-BeT.
    """

    chunk_size: int = 8
    codebook_size: int = 64
    offset_loss_weight: float = 10.0
    focal_gamma: float = 2.0
    softmax_temperature: float = 0.1
    gpt_block_size: int = 32
    gpt_input_dim: int = 128
    gpt_hidden_dim: int = 128
    gpt_output_dim: int = 128
    gpt_n_layer: int = 4
    gpt_n_head: int = 4
    dropout: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.codebook_size < 2:
            raise ValueError(f"codebook_size is {self.codebook_size}; it must be at least 2.")
        if self.softmax_temperature < 0:
            raise ValueError(f"softmax_temperature is {self.softmax_temperature}; it must not be negative.")
        if 2 * self.n_obs_steps > self.gpt_block_size:
            raise ValueError(
                f"gpt_block_size is {self.gpt_block_size}; n_obs_steps = {self.n_obs_steps} needs "
                f"{2 * self.n_obs_steps} tokens."
            )
