"""k-means with offset, the tokenizer of Behavior Transformers (Shafiullah et al. 2022, section 3.1)."""

import math

import torch
from torch import Tensor

from il_bench.tokenizers.base import Tokenizer, first_not_finite

MOST_ITERATIONS = 1000
#: Chunks are encoded in blocks of this many differences to the centres, 4 MB of them in float32.
DIFFERENCES_AT_ONCE = 2**20


class KMeansTokenizer(Tokenizer):
    """One token a chunk: the nearest of ``codebook_size`` cluster centres, and the offset from it.

    The centres are a buffer, so they are saved. (In the paper's own code ``state_dict`` lacks them.)
    """

    centers: Tensor  # (C, W * A)

    def __init__(self, codebook_size: int, chunk_shape: tuple[int, int]) -> None:
        super().__init__(codebook_size, 1, chunk_shape)
        self.register_buffer("centers", torch.zeros(codebook_size, chunk_shape[0] * chunk_shape[1]))
        self.register_buffer("fitted", torch.tensor(False))

    def fit(self, chunks: Tensor, *, seed: int = 0) -> None:
        """Place the centres by k-means++ and Lloyd's iterations on ``chunks`` (N, W, A).

        Raises IlBenchError for fewer different chunks than centres, and for chunks that float32 cannot hold,
        whatever the type of the centres.
        """
        from sklearn.cluster import KMeans  # half a second, which only fitting needs

        self._to_fit(chunks, self.centers, torch.float32)
        self._check_different(chunks)
        flat = chunks.detach().flatten(1)
        # Iterate until nothing moves: the library's tolerance would stop before the centres are the means.
        kmeans = KMeans(self.codebook_size, n_init=1, tol=0, max_iter=MOST_ITERATIONS, random_state=seed)
        kmeans.fit(flat.double().cpu().numpy())
        self.centers.copy_(torch.from_numpy(kmeans.cluster_centers_))
        self.fitted.fill_(True)
        self.eval()

    def encode(self, chunks: Tensor) -> Tensor:
        """Index of the nearest centre, (N, 1) int64; of equally near ones the lowest."""
        self._check_fitted(self.centers)
        self._check_shape(chunks)
        flat, rows = chunks.detach().flatten(1), max(1, DIFFERENCES_AT_ONCE // self.centers.numel())
        if len(flat) <= rows:
            distances, indices = self._nearest(flat)
        else:
            distances, indices = map(torch.cat, zip(*map(self._nearest, flat.split(rows)), strict=True))
        if len(flat) and not float(distances.max()) < math.inf:  # so that NaN is found too
            self._check_finite(chunks)
            # Numbers whose squares overflow: all centres were infinitely far, and the lowest was taken.
            far, centers = distances[:, 0].isinf(), self.centers.double()
            blocks = flat[far].double().split(rows)
            indices[far] = torch.cat([_nearest_of_far(block, centers) for block in blocks])
        return indices

    def _nearest(self, flat: Tensor) -> tuple[Tensor, Tensor]:
        """Squared distances (N, 1) of chunks ``flat`` (N, W * A) from the nearest centre, and its index."""
        # Differences, not the expanded square: a chunk that is a centre has distance exactly 0.
        differences = flat[:, None] - self.centers.to(flat.dtype)  # (N, C, W * A)
        distances, indices = differences.square().sum(dim=-1).min(dim=1, keepdim=True)
        return distances, indices

    def decode(self, indices: Tensor, offsets: Tensor | None = None) -> Tensor:
        """The centres of ``indices`` (N, 1), moved by ``offsets`` (N, W, A) where given: (N, W, A)."""
        self._check_fitted(self.centers)
        self._check_indices(indices)
        if offsets is not None:
            self._check_offsets(offsets, len(indices))
        chunks: Tensor = self.centers[indices[:, 0]].unflatten(1, self.chunk_shape)
        return chunks if offsets is None else chunks + offsets

    def _check_offsets(self, offsets: Tensor, n: int) -> None:
        self._check_shape(offsets, "offset")
        if len(offsets) != n:
            raise self._error(f"there are {len(offsets)} offsets for {n} tokens; give one for each.")
        self._check_finite(offsets, "offset")

    def encode_with_offset(self, chunks: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens (N, 1) of ``chunks`` and their offsets, ``chunks - decode(tokens)`` (N, W, A).

        Raises IlBenchError for what ``encode`` refuses, and for offsets too large for the chunks' type.
        """
        indices = self.encode(chunks)
        offsets = chunks - self.decode(indices)
        if (row := first_not_finite(offsets)) is not None:
            raise self._error(f"chunk {row} is too far from its centre for {offsets.dtype}; scale it down.")
        return indices, offsets


def _nearest_of_far(flat: Tensor, centers: Tensor) -> Tensor:
    """Index (N, 1) of the nearest of ``centers`` (C, D) where squares of the differences overflow."""
    differences = flat[:, None] - centers  # (N, C, D)
    largest = differences.abs().amax(dim=(1, 2), keepdim=True)
    return (differences / largest).square().sum(dim=-1).argmin(dim=1, keepdim=True)
