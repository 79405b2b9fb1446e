"""Configuration of ``il_vqbet``."""

from dataclasses import dataclass, field

from lerobot.configs import NormalizationMode, PreTrainedConfig
from lerobot.policies.vqbet.configuration_vqbet import VQBeTConfig

from il_bench.policies.keypoints import check_keypoint_features, min_max_mapping


@PreTrainedConfig.register_subclass("il_vqbet")
@dataclass
class ILVQBeTConfig(VQBeTConfig):
    """LeRobot's VQ-BeT with the keypoints in the place of the image.

    Args:
        n_action_steps: steps of the chunk that are executed before it predicts again.
        relative_actions: chunks relative to the agent's (normalised) position where each begins; residual VQ
            then needs not spend its codes on where the agent is.
        teach_true_primary: train secondary head and offsets on the primary code that a chunk has, as BeT
            trains its offsets (Shafiullah et al. 2022, section 3.2), and not on the one the head has just
            sampled, as LeRobot does: offsets that mend a wrong primary code lead to the mean of all moves.
            The secondary code is sampled either way. Needs ``sequentially_select``.
        vqvae_revive_below: in the first phase, replace a code whose chunks a batch, on average, are fewer by
            one of the batch. LeRobot's 0 never does, and most primary codes are then never used.
        discover_packages_path: not used, as in ``KeypointsConfig``.
    """

    n_obs_steps: int = 2
    n_action_pred_token: int = 1
    action_chunk_size: int = 8
    n_action_steps: int = 8
    relative_actions: bool = True
    teach_true_primary: bool = False
    vqvae_revive_below: float = 0.0
    gpt_block_size: int = 32
    discover_packages_path: str | None = None
    normalization_mapping: dict[str, NormalizationMode] = field(default_factory=min_max_mapping)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.n_action_steps <= self.action_chunk_size:
            raise ValueError(
                f"n_action_steps is {self.n_action_steps}; it must lie in 1 .. action_chunk_size = "
                f"{self.action_chunk_size}."
            )
        if self.teach_true_primary and not self.sequentially_select:
            raise ValueError("teach_true_primary is set; it needs sequentially_select = true.")
        n_tokens = 3 * self.n_obs_steps + self.n_action_pred_token - 1
        if n_tokens > self.gpt_block_size:
            raise ValueError(f"gpt_block_size is {self.gpt_block_size}; this policy needs {n_tokens} tokens.")

    def validate_features(self) -> None:
        """Raise ValueError unless the inputs are the agent's and the block's state, the output an action."""
        check_keypoint_features(self)
