"""The learning rate's schedule and the averaged weights, worked out by hand."""

from typing import Any

import numpy as np
import pytest
import torch

from il_bench.train.optimization import AveragedPolicy, lr_factor
from il_bench.train.recipes import Training


def test_learning_rate_rises_and_falls_after_the_first_phase() -> None:
    settings = Training(steps=24, batch_size=16, lr=0.1, warmup_steps=2)
    factors = [lr_factor(settings, step, residual_vq_steps=4) for step in range(24)]
    assert factors[:4] == [1.0] * 4  # residual VQ, at its own constant rate
    assert factors[4] == 0.5 and factors[5] > 0.9  # two steps of warm-up
    assert factors[14] == pytest.approx(0.5)  # half-way down the cosine
    assert factors[23] < 0.02


def test_a_cooldown_ends_a_longer_cosine() -> None:
    settings = Training(steps=20, batch_size=16, lr=0.1, warmup_steps=0, cosine_steps=40, cooldown_steps=10)
    factors = [lr_factor(settings, step) for step in (0, 10, 15, 20)]
    cosine = [0.5 * (1 + np.cos(np.pi * step / 40)) for step in (10, 15)]
    assert factors == pytest.approx([1.0, cosine[0], cosine[1] / 2, 0.0])


def test_average_is_worked_out_by_hand() -> None:
    class Two(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.tensor([0.0]))
            self.register_buffer("codes", torch.tensor([0.0]))

    policy: Any = Two()
    average = AveragedPolicy(policy, decay=0.15)
    for value in (1.0, 3.0):
        policy.weight.data.fill_(value)
        policy.codes.fill_(value)
        average.update(policy)
    # decay min(0.15, 1/10) and then min(0.15, 2/11): 0.9 * 1, and 0.15 * 0.9 + 0.85 * 3
    assert average.policy.weight.item() == pytest.approx(0.15 * 0.9 + 0.85 * 3.0)
    assert average.policy.codes.item() == 3.0
