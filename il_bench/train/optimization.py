"""How a policy's weights move: the learning rate's schedule, and the average that is kept of them."""

import copy
import math

import torch
from lerobot.policies.pretrained import PreTrainedPolicy

from il_bench.train.recipes import Training


def lr_factor(settings: Training, step: int, residual_vq_steps: int = 0) -> float:
    """Share of the learning rate at ``step``: a linear warm-up, then a cosine and perhaps a cooldown.

    While VQ-BeT trains only its residual VQ it is 1.
    """
    if step < residual_vq_steps:
        return 1.0
    done, length = step - residual_vq_steps, (settings.cosine_steps or settings.steps) - residual_vq_steps
    warmup = min(1.0, (done + 1) / max(1, settings.warmup_steps))
    cosine = 0.5 * (1 + math.cos(math.pi * done / length))
    final = settings.final_lr_fraction
    cooldown = min(1.0, (settings.steps - step) / max(1, settings.cooldown_steps))
    return warmup * cooldown * (final + (1 - final) * cosine)


class AveragedPolicy:
    """A second policy whose parameters are the exponential moving average of the trained one's.

    Parameters are averaged; buffers (codebooks, cluster centres, counters) are copied, since an average of
    two codebooks is no codebook. The decay rises as (1 + t) / (10 + t) up to ``decay``, so that the first
    weights are soon forgotten.
    """

    def __init__(self, policy: PreTrainedPolicy, decay: float) -> None:
        self.decay = decay
        self.policy = copy.deepcopy(policy).eval()
        for parameter in self.policy.parameters():
            parameter.requires_grad_(False)
        self.n_updates = 0

    @torch.no_grad()
    def restart(self, policy: PreTrainedPolicy) -> None:
        """Forget the average: take the weights as they are."""
        self.policy.load_state_dict(policy.state_dict())
        self.n_updates = 0

    @torch.no_grad()
    def update(self, policy: PreTrainedPolicy) -> None:
        """Move the average one step towards ``policy``."""
        decay = min(self.decay, (1 + self.n_updates) / (10 + self.n_updates))
        averaged, current = list(self.policy.parameters()), list(policy.parameters())
        torch._foreach_lerp_(averaged, [p.detach() for p in current], 1 - decay)
        for mine, theirs in zip(self.policy.buffers(), policy.buffers(), strict=True):
            mine.copy_(theirs)
        self.n_updates += 1
