"""What every action tokenizer answers."""

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from il_bench.errors import IlBenchError


class Tokenizer(nn.Module, ABC):
    """Chunks of actions to tokens and back; everything it learned is in its ``state_dict``.

    Attributes:
        chunk_shape: (W, A), the steps of a chunk and the dimensions of an action.
        codebook_size: number of codes C of each codebook.
        num_quantizers: number of codebooks G, so of tokens a chunk.
    """

    chunk_shape: tuple[int, int]
    codebook_size: int
    num_quantizers: int

    @property
    def bits_per_chunk(self) -> float:
        """Bits that index a chunk, G log2 C."""
        return self.num_quantizers * math.log2(self.codebook_size)

    @abstractmethod
    def encode(self, chunks: Tensor) -> Tensor:
        """Tokens of ``chunks`` (N, W, A): int64 of shape (N, G), each in [0, C).

        Raises:
            IlBenchError: for another shape, for NaN or infinity, and before the tokenizer is fitted.
        """

    @abstractmethod
    def decode(self, indices: Tensor) -> Tensor:
        """The chunks (N, W, A) that the tokens ``indices`` (N, G) stand for.

        Raises:
            IlBenchError: for another shape, for tokens out of range, and before the tokenizer is fitted.
        """

    def _check_chunks(self, chunks: Tensor) -> None:
        if chunks.ndim != 3 or tuple(chunks.shape[1:]) != self.chunk_shape:
            raise IlBenchError(
                f"{type(self).__name__}: chunks have shape {tuple(chunks.shape)}; "
                f"give (N, {self.chunk_shape[0]}, {self.chunk_shape[1]})."
            )
        if not torch.isfinite(chunks).all():
            row = int((~torch.isfinite(chunks)).flatten(1).any(dim=1).nonzero()[0])
            raise IlBenchError(f"{type(self).__name__}: chunk {row} holds NaN or infinity; drop or mend it.")

    def _check_indices(self, indices: Tensor) -> None:
        if indices.ndim != 2 or indices.shape[1] != self.num_quantizers or indices.dtype != torch.int64:
            raise IlBenchError(
                f"{type(self).__name__}: tokens are {indices.dtype} of shape {tuple(indices.shape)}; "
                f"give int64 of shape (N, {self.num_quantizers})."
            )
        if indices.numel() and not 0 <= int(indices.min()) <= int(indices.max()) < self.codebook_size:
            raise IlBenchError(
                f"{type(self).__name__}: tokens run from {int(indices.min())} to {int(indices.max())}; "
                f"the codebook has 0 to {self.codebook_size - 1}."
            )
