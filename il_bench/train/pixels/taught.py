"""LeRobot's ``vqbet``, taught as il_bench's VQ-BeT is; what is saved is LeRobot's, weight for weight.

Unused codes are revived in the first phase. Offsets and the secondary code are taught with the chunk's own
primary code, not a sampled one. Codes, offsets and losses are in float32. A frozen residual VQ stays in eval
mode.
"""

from typing import Any

import torch
from lerobot.policies.vqbet.configuration_vqbet import VQBeTConfig
from lerobot.policies.vqbet.modeling_vqbet import VQBeTHead, VQBeTPolicy
from lerobot.utils.constants import ACTION
from torch import Tensor

from il_bench.policies.vqbet import with_true_primary

_REVIVE_BELOW = 2.0  # chunks of a batch that a code gets on average, as in `il_vqbet`


class TaughtVQBeT(VQBeTPolicy):  # type: ignore[misc]
    """``VQBeTPolicy``, for training alone."""

    def __init__(self, config: VQBeTConfig, **kwargs: Any) -> None:
        super().__init__(config, **kwargs)
        self.vqbet.action_head = _TaughtHead(config)

    @property
    def trains_residual_vq_only(self) -> bool:
        """Whether the residual VQ is still being trained; until then the policy can predict nothing."""
        return not bool(self.vqbet.action_head.vqvae_model.discretized)

    def resume_at(self, step: int) -> None:
        """Go on from a step: LeRobot counts the first phase in an attribute that no checkpoint holds."""
        self.vqbet.action_head.vqvae_model.optimized_steps = step

    def train(self, mode: bool = True) -> "TaughtVQBeT":
        """Like ``nn.Module.train``, but a frozen residual VQ stays in eval mode."""
        super().train(mode)
        if not self.trains_residual_vq_only:
            self.vqbet.action_head.vqvae_model.eval()
        return self

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Any]]:
        """LeRobot's losses, the second phase's for the true primary codes."""
        head = self.vqbet.action_head
        head.chunks = batch[ACTION][:, self.vqbet.select_target_actions_indices]  # (B, Q, W, 2)
        try:
            return super().forward(batch)  # type: ignore[no-any-return]
        finally:
            head.chunks = None


class _TaughtHead(VQBeTHead):  # type: ignore[misc]
    def __init__(self, config: VQBeTConfig) -> None:
        super().__init__(config)
        self.chunks: Tensor | None = None
        for stage in self.vqvae_model.vq_layer.layers:
            stage._codebook.threshold_ema_dead_code = _REVIVE_BELOW
            stage._codebook.reset_cluster_size = _REVIVE_BELOW

    def discretize(self, n_vqvae_training_steps: int, actions: Tensor) -> Any:
        with torch.autocast(actions.device.type, enabled=False):
            return super().discretize(n_vqvae_training_steps, actions)

    def forward(self, x: Tensor, **kwargs: Any) -> dict[str, Tensor]:
        if self.chunks is None:
            return super().forward(x, **kwargs)  # type: ignore[no-any-return]
        with torch.autocast(x.device.type, enabled=False):
            return with_true_primary(self, x.float(), self.chunks)

    def loss_fn(self, pred: dict[str, Tensor], target: Tensor, **kwargs: Any) -> dict[str, Any]:
        with torch.autocast(target.device.type, enabled=False):
            return super().loss_fn(pred, target, **kwargs)  # type: ignore[no-any-return]
