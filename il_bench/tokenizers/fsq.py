"""Finite scalar quantization (Mentzer et al. 2023), on ``vector_quantize_pytorch.FSQ``."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from vector_quantize_pytorch import FSQ

from il_bench.errors import IlBenchError
from il_bench.tokenizers.autoencoder import AutoencoderTokenizer
from il_bench.tokenizers.training import train

STEPS = 1500
MOST_LEVELS = 1000  # the library stretches the levels by 0.1 %, which at 1,001 makes one too many
MOST_CODES = 2**24  # it adds indices up in float32


class FSQTokenizer(AutoencoderTokenizer):
    """One token a chunk: each of the latent's few dimensions is bounded and rounded to its own levels.

    There is no codebook to learn. The code is the rounded vector; its token is the number whose digits are
    the levels, lowest first.

    levels: number of levels of each latent dimension, 3 to 1,000 each; C is their product, at most 2^24.
    """

    def __init__(self, levels: Sequence[int], chunk_shape: tuple[int, int], *, hidden_dim: int = 128) -> None:
        own_levels = tuple(int(level) for level in levels)
        if not own_levels or not all(3 <= level <= MOST_LEVELS for level in own_levels):
            raise IlBenchError(f"FSQTokenizer: levels are {own_levels}; give 3 to {MOST_LEVELS} for each.")
        if (n_codes := math.prod(own_levels)) > MOST_CODES:
            raise IlBenchError(
                f"FSQTokenizer: levels {own_levels} make {n_codes} codes; give at most {MOST_CODES}."
            )
        super().__init__(n_codes, chunk_shape, len(own_levels), hidden_dim)
        self.levels = own_levels
        self.quantizer = FSQ(list(own_levels))

    def _untrained(self) -> "FSQTokenizer":
        return FSQTokenizer(self.levels, self.chunk_shape, hidden_dim=self.hidden_dim)

    def _train_on(self, chunks: Tensor) -> None:
        def loss(batch: Tensor) -> Tensor:
            flat = batch.flatten(1)
            codes, _ = self.quantizer(self.encoder(flat)[:, None])  # (B, 1, D): the library wants a sequence
            return F.l1_loss(self.decoder(codes[:, 0]), flat)

        train(self, loss, chunks, STEPS)

    def _quantize(self, latents: Tensor) -> Tensor:
        indices: Tensor = self.quantizer(latents[:, None])[1][:, 0]
        return indices.to(torch.int64)  # the library's are int32

    def _codes(self, indices: Tensor) -> Tensor:
        codes: Tensor = self.quantizer.indices_to_codes(indices)
        return codes
