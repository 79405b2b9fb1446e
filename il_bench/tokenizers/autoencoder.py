"""What VQ-VAE and FSQ share: an encoder, one quantizer and a decoder."""

from abc import abstractmethod

import torch
from torch import Tensor, nn

from il_bench.tokenizers.base import Tokenizer, first_not_finite, full_precision
from il_bench.tokenizers.training import own_randomness


class AutoencoderTokenizer(Tokenizer):
    """One token a chunk: the encoder's latent vector (D,), quantized. The decoder maps it back.

    Encoding and decoding are the same in training and eval mode. ``hidden_dim`` is the width of the hidden
    layers, ``embedding_dim`` that of the latent vector, D.
    """

    def __init__(
        self, codebook_size: int, chunk_shape: tuple[int, int], embedding_dim: int, hidden_dim: int
    ) -> None:
        super().__init__(codebook_size, 1, chunk_shape)
        if min(embedding_dim, hidden_dim) < 1:
            raise self._error(
                f"embedding_dim is {embedding_dim} and hidden_dim {hidden_dim}; give 1 or more."
            )
        self.embedding_dim = embedding_dim
        self.hidden_dim = hidden_dim
        size = chunk_shape[0] * chunk_shape[1]
        self.encoder = mlp(size, hidden_dim, embedding_dim)
        self.decoder = mlp(embedding_dim, hidden_dim, size)
        self.register_buffer("fitted", torch.tensor(False))

    def fit(self, chunks: Tensor, *, seed: int = 0) -> None:
        """Train a new tokenizer on ``chunks`` (N, W, A) and copy its weights."""
        weight = next(self.encoder.parameters())
        data = self._to_fit(chunks, weight, weight.dtype)
        with own_randomness(seed, weight.device):
            trained = self._untrained().to(weight)
            trained._train_on(data.clone())
        self.load_state_dict(trained.state_dict())
        self.fitted.fill_(True)
        self.eval()

    def encode(self, chunks: Tensor) -> Tensor:
        """Token of each chunk, (N, 1) int64."""
        weight = next(self.encoder.parameters())
        self._check_fitted(weight)
        self._check_chunks(chunks)
        chunks = self._in_type(chunks.detach(), weight.dtype)
        with torch.no_grad(), full_precision(chunks.device):
            latents = self.encoder(chunks.flatten(1))  # (N, D)
            if (row := first_not_finite(latents)) is not None:
                raise self._error(f"chunk {row} is so large that its latent overflows.")
            return self._quantize(latents)[:, None]

    def decode(self, indices: Tensor) -> Tensor:
        """The decoder's output for the codes ``indices`` (N, 1), in the weights' type: (N, W, A)."""
        weight = next(self.decoder.parameters())
        self._check_fitted(weight)
        self._check_indices(indices)
        with torch.no_grad(), full_precision(indices.device):
            latent = self._codes(indices[:, 0]).to(weight.dtype)  # (N, D)
            chunks: Tensor = self.decoder(latent).unflatten(1, self.chunk_shape)
        return chunks

    @abstractmethod
    def _untrained(self) -> "AutoencoderTokenizer":
        """A new tokenizer of the same sizes, its weights drawn from torch's generator."""

    @abstractmethod
    def _train_on(self, chunks: Tensor) -> None:
        """Train all weights on ``chunks`` (N, W, A); IlBenchError where they are too few to learn from."""

    @abstractmethod
    def _quantize(self, latents: Tensor) -> Tensor:
        """Codes (N,) int64 of the latent vectors (N, D)."""

    @abstractmethod
    def _codes(self, indices: Tensor) -> Tensor:
        """The vectors (N, D) that the codes (N,) stand for."""


def mlp(n_in: int, hidden_dim: int, n_out: int) -> nn.Sequential:
    """Two hidden layers, as VQ-BeT's encoder and decoder have them."""
    return nn.Sequential(
        nn.Linear(n_in, hidden_dim),
        nn.ReLU(),
        nn.Linear(hidden_dim, hidden_dim),
        nn.ReLU(),
        nn.Linear(hidden_dim, n_out),
    )
