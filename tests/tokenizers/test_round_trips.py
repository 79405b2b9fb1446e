"""Token to chunk to token, code to code, chunk to chunk."""

import itertools
from typing import Any

import numpy as np
import oracles
import pytest
import torch
from fitted import (
    CHUNK,
    LEARNED,
    fitted,
    plain_fsq,
    plain_kmeans,
    plain_residual_vq,
    plain_vqvae,
)
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from strategies import chunks_of, examples, problems, smooth, two_stages

from il_bench.tokenizers import UniformBinsTokenizer


def first_of_equals(codebook: np.ndarray) -> list[int]:
    """For each code the lowest index that holds the same one."""
    return [int(np.flatnonzero((codebook == code).all(axis=1))[0]) for code in codebook]


# Quantizing a code gives that code


@pytest.mark.parametrize("make", [plain_kmeans, plain_vqvae])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@examples(30)
@given(
    problem=problems(smooth), scale=st.sampled_from([1e-5, 1.0, 1e4]), shift=st.sampled_from([0.0, 1.0, 1e3])
)
def test_a_code_is_its_own_token(
    make: Any, dtype: torch.dtype, problem: Any, scale: float, shift: float
) -> None:
    """Also among codes close together and far from the origin, where expanded squares say nothing."""
    codebook = np.float32(scale) * problem[1] + np.float32(shift)
    tokenizer = make(torch.from_numpy(codebook)).to(dtype)
    every = torch.arange(len(codebook))[:, None]
    codes = tokenizer.decode(every)
    assert codes.dtype == dtype
    assert np.array_equal(codes[:, 0].numpy().astype(np.float32), codebook)
    assert tokenizer.encode(codes)[:, 0].tolist() == first_of_equals(codebook)


@examples(40)
@given(problem=two_stages(smooth, dim=3), shift=st.sampled_from([0.0, 1e3]))
def test_residual_vq_keeps_a_code_of_its_first_stage(problem: Any, shift: float) -> None:
    """And then has nothing left but zero to quantize in the second."""
    codebooks = problem[1] + np.float32([[[shift]], [[0.0]]])
    tokenizer = plain_residual_vq(torch.from_numpy(codebooks))
    tokens = tokenizer.encode(torch.from_numpy(codebooks[0])[:, None]).tolist()
    zero = int(oracles.nearest(np.zeros((1, 3)), codebooks[1])[0])
    assert tokens == [[first, zero] for first in first_of_equals(codebooks[0])]


