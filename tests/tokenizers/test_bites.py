"""What no other test noticed when it was broken on purpose (benchmarks/faults.py, mutation testing)."""

import torch
from fitted import demonstrations, own_copy


def test_a_fitted_residual_vq_keeps_its_codes_in_training_mode() -> None:
    """As VQ-BeT's second phase uses it: LeRobot's own class, and ``train()`` called on all of the policy."""
    vqvae = own_copy("residual_vq").vqvae.train()
    before = vqvae.vq_layer.codebooks.clone()
    vqvae.vqvae_forward(demonstrations(64))
    vqvae.get_code(demonstrations(64))
    assert torch.equal(vqvae.vq_layer.codebooks, before)
