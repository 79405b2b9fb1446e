"""Rows whose tokens rounding could decide either way: near ties, by float64 and the stated margins."""

from typing import Any

import numpy as np
import oracles
import torch
from numpy.typing import NDArray
from oracles import EPS


def fsq_bounded(latents: oracles.Array, levels: tuple[int, ...]) -> oracles.Array:
    """Mentzer et al. 2023, appendix A.1: each of the latent's dimensions (N, D) into about (-L/2, L/2)."""
    counts = np.array(levels, dtype=np.float64)
    half = (counts - 1) * (1 + 1e-3) / 2
    offset = np.where(counts % 2 == 0, 0.5, 0.0)
    return np.tanh(latents + np.arctanh(offset / half)) * half - offset


def fsq_error(latent: oracles.Bounded, levels: tuple[int, ...]) -> oracles.Array:
    """By how much a bounded dimension (N, D) may be off: tanh's slope is at most L/2."""
    counts = np.array(levels, dtype=np.float64)
    return latent.error * counts / 2 + 8 * EPS[torch.float32] * counts


def of_stages(latent: oracles.Bounded, codebooks: oracles.Array, eps: float) -> NDArray[np.bool_]:
    """(N,) whether rounding could make another of a stage's codes (G, C, D) the nearest."""
    close = np.zeros(len(latent.value), dtype=bool)
    for codebook in codebooks:
        distances = oracles.squared_distances(latent.value, codebook)
        close |= oracles.near_tie(distances, oracles.stage_error(latent, codebook, eps))
        latent = latent.less(codebook[oracles.nearest(latent.value, codebook)], eps)
    return close


def near_ties(kind: str, tokenizer: Any, chunks: torch.Tensor, eps: float) -> NDArray[np.bool_]:
    """(N,) the rows of ``chunks`` (N, W, A) whose tokens two ways of computing in ``eps`` may disagree on."""
    flat = oracles.array(chunks).reshape(len(chunks), -1)
    if kind == "bins":  # in float64 whatever the chunks' type
        return np.zeros(len(flat), dtype=bool)
    if kind == "kmeans":
        distances = oracles.squared_distances(flat, tokenizer.centers)
        return oracles.near_tie(distances, oracles.direct_error(distances, flat.shape[1], eps))
    if kind == "residual_vq":
        latent = oracles.mlp(tokenizer.vqvae.encoder, flat, eps)
        return of_stages(latent, oracles.array(tokenizer.vqvae.vq_layer.codebooks), eps)
    latent = oracles.mlp(tokenizer.encoder, flat, eps)
    if kind == "vqvae":
        return of_stages(latent, oracles.array(tokenizer.codebook)[None], eps)
    bounded = fsq_bounded(latent.value, tokenizer.levels)
    to_boundary = np.abs(np.abs(bounded - np.round(bounded)) - 0.5)
    return (to_boundary <= fsq_error(latent, tokenizer.levels)).any(axis=1)
