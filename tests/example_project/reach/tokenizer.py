"""Chunks of actions rounded to a grid that spans the demonstrations."""

import torch
from torch import Tensor

from il_bench.tokenizers import Tokenizer


class Grid(Tokenizer):
    """Every coordinate of a chunk (B, T, 2) becomes one of `codebook_size` values: (B, 2 T) tokens."""

    low: Tensor
    high: Tensor

    def __init__(self, codebook_size: int, chunk_shape: tuple[int, int]) -> None:
        super().__init__(codebook_size, chunk_shape[0] * chunk_shape[1], chunk_shape)
        self.register_buffer("fitted", torch.tensor(False))
        self.register_buffer("low", torch.zeros(chunk_shape))
        self.register_buffer("high", torch.ones(chunk_shape))

    def fit(self, chunks: Tensor, *, seed: int = 0) -> None:
        self.low.copy_(chunks.amin(dim=0))
        self.high.copy_(chunks.amax(dim=0))
        self.fitted.fill_(True)

    def encode(self, chunks: Tensor) -> Tensor:
        share = (chunks - self.low) / (self.high - self.low)
        return (share * (self.codebook_size - 1)).round().clamp(0, self.codebook_size - 1).long().flatten(1)

    def decode(self, indices: Tensor) -> Tensor:
        share = indices.unflatten(1, self.chunk_shape) / (self.codebook_size - 1)
        return self.low + share * (self.high - self.low)
