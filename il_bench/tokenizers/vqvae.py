"""A VQ-VAE with one codebook (van den Oord et al. 2017), on ``vector_quantize_pytorch.VectorQuantize``."""

import torch
import torch.nn.functional as F
from torch import Tensor
from vector_quantize_pytorch import VectorQuantize

from il_bench.tokenizers.autoencoder import AutoencoderTokenizer
from il_bench.tokenizers.nearest import nearest
from il_bench.tokenizers.training import BATCH_SIZE, dead_below, train

WARM_UP_STEPS, STEPS = 300, 1200
DECAY = 0.9  # of the moving averages that the codes are
COMMITMENT = 0.25  # the paper's beta
LATENTS_PER_CODE = 16  # for the k-means that places the codes


class VQVAETokenizer(AutoencoderTokenizer):
    """One token a chunk: the code nearest to its latent vector.

    ``fit`` trains encoder and decoder alone at first, then places the codes by k-means on the latent vectors,
    then trains all: the codes as moving averages of what they own, gradients straight through. A dead code
    (see ``training.dead_below``) is moved onto a latent of the batch, so that the codebook stays in use.

    codebook_size: number of codes C; ``fit`` needs at least as many different chunks.
    """

    def __init__(
        self,
        codebook_size: int,
        chunk_shape: tuple[int, int],
        *,
        embedding_dim: int = 32,
        hidden_dim: int = 128,
    ) -> None:
        super().__init__(codebook_size, chunk_shape, embedding_dim, hidden_dim)
        self.quantizer = VectorQuantize(
            embedding_dim,
            codebook_size,
            decay=DECAY,
            kmeans_init=True,
            # In latents, not a share; the library also gives the revived code this weight.
            threshold_ema_dead_code=dead_below(codebook_size),
            commitment_weight=COMMITMENT,
            rotation_trick=False,  # the library's default, in the place of straight-through gradients
        )

    @property
    def codebook(self) -> Tensor:
        """The codes (C, D)."""
        codes: Tensor = self.quantizer.codebook
        return codes

    def _untrained(self) -> "VQVAETokenizer":
        return VQVAETokenizer(
            self.codebook_size, self.chunk_shape, embedding_dim=self.embedding_dim, hidden_dim=self.hidden_dim
        )

    def _train_on(self, chunks: Tensor) -> None:
        self._check_different(chunks)

        def reconstruction(batch: Tensor) -> Tensor:
            flat = batch.flatten(1)
            return F.l1_loss(self.decoder(self.encoder(flat)), flat)

        def loss(batch: Tensor) -> Tensor:
            flat = batch.flatten(1)
            codes, _, commitment = self.quantizer(self.encoder(flat))
            total: Tensor = F.l1_loss(self.decoder(codes), flat) + commitment
            return total

        train(self, reconstruction, chunks, WARM_UP_STEPS)
        # The library places the codes, by k-means on the latents that it is given first.
        rows = torch.randperm(len(chunks))[: LATENTS_PER_CODE * max(self.codebook_size, BATCH_SIZE)]
        with torch.no_grad():
            self.quantizer(self.encoder(chunks[rows.to(chunks.device)].flatten(1)))
        train(self, loss, chunks, STEPS)

    def _quantize(self, latents: Tensor) -> Tensor:
        # Not the library's search: it computes in float32 whatever the weights, and takes squared distances
        # below 1e-8 for equal.
        return nearest(latents, self.codebook)

    def _codes(self, indices: Tensor) -> Tensor:
        return self.codebook[indices]
