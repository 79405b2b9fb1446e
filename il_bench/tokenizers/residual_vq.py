"""Residual vector quantization: LeRobot's own ``VqVae`` of VQ-BeT behind the tokenizer protocol."""

import itertools
import math
from types import SimpleNamespace

import torch
from lerobot.configs import FeatureType, PolicyFeature
from lerobot.policies.vqbet.modeling_vqbet import VqVae
from torch import Tensor, nn

from il_bench.errors import IlBenchError
from il_bench.tokenizers.base import Tokenizer, full_precision
from il_bench.tokenizers.residual_tables import DecoderTables, EncoderTables, encode_in_float64
from il_bench.tokenizers.training import dead_below, own_randomness, train

STEPS = 1500


class ResidualVQTokenizer(Tokenizer):
    """The first phase of VQ-BeT (Lee et al. 2024, section 3.2) as a tokenizer of normalised chunks.

    ``encode`` and ``decode`` give what LeRobot's ``get_code`` and decoder give on the same weights, several
    times faster and in float64 too (see ``residual_tables``). Where two codes are so close that rounding
    decides, the tokens may differ; ours is the code nearest in float64. The tables follow every change of
    the weights and are not in ``state_dict``.

    Args:
        vqvae: LeRobot's module, or a subclass with encoder and decoder of Linear and ReLU; shared, not
            copied. It encodes once its first phase is over (``discretized``) or ``fit`` was called.
    """

    def __init__(self, vqvae: VqVae) -> None:
        config = vqvae.config
        super().__init__(
            int(config.vqvae_n_embed),
            int(vqvae.vqvae_num_layers),
            (config.action_chunk_size, config.action_feature.shape[0]),
        )
        for name in ("encoder", "decoder"):
            _check_layers(name, getattr(vqvae, name))
        self.vqvae = vqvae
        self._encoder_tables: EncoderTables | None = None
        self._decoder_tables: DecoderTables | None = None

    @classmethod
    def new(
        cls,
        codebook_size: int,
        chunk_shape: tuple[int, int],
        *,
        embedding_dim: int = 256,
        hidden_dim: int = 128,
    ) -> "ResidualVQTokenizer":
        """An unfitted tokenizer on a new ``VqVae`` with two codebooks of ``codebook_size`` codes (D,)."""
        if min(codebook_size, *chunk_shape, embedding_dim, hidden_dim) < 1:
            raise IlBenchError(
                f"ResidualVQTokenizer: codebook_size {codebook_size}, chunk_shape {tuple(chunk_shape)}, "
                f"embedding_dim {embedding_dim}, hidden_dim {hidden_dim}; give 1 or more for each."
            )
        action = PolicyFeature(FeatureType.ACTION, (chunk_shape[1],))
        config = SimpleNamespace(  # what LeRobot's module reads of a policy's configuration
            vqvae_n_embed=codebook_size,
            vqvae_embedding_dim=embedding_dim,
            vqvae_enc_hidden_dim=hidden_dim,
            action_chunk_size=chunk_shape[0],
            action_feature=action,
        )
        return cls(VqVae(config))

    @property
    def fitted(self) -> Tensor:  # type: ignore[override]
        """Whether the first phase is over, () bool: LeRobot's own buffer."""
        discretized: Tensor = self.vqvae.discretized
        return discretized

    def fit(self, chunks: Tensor, *, seed: int = 0) -> None:
        """Run VQ-BeT's first phase on ``chunks`` (N, W, A): LeRobot's loss, codes as moving averages.

        Unlike in LeRobot, a dead code (see ``training.dead_below``) is moved onto a latent of the batch.
        """
        weight: Tensor = next(self.vqvae.parameters())
        # In float32 whatever the weights: LeRobot's update of the codebooks takes nothing else.
        data = self._to_fit(chunks, weight, torch.float32)
        with own_randomness(seed, weight.device):
            data = data.clone()  # autograd takes no inference tensor, but a clone of one
            trained = self._untrained().to(weight.device)
            train(trained, lambda batch: trained.vqvae_forward(batch)[0], data, STEPS)
        trained.discretized.fill_(True)
        trained.vq_layer.freeze_codebook.fill_(True)
        trained.optimized_steps = self.vqvae.optimized_steps = STEPS
        self.vqvae.load_state_dict(trained.state_dict())
        self.eval()

    def _untrained(self) -> VqVae:
        """A new module of the same kind and sizes, mended so that its codes get used.

        LeRobot's counts of code use start at 0, although the sums divided by them start at the codes
        (vqbet_utils.py:1209): its first update throws every code that the batch misses to 100,000 times its
        place. And LeRobot revives no codes, so those that begin far from all latents stay there.
        """
        untrained = type(self.vqvae)(self.vqvae.config)
        for stage in untrained.vq_layer.layers:
            book = stage._codebook
            book.cluster_size.fill_(1.0)
            # A revived code gets the same weight: with less, the next batch alone would move it.
            book.threshold_ema_dead_code = book.reset_cluster_size = dead_below(self.codebook_size)
        return untrained

    def encode(self, chunks: Tensor) -> Tensor:
        """Codes of all stages, (N, G) int64; ``chunks`` (N, W, A) normalised."""
        self._check_tensor("chunks", chunks)
        if _needs_context(chunks.device):
            with torch.no_grad(), full_precision(chunks.device):
                return self.encode(chunks)
        self._check_fitted()
        self._check_shape(chunks)
        tensors = _tensors(self.vqvae, "encoder")
        flat = chunks.flatten(1)
        if flat.dtype != tensors[0].dtype:
            self._check_weights(tensors[0])
            self._check_finite(flat)
            flat = self._in_type(flat, tensors[0].dtype)
        tables = self._encoder_tables
        if tables is None or not tables.fits(tensors):
            with torch.inference_mode(False), torch.no_grad():  # the tables outlive an inference mode
                tables = self._encoder_tables = EncoderTables.of(tensors, self.num_quantizers)
        largest = _largest(flat)
        if not largest < math.inf:  # so that NaN is found too
            self._check_finite(chunks)
        indices, doubtful = tables.encode(flat, tensors, largest)
        if doubtful is not None:
            indices[doubtful] = encode_in_float64(flat[doubtful], tensors, self.num_quantizers)
        return indices

    def decode(self, indices: Tensor) -> Tensor:
        """The decoder's output for the sum of codes ``indices`` (N, G), in the weights' type: (N, W, A)."""
        self._check_tensor("tokens", indices)
        if _needs_context(indices.device):
            with torch.no_grad(), full_precision(indices.device):
                return self.decode(indices)
        self._check_fitted()
        self._check_indices(indices)
        tensors = _tensors(self.vqvae, "decoder")
        tables = self._decoder_tables
        if tables is None or not tables.weights.unchanged(tensors):
            self._check_weights(tensors[0])
            with torch.inference_mode(False), torch.no_grad():
                tables = self._decoder_tables = DecoderTables.of(tensors, self.num_quantizers)
        chunks: Tensor = tables.decode(indices).unflatten(1, self.chunk_shape)
        return chunks

    def reference_encode(self, chunks: Tensor) -> Tensor:
        """LeRobot's ``get_code`` on the same weights, which must be float32: (N, G) int64, N > 0.

        Raises IlBenchError like ``encode``, and in training mode, where LeRobot's codebooks may change.
        """
        self._check_fitted(next(self.vqvae.parameters()))
        if self.vqvae.training:
            raise IlBenchError("The residual VQ is in training mode and would change; call eval() first.")
        self._check_chunks(chunks)
        return self.vqvae.get_code(chunks)[1]  # type: ignore[no-any-return]

    def reference_decode(self, indices: Tensor) -> Tensor:
        """LeRobot's decoding of the codes ``indices`` (N, G) on the same weights: (N, W, A)."""
        self._check_fitted(next(self.vqvae.parameters()))
        self._check_indices(indices)
        latent = self.vqvae.get_embeddings_from_code(indices)
        return self.vqvae.get_action_from_latent(latent).detach()  # type: ignore[no-any-return]

    @torch.no_grad()
    def stage_errors(self, chunks: Tensor) -> Tensor:
        """Mean absolute error (G + 1,) of ``chunks`` (N, W, A) decoded from their first k codes, k = 0 .. G.

        For k = 0 the decoder gets the zero vector.
        """
        codes = self.encode(chunks)
        vectors = self.vqvae.vq_layer.get_codebook_vector_from_indices(codes)  # (G, N, D)
        latents = torch.cat([torch.zeros_like(vectors[:1]), vectors.cumsum(dim=0)])  # (G + 1, N, D)
        decoded: Tensor = self.vqvae.decoder(latents)  # (G + 1, N, W * A)
        return (decoded - chunks.flatten(1)).abs().mean(dim=(1, 2))


