"""Uniform bins, one token for each dimension of each step (as RT-1, Brohan et al. 2022, section 5.1)."""

import torch
from torch import Tensor

from il_bench.tokenizers.base import Tokenizer


class UniformBinsTokenizer(Tokenizer):
    """``n_bins`` equal bins between the lowest and the highest value seen, for each of the W * A places.

    A token decodes to the centre of its bin. Values outside the range seen get the first or the last bin. A
    place that never changed has one bin, token 0, which decodes to its value.

    Tokens are computed in float64, so float32 chunks and the same numbers in float64 have the same tokens.
    ``encode(decode(i)) == i`` as long as a bin is wider than the spacing of the floats in it.
    """

    low: Tensor  # (W * A,)
    high: Tensor  # (W * A,)

    def __init__(self, n_bins: int, chunk_shape: tuple[int, int]) -> None:
        super().__init__(n_bins, chunk_shape[0] * chunk_shape[1], chunk_shape)
        self.register_buffer("low", torch.zeros(self.num_quantizers))
        self.register_buffer("high", torch.zeros(self.num_quantizers))
        self.register_buffer("fitted", torch.tensor(False))

    def fit(self, chunks: Tensor, *, seed: int = 0) -> None:
        """Take the range of each place from ``chunks`` (N, W, A), without any randomness.

        Raises IlBenchError for chunks that float32 cannot hold, whatever the type of the range.
        """
        self._to_fit(chunks, self.low, torch.float32)
        low, high = torch.aminmax(chunks.detach().flatten(1), dim=0)
        self.low.copy_(low)
        self.high.copy_(high)
        self.fitted.fill_(True)
        self.eval()

    def encode(self, chunks: Tensor) -> Tensor:
        """Index of the bin that each value lies in, (N, W * A) int64."""
        self._check_fitted(self.low)
        self._check_chunks(chunks)
        above = chunks.detach().flatten(1).double() - self.low.double()  # (N, W * A)
        span = self._span()
        bins = torch.where(span > 0, above / span * self.codebook_size, 0).floor()
        return bins.clamp(0, self.codebook_size - 1).long()

    def decode(self, indices: Tensor) -> Tensor:
        """Centres of the bins ``indices`` (N, W * A), in the type of the fitted range: (N, W, A)."""
        self._check_fitted(self.low)
        self._check_indices(indices)
        centers = self.low.double() + (indices.double() + 0.5) / self.codebook_size * self._span()
        chunks: Tensor = centers.to(self.low.dtype).unflatten(1, self.chunk_shape)
        return chunks

    def _span(self) -> Tensor:
        return self.high.double() - self.low.double()  # (W * A,)
