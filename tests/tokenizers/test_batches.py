"""Tokens: of integer type, in range, in use, and a matter of the chunk alone, not of its batch."""

import math
from typing import Any

import numpy as np
import oracles
import pytest
import torch
from fitted import CHUNK, KINDS, demonstrations, fitted, frozen_vqvae
from hypothesis import given
from hypothesis import strategies as st
from lerobot.policies.vqbet.modeling_vqbet import VqVae
from oracles import EPS, check_same_tokens, near_ties
from scipy import stats
from strategies import chunks_of, examples, tokens_of

from il_bench.suite.reconstruction import use_of_codes

CODES = {"bins": 8**6, "kmeans": 8, "residual_vq": 8**2, "vqvae": 8, "fsq": 60}


@pytest.mark.parametrize("kind", KINDS)
@examples(15)
@given(chunks=chunks_of(CHUNK, elements=st.floats(-1e6, 1e6, width=32)))
def test_tokens_are_integers_in_range(kind: str, chunks: torch.Tensor) -> None:
    tokenizer = fitted(kind)
    for given_chunks in (chunks, chunks.double()):
        tokens = tokenizer.encode(given_chunks)
        assert tokens.shape == (len(chunks), tokenizer.num_quantizers)
        assert tokens.dtype == torch.int64
        assert tokens.min() >= 0 and tokens.max() < tokenizer.codebook_size


@pytest.mark.parametrize("kind", KINDS)
def test_bits_count_every_combination_of_tokens(kind: str) -> None:
    assert fitted(kind).bits_per_chunk == pytest.approx(math.log2(CODES[kind]))


@pytest.mark.parametrize("kind", KINDS)
@examples(12)
@given(data=st.data())
def test_tokens_do_not_depend_on_order_neighbours_or_batch_size(kind: str, data: st.DataObject) -> None:
    tokenizer, chunks = fitted(kind), data.draw(chunks_of(CHUNK))
    order = data.draw(st.permutations(range(len(chunks))))
    others = demonstrations(data.draw(st.sampled_from([1, 15, 64, 257])), seed=5)
    exempt = near_ties(kind, tokenizer, chunks, EPS[torch.float32])
    tokens = tokenizer.encode(chunks)
    assert torch.equal(tokenizer.encode(chunks), tokens)
    alone = torch.cat([tokenizer.encode(chunk[None]) for chunk in chunks])
    strided = chunks.repeat_interleave(2, dim=0)[::2]
    check_same_tokens(tokenizer.encode(chunks[order]), tokens[order], exempt[order])
    check_same_tokens(alone, tokens, exempt)
    check_same_tokens(tokenizer.encode(torch.cat([others, chunks]))[len(others) :], tokens, exempt)
    check_same_tokens(tokenizer.encode(strided), tokens, exempt)


@pytest.mark.parametrize("kind", KINDS)
def test_each_demonstration_has_the_same_tokens_alone_and_among_all(kind: str) -> None:
    tokenizer, chunks = fitted(kind), demonstrations(300, seed=1)
    exempt = near_ties(kind, tokenizer, chunks, EPS[torch.float32])
    assert exempt.mean() <= 0.05
    tokens = tokenizer.encode(chunks)
    assert len(torch.unique(tokens, dim=0)) > 4
    check_same_tokens(torch.cat([tokenizer.encode(chunk[None]) for chunk in chunks]), tokens, exempt)
    check_same_tokens(tokenizer.encode(chunks.flip(0)).flip(0), tokens, exempt)


@pytest.mark.parametrize("kind", KINDS)
@examples(12)
@given(data=st.data())
def test_decoding_does_not_depend_on_the_batch(kind: str, data: st.DataObject) -> None:
    tokenizer: Any = fitted(kind)
    tokens = data.draw(tokens_of(tokenizer.codebook_size, tokenizer.num_quantizers))
    chunks = tokenizer.decode(tokens)
    assert chunks.shape == (len(tokens), *CHUNK)
    assert chunks.dtype == torch.float32
    assert torch.equal(tokenizer.decode(tokens), chunks)
    expected, error = expected_chunks(kind, tokenizer, tokens)
    alone = torch.cat([tokenizer.decode(token[None]) for token in tokens])
    for decoded in (chunks, alone, tokenizer.decode(tokens.flip(0)).flip(0)):
        off = np.abs(oracles.array(decoded).reshape(len(tokens), -1) - expected)
        assert (off <= error).all(), f"off by {off.max():.3g}, allowed {np.min(error):.3g}"


