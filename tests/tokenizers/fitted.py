"""Small tokenizers: fitted ones of every kind, and ones whose networks pass everything through unchanged."""

import contextlib
import copy
from collections.abc import Callable
from functools import cache
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from lerobot.policies.vqbet.modeling_vqbet import VqVae
from torch import Tensor, nn

from il_bench.policies.vqbet import ResumableVqVae
from il_bench.tokenizers import (
    FSQTokenizer,
    KMeansTokenizer,
    ResidualVQTokenizer,
    Tokenizer,
    UniformBinsTokenizer,
    VQVAETokenizer,
)
from il_bench.tokenizers.autoencoder import AutoencoderTokenizer

CHUNK = (3, 2)
LEVELS = (5, 4, 3)
N_CODES = 8


def demonstrations(n: int = 400, seed: int = 0) -> Tensor:
    """Chunks (N, 3, 2) of random walks around a few places, float32 in about [-1.5, 1.5]."""
    generator = torch.Generator().manual_seed(seed)
    places = torch.randint(-1, 2, (n, 1, 2), generator=generator)
    steps = 0.15 * torch.randn(n, *CHUNK, generator=generator)
    return (places + steps.cumsum(dim=1)).float()


MAKERS: dict[str, Callable[[], Tokenizer]] = {
    "bins": lambda: UniformBinsTokenizer(N_CODES, CHUNK),
    "kmeans": lambda: KMeansTokenizer(N_CODES, CHUNK),
    "residual_vq": lambda: ResidualVQTokenizer.new(N_CODES, CHUNK, embedding_dim=8, hidden_dim=32),
    "vqvae": lambda: VQVAETokenizer(N_CODES, CHUNK, embedding_dim=4, hidden_dim=32),
    "fsq": lambda: FSQTokenizer(LEVELS, CHUNK, hidden_dim=32),
}
KINDS = tuple(MAKERS)
LEARNED = ("residual_vq", "vqvae", "fsq")
# Training long enough to use many codes, and no longer: the properties hold for any weights.
SHORT = {
    "training.BATCH_SIZE": 128,
    "vqvae.WARM_UP_STEPS": 60,
    "vqvae.STEPS": 120,
    "fsq.STEPS": 350,
    "residual_vq.STEPS": 300,
}


def fit(tokenizer: Tokenizer, chunks: Tensor, *, seed: int = 0, steps: int | None = None) -> None:
    """``tokenizer.fit`` with few and small training steps, or ``steps`` in each part of the training."""
    with contextlib.ExitStack() as stack:
        for name, value in SHORT.items():
            use = steps if steps is not None and name.endswith("STEPS") else value
            stack.enter_context(mock.patch(f"il_bench.tokenizers.{name}", use))
        tokenizer.fit(chunks, seed=seed)


@cache
def fitted(kind: str) -> Tokenizer:
    """The tokenizer of that kind fitted to ``demonstrations()``; always the same object: do not change it."""
    tokenizer = MAKERS[kind]()
    fit(tokenizer, demonstrations())
    return tokenizer


def own_copy(kind: str) -> Any:
    """A fitted tokenizer of that kind to change at will."""
    return copy.deepcopy(fitted(kind))


def vqvae_config(
    chunk_shape: tuple[int, int],
    codebook_size: int,
    embedding_dim: int,
    hidden_dim: int,
    revive_below: float = 0.0,
) -> Any:
    """What LeRobot's ``VqVae`` reads of a VQ-BeT configuration."""
    return SimpleNamespace(
        vqvae_embedding_dim=embedding_dim,
        vqvae_n_embed=codebook_size,
        vqvae_enc_hidden_dim=hidden_dim,
        vqvae_revive_below=revive_below,
        action_chunk_size=chunk_shape[0],
        action_feature=SimpleNamespace(shape=(chunk_shape[1],)),
    )


def pass_through(network: nn.Sequential) -> None:
    """Weights that make Linear-ReLU-Linear-ReLU-Linear the identity, exactly: x = relu(x) - relu(-x)."""
    first, middle, last = (module for module in network if isinstance(module, nn.Linear))
    size = first.in_features
    eye = torch.eye(size)
    with torch.no_grad():
        first.weight.copy_(torch.cat([eye, -eye]))
        middle.weight.copy_(torch.eye(2 * size))
        last.weight.copy_(torch.cat([eye, -eye], dim=1))
        for layer in (first, middle, last):
            layer.bias.zero_()


def frozen_vqvae(codebooks: Tensor, kind: type[VqVae] = ResumableVqVae) -> VqVae:
    """LeRobot's ``VqVae`` past its first phase: codebooks (2, C, D), chunks (1, D), nets passing through."""
    _, n_codes, dim = codebooks.shape
    vqvae = kind(vqvae_config((1, dim), n_codes, dim, 2 * dim))
    pass_through(vqvae.encoder)
    pass_through(vqvae.decoder)
    for layer, codebook in zip(vqvae.vq_layer.layers, codebooks, strict=True):
        layer.codebook = codebook
    vqvae.discretized.fill_(True)
    vqvae.vq_layer.freeze_codebook.fill_(True)
    return vqvae.eval()


def passing_through[T: AutoencoderTokenizer](tokenizer: T) -> T:
    """The tokenizer as if fitted, its networks passing everything through."""
    pass_through(tokenizer.encoder)
    pass_through(tokenizer.decoder)
    tokenizer.fitted.fill_(True)
    return tokenizer.eval()


def plain_residual_vq(codebooks: Tensor) -> ResidualVQTokenizer:
    """Residual VQ of the chunks (N, 1, D) themselves by codebooks (2, C, D)."""
    return ResidualVQTokenizer(frozen_vqvae(codebooks)).eval()


def plain_vqvae(codebook: Tensor) -> VQVAETokenizer:
    """VQ-VAE of the chunks (N, 1, D) themselves by ``codebook`` (C, D)."""
    n_codes, dim = codebook.shape
    tokenizer = VQVAETokenizer(n_codes, (1, dim), embedding_dim=dim, hidden_dim=2 * dim)
    tokenizer.quantizer.codebook = codebook
    tokenizer.quantizer._codebook.initted.fill_(True)
    return passing_through(tokenizer)


def plain_fsq(levels: tuple[int, ...]) -> FSQTokenizer:
    """FSQ of the chunks (N, 1, D) themselves, D = len(levels)."""
    return passing_through(FSQTokenizer(levels, (1, len(levels)), hidden_dim=2 * len(levels)))


def plain_kmeans(centers: Tensor) -> KMeansTokenizer:
    """k-means of chunks (N, 1, D) with the given ``centers`` (C, D)."""
    tokenizer = KMeansTokenizer(len(centers), (1, centers.shape[1]))
    tokenizer.centers.copy_(centers)
    tokenizer.fitted.fill_(True)
    return tokenizer.eval()


def state(module: nn.Module) -> dict[str, Tensor]:
    """A copy of everything in ``state_dict``."""
    return {key: value.clone() for key, value in module.state_dict().items()}


def same_state(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Whether two states agree bit by bit."""
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
