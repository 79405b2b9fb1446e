"""Independent answers in float64: distances, networks with error bounds, updates by their formulas.

Nothing here knows il_bench, and torch is used for nothing but reading weights. A test calls a token wrong
only where float64 says so by more than rounding explains; the rows where rounding could explain either
answer are exempt, and counted in ``EXEMPT``, which conftest.py prints.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

EPS = {torch.float32: float(np.finfo(np.float32).eps), torch.float64: float(np.finfo(np.float64).eps)}
EXEMPT: Counter[str] = Counter()  # "rows" compared and how many of them were "exempt"
SHARES: dict[str, float] = {}  # what holds for a share of cases only: name -> share


def array(values: ArrayLike | torch.Tensor) -> Array:
    """``values`` in float64."""
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu().numpy()
    return np.asarray(values, dtype=np.float64)


def squared_distances(points: ArrayLike, codebook: ArrayLike) -> Array:
    """(N, C) of ``points`` (N, D) to ``codebook`` (C, D), by differences."""
    return np.square(array(points)[:, None] - array(codebook)).sum(axis=-1)


def nearest(points: ArrayLike, codebook: ArrayLike) -> NDArray[np.int64]:
    """(N,) index of the nearest row of ``codebook``, of equally near ones the lowest."""
    return squared_distances(points, codebook).argmin(axis=1)


def expanded_error(points: ArrayLike, codebook: ArrayLike, eps: float) -> Array:
    """(N, C) by how much |x|² - 2 x·c + |c|² in arithmetic of ``eps`` may be off.

    Each of the three sums of D products is off by at most D eps times the sum of its absolute values, and
    2 (|x|² + |c|²) bounds the three of those together; the two additions and the root add 4 eps.
    """
    x, c = array(points), array(codebook)
    size = np.square(x).sum(axis=1)[:, None] + np.square(c).sum(axis=1)
    return 2 * (x.shape[1] + 4) * eps * size


def direct_error(distances: Array, dim: int, eps: float) -> Array:
    """The same for sums of D squared differences: a relative error."""
    return (dim + 4) * eps * distances


def near_tie(distances: Array, error: Array) -> NDArray[np.bool_]:
    """(N,) whether errors of (N, C) in ``distances`` (N, C) could make another code the nearest."""
    rows, best = np.arange(len(distances)), distances.argmin(axis=1)
    lowest = distances - error
    lowest[rows, best] = np.inf
    return lowest.min(axis=1, initial=np.inf) <= (distances + error)[rows, best]


@dataclass(frozen=True)
class Bounded:
    """Values (N, D) in float64, and by how much arithmetic of some eps may be off at each."""

    value: Array
    error: Array

    def less(self, other: ArrayLike, eps: float) -> "Bounded":
        """The difference to ``other`` (N, D), with the rounding of the subtraction."""
        difference = self.value - array(other)
        return Bounded(difference, self.error + eps * np.abs(difference))


def mlp(modules: Iterable[torch.nn.Module], x: ArrayLike, eps: float) -> Bounded:
    """Linear layers and ReLUs with a running error bound (Higham 2002, chapter 3), doubled for fused sums."""
    values, error = array(x), np.zeros_like(array(x))
    for module in modules:
        if isinstance(module, torch.nn.Linear):
            weight, bias = array(module.weight), array(module.bias)
            size = np.abs(values) @ np.abs(weight).T + np.abs(bias)
            error = error @ np.abs(weight).T + 2 * (weight.shape[1] + 2) * eps * size
            values = values @ weight.T + bias
        elif isinstance(module, torch.nn.ReLU):
            values = np.maximum(values, 0)
        else:
            raise TypeError(f"no oracle for {type(module).__name__}")
    return Bounded(values, error)


def stage_error(latent: Bounded, codebook: ArrayLike, eps: float) -> Array:
    """``expanded_error`` of latents that are themselves off by ``latent.error``: (N, C)."""
    shift = np.linalg.norm(latent.error, axis=1)[:, None]
    moved = 2 * np.sqrt(squared_distances(latent.value, codebook)) * shift + shift**2
    return expanded_error(latent.value, codebook, eps) + moved


def check_nearest(points: ArrayLike, codebook: ArrayLike, chosen: ArrayLike, error: Array) -> None:
    """Assert that each chosen code (N,) is nearest, given errors (N, C) of the squared distances."""
    distances = squared_distances(points, codebook)
    rows, index, best = np.arange(len(distances)), np.asarray(chosen), distances.argmin(axis=1)
    excess = distances[rows, index] - distances[rows, best]
    margin = error[rows, index] + error[rows, best]
    worst = int((excess - margin).argmax())
    assert (excess <= margin).all(), (
        f"row {worst}: code {index[worst]} is farther than code {best[worst]} by {excess[worst]:.3g}, "
        f"the margin is {margin[worst]:.3g}"
    )


def check_same_tokens(one: ArrayLike, other: ArrayLike, exempt: NDArray[np.bool_]) -> None:
    """Assert equal tokens (N, G) outside the exempt rows (N,), and count those."""
    EXEMPT.update(rows=len(exempt), exempt=int(exempt.sum()))
    differ = (np.asarray(one) != np.asarray(other)).any(axis=1)
    assert not (differ & ~exempt).any(), (
        f"rows {np.flatnonzero(differ & ~exempt)} differ and are no near ties: "
        f"{np.asarray(one)[differ & ~exempt]} and {np.asarray(other)[differ & ~exempt]}"
    )


def ema_step(
    codebook: ArrayLike,
    cluster_size: ArrayLike,
    embed_avg: ArrayLike,
    points: ArrayLike,
    chosen: ArrayLike,
    *,
    decay: float,
    eps: float,
) -> tuple[Array, Array, Array]:
    """Codebook, cluster sizes and sums after one step of van den Oord et al. 2017, appendix A.1.

    N_i <- d N_i + (1 - d) n_i, m_i <- d m_i + (1 - d) sum of what i owns, e_i = m_i / N~_i, with Laplace
    smoothing N~_i = (N_i + eps) / (N + C eps) N.
    """
    x, index, n_codes = array(points), np.asarray(chosen), len(array(codebook))
    owned = np.bincount(index, minlength=n_codes).astype(np.float64)
    sums = np.zeros_like(array(codebook))
    np.add.at(sums, index, x)
    size = decay * array(cluster_size) + (1 - decay) * owned
    average = decay * array(embed_avg) + (1 - decay) * sums
    total = size.sum()
    smoothed = (size + eps) / (total + n_codes * eps) * total
    return average / smoothed[:, None], size, average


def means_of_owned(points: ArrayLike, owners: ArrayLike, codebook: ArrayLike) -> Array:
    """The codebook with each code that owns points moved to their mean."""
    x, index, means = array(points), np.asarray(owners), array(codebook).copy()
    for code in np.unique(index):
        means[code] = x[index == code].mean(axis=0)
    return means


def ulp(values: ArrayLike, dtype: type[np.floating]) -> Array:
    """Spacing of ``dtype`` at |values|."""
    return np.spacing(np.abs(np.asarray(values, dtype=dtype))).astype(np.float64)


# Rows whose tokens rounding could decide either way


def fsq_bounded(latents: Array, levels: tuple[int, ...]) -> Array:
    """Mentzer et al. 2023, appendix A.1: each of the latent's dimensions (N, D) into about (-L/2, L/2)."""
    counts = np.array(levels, dtype=np.float64)
    half = (counts - 1) * (1 + 1e-3) / 2
    offset = np.where(counts % 2 == 0, 0.5, 0.0)
    return np.tanh(latents + np.arctanh(offset / half)) * half - offset


