"""The tokenizer of a checkpoint: its policy's own tokens, and refusals by name."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from il_bench.errors import IlBenchError
from il_bench.policies.loading import load_policy
from il_bench.policies.tokenizers import load_tokenizer
from il_bench.tokenizers import KMeansTokenizer, ResidualVQTokenizer

from .conftest import small_policy, train_a_little


def chunks_for(tokenizer: Any, n: int = 200) -> torch.Tensor:
    return torch.randn(n, *tokenizer.chunk_shape, generator=torch.Generator().manual_seed(0))


def saved(policy: Any, folder: Path) -> Path:
    policy.save_pretrained(folder)
    return folder


@pytest.fixture
def with_images(tmp_path: Path) -> Path:
    """LeRobot's own vqbet on images, past its first phase, as its commands save it; six actions, not two."""
    from lerobot.configs import FeatureType, PolicyFeature
    from lerobot.policies.vqbet.configuration_vqbet import VQBeTConfig
    from lerobot.policies.vqbet.modeling_vqbet import VQBeTPolicy

    config = VQBeTConfig(
        input_features={
            "observation.state": PolicyFeature(FeatureType.STATE, (6,)),
            "observation.image": PolicyFeature(FeatureType.VISUAL, (3, 96, 96)),
        },
        output_features={"action": PolicyFeature(FeatureType.ACTION, (6,))},
        device="cpu",
        pretrained_backbone_weights=None,
        vqvae_n_embed=8,
        vqvae_embedding_dim=16,
        gpt_input_dim=16,
        gpt_hidden_dim=16,
        gpt_output_dim=16,
        gpt_n_layer=1,
        gpt_n_head=2,
    )
    torch.manual_seed(0)
    policy = VQBeTPolicy(config)
    vqvae = policy.vqbet.action_head.vqvae_model
    vqvae.discretized.fill_(True)
    vqvae.vq_layer.freeze_codebook.fill_(True)
    return saved(policy, tmp_path / "vqbet")


@pytest.mark.parametrize(
    ("kind", "expected"), [("il_vqbet", ResidualVQTokenizer), ("il_bet", KMeansTokenizer)]
)
def test_it_codes_as_its_policy_does(kind: str, expected: type, tmp_path: Path) -> None:
    policy = small_policy(kind)
    train_a_little(policy)
    tokenizer = load_tokenizer(saved(policy, tmp_path / "run" / "pretrained_model").parent)
    assert type(tokenizer) is expected and not any(module.training for module in tokenizer.modules())
    chunks = chunks_for(tokenizer)
    tokens = tokenizer.encode(chunks)
    assert torch.equal(tokens, policy.tokenizer.encode(chunks))
    assert torch.equal(tokenizer.decode(tokens), policy.tokenizer.decode(tokens))
    held, inside = tokenizer.state_dict(), policy.tokenizer.state_dict()
    assert held.keys() == inside.keys() and all(torch.equal(held[key], inside[key]) for key in held)


@pytest.mark.parametrize("name", ["vqbet", "bet"])
def test_the_zoos_open_by_name(name: str) -> None:
    tokenizer = load_tokenizer(name)
    chunks = chunks_for(tokenizer)
    assert torch.equal(tokenizer.encode(chunks), load_policy(name).policy.tokenizer.encode(chunks))


def test_lerobots_own_opens_without_its_images(with_images: Path) -> None:
    from lerobot.policies.vqbet.modeling_vqbet import VQBeTPolicy

    tokenizer = load_tokenizer(with_images)
    assert tokenizer.chunk_shape == (5, 6) and tokenizer.codebook_size == 8
    chunks = chunks_for(tokenizer)
    theirs = VQBeTPolicy.from_pretrained(with_images).vqbet.action_head.vqvae_model.eval()
    assert torch.equal(tokenizer.encode(chunks), theirs.get_code(chunks)[1])
    # A checkpoint's image encoder need not even fit.
    config = json.loads((with_images / "config.json").read_text())
    (with_images / "config.json").write_text(json.dumps({**config, "vision_backbone": "resnet34"}))
    assert torch.equal(load_tokenizer(with_images).encode(chunks), tokenizer.encode(chunks))


def test_opening_one_draws_nothing_from_the_global_generator() -> None:
    before = torch.get_rng_state()
    load_tokenizer("vqbet")
    assert torch.equal(torch.get_rng_state(), before)


def test_a_policy_without_a_tokenizer_is_named(checkpoint: Path) -> None:
    with pytest.raises(
        IlBenchError, match=r"a policy of type act has no action tokenizer; give a checkpoint"
    ):
        load_tokenizer(checkpoint)


def test_a_first_phase_that_is_not_over_is_named(tmp_path: Path) -> None:
    policy = small_policy("il_vqbet")
    train_a_little(policy, steps=1)
    with pytest.raises(IlBenchError, match=r"unfinished: its tokenizer is not trained yet"):
        load_tokenizer(saved(policy, tmp_path / "unfinished"))


def test_weights_that_do_not_fit_are_named(with_images: Path) -> None:
    config = json.loads((with_images / "config.json").read_text())
    (with_images / "config.json").write_text(json.dumps({**config, "vqvae_n_embed": 9}))
    with pytest.raises(
        IlBenchError, match=r"model\.safetensors: the weights do not fit vqbet: .*codebook\.embed"
    ):
        load_tokenizer(with_images)


def test_missing_and_broken_weights_are_named(with_images: Path) -> None:
    weights = with_images / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(IlBenchError, match=r"model\.safetensors: not readable as safetensors"):
        load_tokenizer(with_images)
    weights.unlink()
    with pytest.raises(IlBenchError, match=r"model\.safetensors: missing"):
        load_tokenizer(with_images)


def test_a_hub_id_offline_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(
        IlBenchError, match="nobody/nothing: not a local folder, and not to be had from the Hub"
    ):
        load_tokenizer("nobody/nothing")
