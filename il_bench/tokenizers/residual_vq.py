"""Residual vector quantization: LeRobot's own ``VqVae`` of VQ-BeT behind the tokenizer protocol."""

from lerobot.policies.vqbet.modeling_vqbet import VqVae
from torch import Tensor

from il_bench.errors import IlBenchError
from il_bench.tokenizers.base import Tokenizer


class ResidualVQTokenizer(Tokenizer):
    """The first phase of VQ-BeT (Lee et al. 2024, section 3.2) as a tokenizer of normalised chunks.

    Args:
        vqvae: LeRobot's module, or a subclass; shared, not copied. Its first phase must be over
            (``discretized``) before anything is encoded.
    """

    def __init__(self, vqvae: VqVae) -> None:
        super().__init__()
        self.vqvae = vqvae
        self.codebook_size = int(vqvae.config.vqvae_n_embed)
        self.num_quantizers = int(vqvae.vqvae_num_layers)
        self.chunk_shape = (vqvae.config.action_chunk_size, vqvae.config.action_feature.shape[0])

    def encode(self, chunks: Tensor) -> Tensor:
        """Codes of both stages, (N, G) int64; ``chunks`` (N, W, A) float32, normalised."""
        self._check_trained()
        self._check_chunks(chunks)
        return self.vqvae.get_code(chunks)[1]  # type: ignore[no-any-return]

    def decode(self, indices: Tensor) -> Tensor:
        """Decoder's answer to the sum of the codes ``indices`` (N, G): (N, W, A)."""
        self._check_trained()
        self._check_indices(indices)
        latent = self.vqvae.get_embeddings_from_code(indices)
        return self.vqvae.get_action_from_latent(latent).detach()  # type: ignore[no-any-return]

    def _check_trained(self) -> None:
        if not bool(self.vqvae.discretized):
            raise IlBenchError(
                "This VQ-BeT is still in its first phase, so its residual VQ is not a tokenizer yet; "
                "train it past n_vqvae_training_steps."
            )
        if self.vqvae.training:
            raise IlBenchError("The residual VQ is in training mode and would change; call eval() first.")