def fsq_error(latent: Bounded, levels: tuple[int, ...]) -> Array:
    """By how much a bounded dimension (N, D) may be off: tanh's slope is at most L/2."""
    counts = np.array(levels, dtype=np.float64)
    return latent.error * counts / 2 + 8 * EPS[torch.float32] * counts


def of_stages(latent: Bounded, codebooks: Array, eps: float) -> NDArray[np.bool_]:
    """(N,) whether rounding could make another of a stage's codes (G, C, D) the nearest."""
    close = np.zeros(len(latent.value), dtype=bool)
    for codebook in codebooks:
        distances = squared_distances(latent.value, codebook)
        close |= near_tie(distances, stage_error(latent, codebook, eps))
        latent = latent.less(codebook[nearest(latent.value, codebook)], eps)
    return close


def near_ties(kind: str, tokenizer: Any, chunks: torch.Tensor, eps: float) -> NDArray[np.bool_]:
    """(N,) the rows of ``chunks`` (N, W, A) whose tokens two ways of computing in ``eps`` may disagree on."""
    flat = array(chunks).reshape(len(chunks), -1)
    if kind == "bins":  # in float64 whatever the chunks' type
        return np.zeros(len(flat), dtype=bool)
    if kind == "kmeans":
        distances = squared_distances(flat, tokenizer.centers)
        return near_tie(distances, direct_error(distances, flat.shape[1], eps))
    if kind == "residual_vq":
        latent = mlp(tokenizer.vqvae.encoder, flat, eps)
        return of_stages(latent, array(tokenizer.vqvae.vq_layer.codebooks), eps)
    latent = mlp(tokenizer.encoder, flat, eps)
    if kind == "vqvae":
        return of_stages(latent, array(tokenizer.codebook)[None], eps)
    bounded = fsq_bounded(latent.value, tokenizer.levels)
    to_boundary = np.abs(np.abs(bounded - np.round(bounded)) - 0.5)
    return (to_boundary <= fsq_error(latent, tokenizer.levels)).any(axis=1)
