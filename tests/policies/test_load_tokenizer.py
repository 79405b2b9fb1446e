"""The tokenizer of a checkpoint or of a policy in memory: its policy's own tokens, and refusals by name."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from il_bench.policies.checkpoint import load_policy
from il_bench.policies.tokenizers import load_tokenizer, tokenizer_of
from il_bench.tokenizers import KMeansTokenizer, ResidualVQTokenizer
from tests.conftest import Run
from tests.small_policies import features, save, small_policy, train_a_little

from .conftest import edited, refuses


def chunks_for(tokenizer: Any, n: int = 200) -> torch.Tensor:
    return torch.randn(n, *tokenizer.chunk_shape, generator=torch.Generator().manual_seed(0))


def tokenizer_in(policy: Any, folder: Path) -> Any:
    """What is loaded of the policy, saved without its processors."""
    policy.save_pretrained(folder)
    return load_tokenizer(folder)


def lerobots(action_dim: int, *, trained: bool = True) -> Any:
    """LeRobot's own vqbet on images, by default past its first phase."""
    seen = features(state=(action_dim,), image=(3, 96, 96))
    policy = small_policy("vqbet", input_features=seen, action_dim=action_dim)
    vqvae = policy.vqbet.action_head.vqvae_model
    vqvae.discretized.fill_(trained)
    vqvae.vq_layer.freeze_codebook.fill_(trained)
    return policy


@pytest.fixture
def with_images(tmp_path: Path) -> Path:
    """As LeRobot's commands save it; six actions, not two."""
    lerobots(6).save_pretrained(tmp_path / "vqbet")
    return tmp_path / "vqbet"


@pytest.mark.parametrize(
    ("kind", "expected"), [("il_vqbet", ResidualVQTokenizer), ("il_bet", KMeansTokenizer)]
)
def test_it_codes_as_its_policy_does(kind: str, expected: type, tmp_path: Path) -> None:
    policy = train_a_little(small_policy(kind))
    policy.save_pretrained(tmp_path / "run" / "pretrained_model")
    tokenizer = load_tokenizer(tmp_path / "run")
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
    with edited(with_images / "config.json") as config:
        config["vision_backbone"] = "resnet34"
    assert torch.equal(load_tokenizer(with_images).encode(chunks), tokenizer.encode(chunks))


USERS_TEST = """
import torch
from il_bench.policies.tokenizers import load_tokenizer

def test_it(policy, tokenizer):
    chunks = torch.rand(50, *tokenizer.chunk_shape)
    assert torch.equal(tokenizer.encode(chunks), load_tokenizer(policy.checkpoint).encode(chunks))
    # The policy's own weights, not a copy of them.
    held = {each.data_ptr() for each in policy.policy.parameters()}
    assert {each.data_ptr() for each in tokenizer.parameters()} <= held
"""


@pytest.mark.slow
def test_the_fixture_gives_it_for_lerobots_own_policy_too(
    tmp_path: Path, pytester: pytest.Pytester, light: Run
) -> None:
    pytester.makepyfile(USERS_TEST)
    policies = [
        str(save(lerobots(2, trained=name == "trained"), tmp_path / name))
        for name in ("trained", "unfinished")
    ]
    result = light(*[part for path in policies for part in ("--il-policy", path)])
    result.assert_outcomes(passed=1, errors=1)
    assert "another exception" not in result.stdout.str()
    result.stdout.fnmatch_lines(["*/unfinished: its tokenizer is not trained yet; give a checkpoint*"])


class Reader(torch.nn.Module):
    """A policy that reads instructions, as LeRobot's of language do."""

    tokenizer = staticmethod(str.split)


def test_what_has_no_action_tokenizer_has_none() -> None:
    assert tokenizer_of(load_policy("bc").policy, "bc") is None
    assert tokenizer_of(Reader(), "a reader") is None
    assert type(tokenizer_of(load_policy("bet").policy, "bet")) is KMeansTokenizer


def test_opening_one_draws_nothing_from_the_global_generator() -> None:
    before = torch.get_rng_state()
    load_tokenizer("vqbet")
    assert torch.equal(torch.get_rng_state(), before)


def test_a_policy_without_a_tokenizer_is_named(checkpoint: Path) -> None:
    refuses(r"a policy of type act has no action tokenizer; give a checkpoint", load_tokenizer, checkpoint)


def test_a_first_phase_that_is_not_over_is_named(tmp_path: Path) -> None:
    policy = train_a_little(small_policy("il_vqbet"), steps=1)
    refuses(r"unfinished: its tokenizer is not trained yet", tokenizer_in, policy, tmp_path / "unfinished")


def test_weights_that_do_not_fit_are_named(with_images: Path) -> None:
    with edited(with_images / "config.json") as config:
        config["vqvae_n_embed"] = 9
    refuses(
        r"model\.safetensors: the weights do not fit vqbet as config.json .*codebook",
        load_tokenizer,
        with_images,
    )


def test_missing_and_broken_weights_are_named(with_images: Path) -> None:
    weights = with_images / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    refuses(r"model\.safetensors: cut: 100 bytes are there of", load_tokenizer, with_images)
    weights.unlink()
    refuses(r"model\.safetensors: missing", load_tokenizer, with_images)
    weights.mkdir()
    refuses(r"model\.safetensors: not a file; a pretrained_model folder", load_tokenizer, with_images)
    refuses(r"^a{300}: no such policy\. Give one of bet, vqbet, a pretrained", load_tokenizer, "a" * 300)


def test_only_what_has_a_tokenizer_is_offered() -> None:
    refuses(r"^nothing: no such policy\. Give one of bet, vqbet, a pretrained", load_tokenizer, "nothing")
    refuses(r"^expert: the planner has no action tokenizer; .* bet or vqbet\.$", load_tokenizer, "expert")


@pytest.mark.parametrize("bad", [float("nan"), float("-inf")])
@pytest.mark.parametrize(
    ("kind", "tensor"),
    [
        ("il_vqbet", "vqbet.action_head.vqvae_model.vq_layer.layers.1._codebook.embed"),
        ("il_vqbet", "vqbet.action_head.vqvae_model.decoder.0.bias"),
        ("il_bet", "tokenizer.centers"),
    ],
)
def test_weights_that_are_not_finite_are_named(kind: str, tensor: str, bad: float, tmp_path: Path) -> None:
    policy = train_a_little(small_policy(kind))
    policy.state_dict()[tensor].view(-1)[-1] = bad
    diverged = tmp_path / "diverged"
    refuses(
        rf"model\.safetensors: {re.escape(tensor)} holds NaN or infinity; give",
        tokenizer_in,
        policy,
        diverged,
    )
    name = tensor.rpartition("vqvae_model.")[2].removeprefix("tokenizer.")
    refuses(rf"^mine: its tokenizer's (vqvae\.)?{name} holds NaN or infinity", tokenizer_of, policy, "mine")


def test_only_the_tokenizers_own_weights_need_be_finite(tmp_path: Path) -> None:
    policy = train_a_little(small_policy("il_bet"))
    other = next(weight for key, weight in policy.state_dict().items() if not key.startswith("tokenizer."))
    other.view(-1)[0] = float("nan")
    assert tokenizer_in(policy, tmp_path / "elsewhere").fitted
