"""What no other test noticed when it was broken on purpose (benchmarks/faults.py, mutation testing)."""

import torch
from fitted import demonstrations, own_copy
from lerobot.configs import FeatureType, PolicyFeature

from il_bench.policies.configuration_vqbet import ILVQBeTConfig
from il_bench.policies.modeling_vqbet import ILVQBeTPolicy


def test_a_fitted_residual_vq_keeps_its_codes_in_training_mode() -> None:
    """As VQ-BeT's second phase uses it: LeRobot's own class, and ``train()`` called on all of the policy."""
    vqvae = own_copy("residual_vq").vqvae.train()
    before = vqvae.vq_layer.codebooks.clone()
    vqvae.vqvae_forward(demonstrations(64))
    vqvae.get_code(demonstrations(64))
    assert torch.equal(vqvae.vq_layer.codebooks, before)


def test_the_policy_holds_the_residual_vq_that_resumes_and_stays_frozen() -> None:
    config = ILVQBeTConfig(
        input_features={
            "observation.state": PolicyFeature(FeatureType.STATE, (2,)),
            "observation.environment_state": PolicyFeature(FeatureType.ENV, (16,)),
        },
        output_features={"action": PolicyFeature(FeatureType.ACTION, (2,))},
        device="cpu",
        **{"gpt_input_dim": 8, "gpt_output_dim": 8, "gpt_hidden_dim": 8, "gpt_n_layer": 1, "gpt_n_head": 1},
    )
    policy = ILVQBeTPolicy(config).train()
    vqvae = policy.tokenizer.vqvae
    assert vqvae.training
    vqvae.optimized_steps = 7
    again = ILVQBeTPolicy(config)
    again.load_state_dict(policy.state_dict())
    assert again.tokenizer.vqvae.optimized_steps == 7
    vqvae.discretized.fill_(True)
    policy.train()
    assert policy.training and not policy.tokenizer.vqvae.training
