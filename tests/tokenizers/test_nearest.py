"""The chosen code is the nearest one, by distances in float64 that know nothing of the code under test.

On a grid of quarters float32 is exact, so there the token is *the* nearest and of equally near codes the
lowest. Elsewhere LeRobot's expanded squares may err by what ``oracles.expanded_error`` states; our own
tokenizers decide what is closer than that in float64, so they may not err at all.
"""

from typing import Any

import numpy as np
import oracles
import pytest
import torch
from fitted import (
    CHUNK,
    KINDS,
    LEVELS,
    demonstrations,
    fitted,
    frozen_vqvae,
    plain_fsq,
    plain_kmeans,
    plain_residual_vq,
    plain_vqvae,
)
from hypothesis import given
from hypothesis import strategies as st
from lerobot.policies.vqbet.vqbet_utils import VectorQuantize
from oracles import EPS, fsq_bounded, fsq_error, near_ties
from strategies import chunks_of, examples, grid, problems, smooth, two_stages

F32 = EPS[torch.float32]
# float64's own ties: what is closer than this is one distance.
SAME = 1e-13


def plain_tokens(kind: str, points: Any, codebook: Any, dtype: torch.dtype = torch.float32) -> np.ndarray:
    if kind == "lerobot":
        quantizer = VectorQuantize(dim=codebook.shape[1], codebook_size=len(codebook)).eval()
        quantizer.codebook = torch.from_numpy(codebook)
        return quantizer(torch.from_numpy(points)[None])[1][0].numpy()
    tokenizer = {"kmeans": plain_kmeans, "vqvae": plain_vqvae}[kind](torch.from_numpy(codebook)).to(dtype)
    return tokenizer.encode(torch.from_numpy(points)[:, None].to(dtype))[:, 0].numpy()


@pytest.mark.parametrize("kind", ["lerobot", "kmeans", "vqvae"])
@examples(60)
@given(problem=problems(grid))
def test_on_a_grid_the_nearest_code_and_of_equals_the_lowest(kind: str, problem: Any) -> None:
    points, codebook = problem
    assert plain_tokens(kind, points, codebook).tolist() == oracles.nearest(points, codebook).tolist()


@examples(60)
@given(problem=problems(smooth))
def test_lerobots_code_is_nearest_within_its_margin(problem: Any) -> None:
    points, codebook = problem
    error = oracles.expanded_error(points, codebook, F32)
    oracles.check_nearest(points, codebook, plain_tokens("lerobot", points, codebook), error)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", ["kmeans", "vqvae"])
@examples(60)
@given(problem=problems(smooth), scale=st.sampled_from([1e-4, 1.0, 1e3]), shift=st.sampled_from([0.0, 100.0]))
def test_our_code_is_nearest_also_far_from_the_origin(
    kind: str, dtype: torch.dtype, problem: Any, scale: float, shift: float
) -> None:
    """Shifted by 100, the expanded squares of codes that are a few apart say little."""
    points, codebook = (np.float32(scale) * part + np.float32(shift) for part in problem)
    distances = oracles.squared_distances(points, codebook)
    # k-means takes differences in the chunks' type: relative errors only.
    eps = EPS[dtype] if kind == "kmeans" else SAME
    error = oracles.direct_error(distances, points.shape[1], eps)
    oracles.check_nearest(points, codebook, plain_tokens(kind, points, codebook, dtype), error)


@pytest.mark.parametrize("kind", ["kmeans", "vqvae"])
@examples(40)
@given(problem=problems(smooth), n=st.integers(1, 70))
def test_a_duplicate_code_is_never_chosen(kind: str, problem: Any, n: int) -> None:
    points, codebook = problem
    twice = np.concatenate([codebook, codebook, codebook])
    chosen = plain_tokens(kind, np.resize(points, (n, points.shape[1])), twice)
    first = [np.flatnonzero((twice == twice[code]).all(axis=1))[0] for code in chosen]
    assert chosen.tolist() == first


@examples(50)
@given(problem=two_stages(grid, dim=3))
def test_residual_vq_on_a_grid(problem: Any) -> None:
    """Both stages, ours and LeRobot's: the nearest code, then the nearest to what it leaves."""
    points, codebooks = problem
    first = oracles.nearest(points, codebooks[0])
    second = oracles.nearest(points - codebooks[0][first], codebooks[1])
    expected = np.stack([first, second], axis=1).tolist()
    chunks = torch.from_numpy(points)[:, None]
    tokenizer = plain_residual_vq(torch.from_numpy(codebooks))
    assert tokenizer.encode(chunks).tolist() == expected
    assert tokenizer.reference_encode(chunks).tolist() == expected
    assert frozen_vqvae(torch.from_numpy(codebooks)).get_code(chunks)[1].tolist() == expected