@pytest.mark.parametrize("levels", [(3,), (4, 3), (5, 4, 3), (8, 8), (7, 3, 6), (1000,)])
def test_an_fsq_code_is_its_own_token(levels: tuple[int, ...]) -> None:
    """Token to code to token, over the whole codebook; the codes are all combinations of the levels."""
    quantizer: Any = plain_fsq(levels).quantizer
    every = torch.arange(int(np.prod(levels)))
    codes = quantizer.indices_to_codes(every)
    assert torch.equal(quantizer.codes_to_indices(codes).long(), every)
    steps = [(np.arange(count) - count // 2) / (count // 2) for count in levels]
    by_hand = [combined[::-1] for combined in itertools.product(*steps[::-1])]
    np.testing.assert_allclose(codes.numpy(), np.float32(by_hand), rtol=1e-6, atol=1e-7)


# encode(decode(i)) = i


@examples(40)
@given(data=st.data(), n_bins=st.integers(1, 300), dtype=st.sampled_from([torch.float32, torch.float64]))
def test_bins_encode_what_they_decode(data: st.DataObject, n_bins: int, dtype: torch.dtype) -> None:
    low = data.draw(arrays(np.float32, 6, elements=st.floats(-512, 512, width=32)))
    span = data.draw(arrays(np.float32, 6, elements=st.floats(0.5, 512, width=32)))
    tokenizer = UniformBinsTokenizer(n_bins, CHUNK).to(dtype)
    tokenizer.fit(torch.from_numpy(np.stack([low, low + span])).to(dtype).unflatten(1, CHUNK))
    tokens = torch.arange(n_bins)[:, None].expand(-1, 6)
    decoded = tokenizer.decode(tokens)
    assert decoded.dtype == dtype
    assert torch.equal(tokenizer.encode(decoded), tokens)


@pytest.mark.parametrize("kind", ["bins", "kmeans"])
def test_every_token_of_a_fitted_tokenizer_comes_back(kind: str) -> None:
    tokenizer = fitted(kind)
    tokens = torch.arange(tokenizer.codebook_size)[:, None].expand(-1, tokenizer.num_quantizers)
    assert torch.equal(tokenizer.encode(tokenizer.decode(tokens)), tokens)


@pytest.mark.parametrize("kind", LEARNED)
def test_the_share_of_tokens_that_come_back_through_the_networks_is_reported(kind: str) -> None:
    """The decoder of a learned coder need not be undone by its encoder; how often it is, is printed."""
    tokenizer: Any = fitted(kind)
    per_stage = [range(tokenizer.codebook_size)] * tokenizer.num_quantizers
    tokens = torch.tensor(list(itertools.product(*per_stage)))
    back = (tokenizer.encode(tokenizer.decode(tokens)) == tokens).all(dim=1)
    share = float(back.double().mean())
    oracles.SHARES[f"encode(decode(i)) = i, {kind}, over all {len(tokens)} tokens"] = share
    assert 0.0 <= share <= 1.0
    assert kind == "residual_vq" or share > 2 / len(tokens)


# Chunk to chunk


@examples(60)
@given(problem=problems(smooth), scale=st.sampled_from([1e-30, 1e-3, 1.0, 1e6]), double=st.booleans())
def test_centre_plus_offset_is_the_chunk(problem: Any, scale: float, double: bool) -> None:
    """Within 2 ulp of the larger of chunk and centre, of the coarser type where the two differ."""
    points, centers = (np.float32(scale) * part for part in problem)
    tokenizer = plain_kmeans(torch.from_numpy(centers))
    chunks = torch.from_numpy(points)[:, None]
    chunks = chunks.double() * 1.1 if double else chunks
    indices, offsets = tokenizer.encode_with_offset(chunks)
    assert torch.equal(indices, tokenizer.encode(chunks))
    centre, given_chunks = oracles.array(tokenizer.decode(indices)), oracles.array(chunks)
    size = np.maximum(np.abs(centre), np.abs(given_chunks))
    rounding = oracles.ulp(size, np.float64 if double else np.float32)
    assert (np.abs(oracles.array(offsets) - (given_chunks - centre)) <= rounding).all()
    back = tokenizer.decode(indices, offsets)
    assert back.dtype == chunks.dtype
    assert (np.abs(oracles.array(back) - given_chunks) <= 2 * rounding).all()


@examples(40)
@given(chunks=chunks_of((2, 3)), n_bins=st.integers(2, 50))
def test_bins_lose_at_most_half_a_bin(chunks: torch.Tensor, n_bins: int) -> None:
    flat = oracles.array(chunks).reshape(len(chunks), -1)
    low, high = flat.min(axis=0), flat.max(axis=0)
    assume((high > low).all())
    tokenizer = UniformBinsTokenizer(n_bins, (2, 3))
    tokenizer.fit(chunks)
    lost = np.abs(oracles.array(tokenizer.decode(tokenizer.encode(chunks))).reshape(flat.shape) - flat)
    rounding = oracles.ulp(np.maximum(abs(low), abs(high)), np.float32)
    assert (lost <= (high - low) / n_bins / 2 + rounding).all()


@pytest.mark.parametrize(("dtype", "numpy_dtype"), [(torch.float32, np.float32), (torch.float64, np.float64)])
def test_centres_of_bins_are_right_to_the_last_place(dtype: torch.dtype, numpy_dtype: Any) -> None:
    """Of the range's own numbers; (i + 0.5) / 5 in float32 would put 1.525 two places off."""
    tokenizer = UniformBinsTokenizer(5, (1, 2)).to(dtype)
    tokenizer.fit(torch.tensor([[[-1.625, 0.0]], [[1.875, 1e-3]]], dtype=dtype))
    low, high = oracles.array(tokenizer.low), oracles.array(tokenizer.high)
    centers = oracles.array(tokenizer.decode(torch.arange(5)[:, None].expand(5, 2)))[:, 0]
    expected = low + (np.arange(5)[:, None] + 0.5) / 5 * (high - low)
    assert (abs(centers - expected) <= oracles.ulp(np.maximum(abs(low), abs(high)), numpy_dtype)).all()
