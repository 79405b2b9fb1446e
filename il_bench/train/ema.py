"""Exponential moving average of a policy's weights."""

import copy

import torch
from lerobot.policies.pretrained import PreTrainedPolicy


class AveragedPolicy:
    """A second policy whose parameters follow the trained one's average.

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