def _needs_context(device: torch.device) -> bool:
    """Whether gradients or autocast are on; asked first, as entering a context takes microseconds."""
    return torch.is_grad_enabled() or torch.is_autocast_enabled(device.type)


def _largest(flat: Tensor) -> float:
    """Largest absolute value; NaN if there is one, 0 for no values."""
    if not len(flat):
        return 0.0
    low, high = torch.aminmax(flat)
    return max(-float(low), float(high))


def _tensors(vqvae: VqVae, network: str) -> list[Tensor]:
    """Weight and bias of each Linear of ``network``, then each stage's codes (1, C, D).

    They are read from the modules' own dictionaries: an attribute takes a third of a microsecond.
    """
    parts = vqvae._modules
    layers = [layer._parameters.values() for layer in parts[network]._modules.values()]
    stages = parts["vq_layer"]._modules["layers"]._modules.values()
    codebooks = [stage._modules["_codebook"]._buffers["embed"] for stage in stages]
    return [*itertools.chain.from_iterable(layers), *codebooks]


def _check_layers(name: str, network: nn.Module) -> None:
    kinds = [type(layer) for layer in network.children()]
    alternating = [(nn.Linear, nn.ReLU)[number % 2] for number in range(len(kinds))]
    has_biases = all(getattr(layer, "bias", True) is not None for layer in network.children())
    if kinds != alternating or len(kinds) < 3 or len(kinds) % 2 == 0 or not has_biases:
        found = ", ".join(kind.__name__ for kind in kinds)
        raise IlBenchError(
            f"ResidualVQTokenizer: the {name} is ({found}); give two or more Linear layers with a bias, "
            "ReLU between them, as LeRobot's."
        )
