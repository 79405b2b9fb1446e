"""What no other test noticed when it was broken on purpose (benchmarks/faults.py, mutation testing)."""

import contextlib
from collections.abc import Callable
from typing import Any
from unittest import mock

import oracles
import pytest
import torch
from fitted import (
    CHUNK,
    KINDS,
    MAKERS,
    N_CODES,
    demonstrations,
    fit,
    fitted,
    own_copy,
    plain_residual_vq,
    plain_vqvae,
    same_state,
    state,
    vqvae_config,
)
from lerobot.policies.vqbet.modeling_vqbet import VqVae
from torch import nn

from il_bench.errors import IlBenchError
from il_bench.policies.vqbet import ResumableVqVae
from il_bench.tokenizers import FSQTokenizer, KMeansTokenizer, ResidualVQTokenizer, VQVAETokenizer
from il_bench.tokenizers import fsq as fsq_module
from il_bench.tokenizers import nearest as nearest_module
from il_bench.tokenizers import residual_vq as residual_vq_module
from il_bench.tokenizers.training import dead_below
from tests.small_policies import small_policy

# Freezing, reviving


def test_a_fitted_residual_vq_keeps_its_codes_in_training_mode() -> None:
    """As VQ-BeT's second phase uses it: LeRobot's own class, and ``train()`` called on all of the policy."""
    vqvae = own_copy("residual_vq").vqvae.train()
    before = vqvae.vq_layer.codebooks.clone()
    vqvae.vqvae_forward(demonstrations(64))
    vqvae.get_code(demonstrations(64))
    assert torch.equal(vqvae.vq_layer.codebooks, before)


def test_a_fitted_residual_vq_has_done_its_first_phase_and_is_frozen_as_lerobot_knows_it() -> None:
    tokenizer = ResidualVQTokenizer(ResumableVqVae(vqvae_config(CHUNK, 4, 5, 16)))
    fit(tokenizer, demonstrations(50), steps=3)
    vqvae = tokenizer.vqvae
    assert vqvae.optimized_steps == vqvae.state_dict()["n_optimized_steps"] == 3
    assert bool(vqvae.vq_layer.freeze_codebook) and bool(vqvae.discretized)


def test_the_policy_holds_the_residual_vq_that_resumes_and_stays_frozen() -> None:
    policy = small_policy("il_vqbet").train()
    vqvae = policy.tokenizer.vqvae
    assert vqvae.training
    vqvae.optimized_steps = 7
    again = small_policy("il_vqbet")
    again.load_state_dict(policy.state_dict())
    assert again.tokenizer.vqvae.optimized_steps == 7
    vqvae.discretized.fill_(True)
    policy.train()
    assert policy.training and not policy.tokenizer.vqvae.training


def test_a_code_revived_in_the_first_phase_weighs_what_it_takes_to_live() -> None:
    """Without that weight the average of the next batch alone would move it, and it would die at once."""
    torch.manual_seed(0)
    vqvae = ResumableVqVae(vqvae_config((3, 2), 4, 5, 16, revive_below=3.0)).train()
    book = vqvae.vq_layer.layers[0]._codebook
    book.cluster_size.copy_(torch.tensor([[50.0, 50.0, 0.0, 50.0]]))
    book.embed[0, 2], book.embed_avg[0, 2] = 1e3, 0.0
    vqvae.vqvae_forward(demonstrations(16))
    assert book.cluster_size[0, 2].item() == 3.0
    torch.testing.assert_close(book.embed_avg[0, 2], 3.0 * book.embed[0, 2])


# Fitting


@pytest.mark.parametrize("kind", KINDS)
def test_the_seed_is_0_unless_given(kind: str) -> None:
    unseeded, seeded = MAKERS[kind](), MAKERS[kind]()
    fit(seeded, demonstrations(60), steps=3)
    with mock.patch.object(seeded, "fit", lambda chunks, *, seed: unseeded.fit(chunks)):
        fit(seeded, demonstrations(60), steps=3)
    assert same_state(state(unseeded), state(seeded))


@pytest.mark.parametrize("kind", ["vqvae", "fsq"])
def test_a_doubled_network_is_fitted_in_float64(kind: str) -> None:
    tokenizer = MAKERS[kind]().double()
    fit(tokenizer, demonstrations(60).double())
    assert all(parameter.dtype == torch.float64 for parameter in tokenizer.parameters())
    tokens = tokenizer.encode(demonstrations(60).double())
    assert tokenizer.decode(tokens).dtype == torch.float64
    assert len(torch.unique(tokens)) > 1


@pytest.mark.parametrize("kind", ["kmeans", "vqvae"])
def test_as_many_different_chunks_as_codes_are_enough(kind: str) -> None:
    chunks = demonstrations(N_CODES)
    tokenizer = MAKERS[kind]()
    fit(tokenizer, torch.cat([chunks, chunks]))
    assert bool(tokenizer.fitted)