def check_stages(tokenizer: Any, chunks: torch.Tensor, tokens: torch.Tensor, eps: float) -> None:
    """Every stage's code is nearest to what the stages before it left, up to the encoder's rounding."""
    latent = oracles.mlp(tokenizer.vqvae.encoder, chunks.flatten(1), eps)
    for stage, codebook in enumerate(oracles.array(tokenizer.vqvae.vq_layer.codebooks)):
        chosen = tokens[:, stage].numpy()
        oracles.check_nearest(latent.value, codebook, chosen, oracles.stage_error(latent, codebook, eps))
        latent = latent.less(codebook[chosen], eps)


@examples(25)
@given(chunks=chunks_of(CHUNK))
def test_a_trained_residual_vq_chooses_the_nearest_at_each_stage(chunks: torch.Tensor) -> None:
    tokenizer: Any = fitted("residual_vq")
    check_stages(tokenizer, chunks, tokenizer.encode(chunks), F32)
    check_stages(tokenizer, chunks, tokenizer.reference_encode(chunks), F32)


@examples(25)
@given(chunks=chunks_of(CHUNK))
def test_a_trained_vqvae_chooses_the_nearest(chunks: torch.Tensor) -> None:
    tokenizer: Any = fitted("vqvae")
    latent = oracles.mlp(tokenizer.encoder, chunks.flatten(1), F32)
    codebook = oracles.array(tokenizer.codebook)
    error = oracles.stage_error(latent, codebook, F32)
    oracles.check_nearest(latent.value, codebook, tokenizer.encode(chunks)[:, 0].numpy(), error)


@pytest.mark.parametrize("kind", KINDS)
def test_margins_are_narrow_beside_the_distances(kind: str) -> None:
    """A margin that let anything pass would prove nothing: on data, hardly a row has two codes within it."""
    assert near_ties(kind, fitted(kind), demonstrations(), F32).mean() <= 0.02


@examples(60)
@given(chunks=chunks_of(CHUNK))
def test_a_bins_centre_is_nearest(chunks: torch.Tensor) -> None:
    tokenizer: Any = fitted("bins")
    low, high = oracles.array(tokenizer.low), oracles.array(tokenizer.high)
    edges = np.linspace(low, high, tokenizer.codebook_size + 1)  # (C + 1, W * A)
    centers = (edges[1:] + edges[:-1]) / 2
    flat = oracles.array(chunks).reshape(len(chunks), -1)
    distances = np.abs(flat[:, None] - centers)  # (N, C, W * A)
    tokens = tokenizer.encode(chunks).numpy()
    chosen = np.take_along_axis(distances, tokens[:, None], axis=1)[:, 0]
    assert (chosen <= distances.min(axis=1) + 4 * EPS[torch.float64] * np.abs(edges).max()).all()
    inside = (flat >= low) & (flat <= high)
    half = (high - low) / tokenizer.codebook_size / 2
    assert (chosen <= half * (1 + 1e-12))[inside].all()


@pytest.mark.parametrize("levels", [(3,), (4,), (5, 4), (8, 5, 3), (7, 7)])
@examples(30)
@given(data=st.data())
def test_fsq_rounds_to_the_nearest_level(levels: tuple[int, ...], data: st.DataObject) -> None:
    chunks = data.draw(chunks_of((1, len(levels)), elements=st.floats(-8, 8, width=32)))
    bounded = fsq_bounded(oracles.array(chunks)[:, 0], levels)
    digits, rest = [], plain_fsq(levels).encode(chunks)[:, 0].numpy()
    for count in levels:  # the first dimension is the lowest digit
        digits.append(rest % count - count // 2)
        rest = rest // count
    assert (rest == 0).all()
    assert (np.abs(bounded - np.stack(digits, axis=1)) <= 0.5 + 8 * F32 * max(levels)).all()


@examples(25)
@given(chunks=chunks_of(CHUNK))
def test_a_trained_fsq_rounds_to_the_nearest_level(chunks: torch.Tensor) -> None:
    tokenizer: Any = fitted("fsq")
    latent = oracles.mlp(tokenizer.encoder, chunks.flatten(1), F32)
    bounded = fsq_bounded(latent.value, LEVELS)
    tokens = tokenizer.encode(chunks)[:, 0].numpy()
    digits = np.stack([tokens % 5 - 2, tokens // 5 % 4 - 2, tokens // 20 - 1], axis=1)
    assert (np.abs(bounded - digits) <= 0.5 + fsq_error(latent, LEVELS)).all()
