"""k-means with offset, the tokenizer of Behavior Transformers (Shafiullah et al. 2022, section 3.1)."""

import torch
from sklearn.cluster import KMeans
from torch import Tensor

from il_bench.errors import IlBenchError
from il_bench.tokenizers.base import Tokenizer

MOST_ITERATIONS = 1000


class KMeansTokenizer(Tokenizer):
    """One token a chunk: the nearest of ``codebook_size`` cluster centres, and the offset from it.

    The centres are a buffer: a saved and loaded tokenizer gives the same tokens. (In the paper's own
    code they are a plain attribute and vanish from ``state_dict``.)
    """

    centers: Tensor  # (C, W * A)

    def __init__(self, codebook_size: int, chunk_shape: tuple[int, int]) -> None:
        super().__init__(codebook_size, 1, chunk_shape)
        self.register_buffer("centers", torch.zeros(codebook_size, chunk_shape[0] * chunk_shape[1]))
        self.register_buffer("fitted", torch.tensor(False))

    def fit(self, chunks: Tensor, *, seed: int = 0) -> None:
        """Place the centres by k-means++ and Lloyd's iterations on ``chunks`` (N, W, A).

        Raises:
            IlBenchError: for fewer different chunks than centres.
        """
        self._check_chunks(chunks)
        flat = chunks.detach().flatten(1)
        n_different = len(torch.unique(flat, dim=0))
        if n_different < self.codebook_size:
            raise IlBenchError(
                f"k-means: {n_different} different chunks cannot fill {self.codebook_size} clusters; "
                "give more data or a smaller codebook_size."
            )
        # Until nothing moves: the library's tolerance stops with centres that are not the means yet.
        kmeans = KMeans(self.codebook_size, n_init=1, tol=0, max_iter=MOST_ITERATIONS, random_state=seed)
        kmeans.fit(flat.double().cpu().numpy())
        self.centers.copy_(torch.from_numpy(kmeans.cluster_centers_))
        self.fitted.fill_(True)
        self.eval()

    def encode(self, chunks: Tensor) -> Tensor:
        """Index of the nearest centre, (N, 1) int64; of equally near ones the lowest."""
        self._check_fitted()
        self._check_chunks(chunks)
        # Differences, not the expanded square: a chunk that is a centre has distance exactly 0.
        differences = chunks.flatten(1)[:, None] - self.centers.to(chunks.dtype)  # (N, C, W * A)
        nearest: Tensor = differences.square().sum(dim=-1).argmin(dim=1, keepdim=True)
        return nearest

    def decode(self, indices: Tensor, offsets: Tensor | None = None) -> Tensor:
        """The centres of ``indices`` (N, 1), moved by ``offsets`` (N, W, A) where given: (N, W, A)."""
        self._check_fitted()
        self._check_indices(indices)
        chunks: Tensor = self.centers[indices[:, 0]].unflatten(1, self.chunk_shape)
        return chunks if offsets is None else chunks + offsets

    def encode_with_offset(self, chunks: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens (N, 1) of ``chunks`` and what is left of each, ``chunks - decode(tokens)`` (N, W, A)."""
        indices = self.encode(chunks)
        return indices, chunks - self.decode(indices)