def expected_chunks(kind: str, tokenizer: Any, tokens: torch.Tensor) -> Any:
    """What the tokens (N, G) decode to, (N, W * A) in float64, and how far float32 may be off."""
    eps, index = EPS[torch.float32], tokens.numpy()
    if kind == "bins":
        low, high = oracles.array(tokenizer.low), oracles.array(tokenizer.high)
        centers = (2 * index + 1) * (high - low) / (2 * tokenizer.codebook_size) + low
        return centers, eps * np.abs(centers)
    if kind == "kmeans":
        return oracles.array(tokenizer.centers)[index[:, 0]], 0.0
    if kind == "residual_vq":
        codebooks = oracles.array(tokenizer.vqvae.vq_layer.codebooks)
        latents = sum(codebook[column] for codebook, column in zip(codebooks, index.T, strict=True))
        decoded = oracles.mlp(tokenizer.vqvae.decoder, latents, 2 * eps)
        return decoded.value, decoded.error
    if kind == "vqvae":
        latents = oracles.array(tokenizer.codebook)[index[:, 0]]
    else:
        digits = np.stack([index[:, 0] % 5, index[:, 0] // 5 % 4, index[:, 0] // 20], axis=1)
        latents = (digits - [2, 2, 1]) / [2, 2, 1]
    decoded = oracles.mlp(tokenizer.decoder, latents, eps)
    return decoded.value, decoded.error


def test_lerobot_encodes_the_same_alone_and_among_others_outside_near_ties() -> None:
    """Matrix products of other sizes round otherwise, so its tokens depend on the batch within the margin."""
    generator = torch.Generator().manual_seed(0)
    codebooks = torch.randn(2, 16, 6, generator=generator)
    vqvae = frozen_vqvae(codebooks, VqVae)
    chunks = torch.randn(200, 1, 6, generator=generator)
    left, exempt = oracles.array(chunks)[:, 0], np.zeros(200, dtype=bool)
    for codebook in oracles.array(codebooks):
        error = oracles.expanded_error(left, codebook, oracles.EPS[torch.float32])
        exempt |= oracles.near_tie(oracles.squared_distances(left, codebook), error)
        left = left - codebook[oracles.nearest(left, codebook)]
    alone = torch.cat([vqvae.get_code(chunk[None])[1] for chunk in chunks])
    oracles.check_same_tokens(vqvae.get_code(chunks)[1], alone, exempt)


# Usage and perplexity, as the report states them


def check_use(tokens: torch.Tensor, codebook_size: int) -> None:
    """Against scipy's entropy; and 1 <= perplexity <= codes in use <= the fewer of codes and tokens."""
    usage, perplexity = use_of_codes(tokens, codebook_size)
    counts = [np.bincount(column, minlength=codebook_size) for column in tokens.numpy().T]
    in_use = np.mean([(count > 0).sum() for count in counts])
    assert usage == pytest.approx(in_use / codebook_size, rel=1e-6)
    assert perplexity == pytest.approx(np.mean([np.exp(stats.entropy(count)) for count in counts]), rel=1e-5)
    assert 1 / codebook_size <= usage * (1 + 1e-6) <= min(1.0, len(tokens) / codebook_size) * (1 + 2e-6)
    assert 1 - 1e-6 <= perplexity <= in_use * (1 + 1e-5)


@examples(50)
@given(data=st.data(), codebook_size=st.integers(1, 40), num_quantizers=st.integers(1, 3))
def test_usage_and_perplexity_are_within_their_bounds(
    data: st.DataObject, codebook_size: int, num_quantizers: int
) -> None:
    check_use(data.draw(tokens_of(codebook_size, num_quantizers, most=60)), codebook_size)


@pytest.mark.parametrize("kind", KINDS)
def test_usage_and_perplexity_of_a_fitted_tokenizer(kind: str) -> None:
    tokenizer: Any = fitted(kind)
    check_use(tokenizer.encode(demonstrations()), tokenizer.codebook_size)


@pytest.mark.parametrize("n", [1, 7, 64])
def test_the_extremes_are_reached(n: int) -> None:
    """Every code equally often: all of them; one code only: one."""
    assert use_of_codes(torch.arange(n).repeat(3)[:, None], n) == pytest.approx((1.0, n))
    assert use_of_codes(torch.zeros(9, 1, dtype=torch.int64), n) == pytest.approx((1 / n, 1.0))