def test_commitment_keeps_the_latents_of_a_vqvae_at_their_codes() -> None:
    """Subtracted and not added, the loss drives them away from each other without end: 150 instead of 0.3."""
    tokenizer: Any = MAKERS["vqvae"]()
    fit(tokenizer, demonstrations(), steps=400)
    with torch.no_grad():
        latents = tokenizer.encoder(demonstrations().flatten(1))
        left = latents - tokenizer.codebook[tokenizer.encode(demonstrations())[:, 0]]
    assert left.square().mean() < 0.2 * latents.var(dim=0).mean()
    assert left.square().mean() < 2.0


def test_lloyds_iterations_go_on_to_the_end_however_many_it_takes() -> None:
    """Here about 500, where scikit-learn's own limit is 300."""
    chunks = torch.linspace(0.0, 3.0, 100_000).exp()[:, None, None]
    tokenizer = KMeansTokenizer(20, (1, 1))
    tokenizer.fit(chunks)
    flat, owners = oracles.array(chunks)[:, :, 0], tokenizer.encode(chunks)[:, 0].numpy()
    means = oracles.means_of_owned(flat, owners, oracles.array(tokenizer.centers))
    assert abs(means - oracles.array(tokenizer.centers)).max() <= 1e-5


# Arithmetic


@pytest.mark.parametrize("gradients", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_autocast_changes_no_token(kind: str, gradients: bool) -> None:
    """In 16 bits other codes would be nearest."""
    chunks = demonstrations(400, seed=4)
    tokens = fitted(kind).encode(chunks)
    decoded = fitted(kind).decode(tokens)
    with torch.set_grad_enabled(gradients), torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(own_copy(kind).encode(chunks), tokens)
        again = own_copy(kind).decode(tokens)
    assert again.dtype == decoded.dtype and torch.equal(again, decoded)


@pytest.mark.parametrize("kind", KINDS)
def test_autocast_changes_no_fit(kind: str) -> None:
    one, other = MAKERS[kind](), MAKERS[kind]()
    fit(one, demonstrations(100))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        fit(other, demonstrations(100))
    assert same_state(state(one), state(other))


def test_many_close_rows_are_decided_by_differences() -> None:
    """Squares of 1e6 leave nothing of distances of 1e-5, in float64 too."""
    step = 2.0**-20
    codebook = 2.0**20 + step * torch.tensor([[0.0, 0], [3, 0], [0, 3], [3, 3]], dtype=torch.float64)
    points = 2.0**20 + step * torch.cartesian_prod(*[torch.arange(-3.0, 7.0, dtype=torch.float64)] * 2)
    tokenizer = plain_vqvae(codebook.float()).double()
    tokenizer.quantizer._codebook.embed.copy_(codebook[None])
    expected = oracles.nearest(points, codebook)
    assert tokenizer.encode(points[:, None])[:, 0].tolist() == expected.tolist()


def test_large_codes_that_rounding_cannot_tell_apart_are_decided_by_differences() -> None:
    """Latents of 1e6 beside codes of norm 1e3, 1e-4 apart: products of both are what rounds."""
    wrong_in_float32 = 0
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        codebook = 1e3 + 1e-4 * torch.randn(16, 8, generator=generator, dtype=torch.float64)
        codebook = codebook.float()
        latents = 1e6 * torch.randn(50, 8, generator=generator)
        latents -= latents.mean(dim=1, keepdim=True)  # across the codes' own direction
        scores = latents @ codebook.T - codebook.square().sum(dim=1) / 2
        expected = oracles.nearest(latents, codebook)
        wrong_in_float32 += int((scores.argmax(dim=1).numpy() != expected).sum())
        assert nearest_module.nearest(latents, codebook).tolist() == expected.tolist()
    assert wrong_in_float32 > 100


def assert_as_new(tokenizer: Any, chunks: torch.Tensor) -> torch.Tensor:
    """Check the answers against those of a new tokenizer of the same weights; return the tokens."""
    tokens, new = tokenizer.encode(chunks), ResidualVQTokenizer(tokenizer.vqvae)
    assert torch.equal(tokens, new.encode(chunks))
    assert torch.equal(tokenizer.decode(tokens), new.decode(tokens))
    return tokens  # type: ignore[no-any-return]


@pytest.mark.parametrize("first_contiguous", [True, False])
def test_a_transposed_weight_is_another_weight(first_contiguous: bool) -> None:
    """Its bytes are the same, in the same order."""
    generator = torch.Generator().manual_seed(0)
    codes = torch.randn(2, 4, 3, generator=generator)
    tokenizer: Any = plain_residual_vq(codes)
    chunks = torch.randn(60, 1, 3, generator=generator)
    square = torch.randn(6, 6, generator=generator)
    layer = tokenizer.vqvae.encoder[2], tokenizer.vqvae.decoder[2]
    views = [square, square.t()] if first_contiguous else [square.t(), square]
    answers = []
    for view in views:
        for each in layer:
            each.weight.data = view
        tokens = assert_as_new(tokenizer, chunks)
        answers.append(tokenizer.decode(tokens))
    assert not torch.allclose(*answers)


def test_the_last_layer_may_be_transposed_too() -> None:
    """The encoder's last layer is folded into tables, which must notice it."""
    vqvae = ResumableVqVae(vqvae_config((2, 2), 6, 5, 5))
    vqvae.discretized.fill_(True)
    vqvae.vq_layer.layers[0].codebook = 0.1 * torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    tokenizer, chunks = ResidualVQTokenizer(vqvae.eval()), demonstrations(80)[:, :2]
    square = torch.randn(5, 5, generator=torch.Generator().manual_seed(1))
    for view in (square, square.t(), square):
        vqvae.encoder[4].weight.data = view
        assert_as_new(tokenizer, chunks)


# The fast path is one


def test_tables_are_made_once_for_the_same_weights() -> None:
    tokenizer = own_copy("residual_vq")
    tokenizer._encoder_tables = tokenizer._decoder_tables = None
    kinds = residual_vq_module.EncoderTables, residual_vq_module.DecoderTables
    with contextlib.ExitStack() as stack:
        made = [stack.enter_context(mock.patch.object(kind, "of", wraps=kind.of)) for kind in kinds]
        for n in (5, 1, 80):
            tokenizer.decode(tokenizer.encode(demonstrations(n)))
    assert [of.call_count for of in made] == [1, 1]


@pytest.mark.parametrize(
    ("kind", "module", "function"),
    [
        ("residual_vq", residual_vq_module, "encode_in_float64"),
        ("vqvae", nearest_module, "nearest_in_float64"),
    ],
)
def test_few_rows_are_decided_in_float64(kind: str, module: Any, function: str) -> None:
    rows = []

    def counting(latents: torch.Tensor, *rest: Any) -> Any:
        rows.append(len(latents))
        return original(latents, *rest)

    original: Callable[..., Any] = getattr(module, function)
    with mock.patch.object(module, function, counting):
        fitted(kind).encode(demonstrations(2000, seed=3))
    assert sum(rows) <= 40


@pytest.mark.parametrize(("n_codes", "all_decoded"), [(64, True), (65, False)])
def test_at_most_4096_combinations_are_decoded_beforehand(n_codes: int, all_decoded: bool) -> None:
    """More would take memory and the first call's time."""
    tokenizer: Any = plain_residual_vq(torch.randn(2, n_codes, 2))
    tokenizer.decode(torch.tensor([[0, n_codes - 1]]))
    assert (tokenizer._decoder_tables.chunks is not None) is all_decoded


# Sizes


def test_sizes_unless_given() -> None:
    """Those of the paper's code for VQ-BeT; saved weights depend on them."""
    ours, fsq, vqvae = (
        VQVAETokenizer(4, CHUNK),
        FSQTokenizer([3, 3], CHUNK),
        ResidualVQTokenizer.new(4, CHUNK).vqvae,
    )
    assert [layers[0].out_features for layers in (ours.encoder, fsq.decoder, vqvae.encoder)] == [128] * 3
    assert (ours.codebook.shape, vqvae.vq_layer.codebooks.shape) == ((4, 32), (2, 4, 256))


def test_the_networks_bend_between_their_layers() -> None:
    """A chain of linear layers would be one matrix, and fit the data almost as well."""
    for tokenizer in (VQVAETokenizer(4, CHUNK), FSQTokenizer([3, 3], CHUNK)):
        for network in (tokenizer.encoder, tokenizer.decoder):
            kinds = [type(layer).__name__ for layer in network]
            assert kinds == ["Linear", "ReLU", "Linear", "ReLU", "Linear"]


def test_what_the_library_is_told_of_a_vqvae() -> None:
    """Its own defaults are others, or may become so."""
    quantizer = VQVAETokenizer(64, CHUNK).quantizer
    codes = quantizer._codebook
    assert (quantizer.commitment_weight, codes.decay) == (0.25, 0.9)  # van den Oord et al. 2017, section 3.2
    assert codes.threshold_ema_dead_code == dead_below(64)
    assert not codes.initted  # by k-means, of the first batch


def test_as_many_fsq_codes_as_float32_can_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fsq_module, "MOST_CODES", 15)
    assert FSQTokenizer([5, 3], CHUNK).codebook_size == 15
    with pytest.raises(IlBenchError, match="make 16 codes; give at most 15"):
        FSQTokenizer([4, 4], CHUNK)


def test_an_encoder_of_two_layers_can_be_folded() -> None:
    vqvae = VqVae(MAKERS["residual_vq"]().vqvae.config).eval()
    vqvae.encoder = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 8))
    vqvae.discretized.fill_(True)
    tokenizer = ResidualVQTokenizer(vqvae)
    chunks = demonstrations(50)
    assert torch.equal(tokenizer.encode(chunks), tokenizer.reference_encode(chunks))
