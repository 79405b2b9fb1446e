"""The nearest code, decided in float64 where rounding could decide it otherwise."""

import torch
from torch import Tensor

#: Scores that differ by less than this many eps times the size of their terms are decided in float64.
MARGIN = 32.0


def nearest(latents: Tensor, codebook: Tensor) -> Tensor:
    """Index (N,) of the code in ``codebook`` (C, D) nearest to each of ``latents`` (N, D).

    Of equally near codes it is the lowest. |x - e|^2 is expanded, so one matrix product scores all rows. A
    row whose best two codes lie within the margin is computed again, so no row depends on the others.
    """
    half_squares = codebook.square().sum(dim=1) / 2  # (C,)
    scores = torch.addmm(-half_squares, latents, codebook.T)  # (N, C), the highest is the nearest
    best, indices = scores.max(dim=1, keepdim=True)
    size = latents.norm(dim=1, keepdim=True) * codebook.norm(dim=1).max() + half_squares.max()  # (N, 1)
    margin = MARGIN * torch.finfo(scores.dtype).eps * size
    # Written so that a NaN counts as close.
    close = ((scores < best - margin).sum(dim=1) != len(codebook) - 1).nonzero()[:, 0]
    if len(close):
        indices[close, 0] = nearest_in_float64(latents[close], codebook)
    return indices[:, 0]


def nearest_in_float64(latents: Tensor, codebook: Tensor) -> Tensor:
    """Like ``nearest``, by differences in float64: equal codes have equal distances, whatever their index."""
    distances = torch.cdist(
        latents.double(), codebook.double(), compute_mode="donot_use_mm_for_euclid_dist"
    )  # (N, C)
    return distances.argmin(dim=1)
