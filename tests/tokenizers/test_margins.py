"""Residual VQ's margins of rounding: codes that float32 cannot tell apart are decided in float64, others not.

Each network lays nearly all of its rounding in one part of the margin, so that the others hide nothing of it.
Its codes lie on a sphere around the one latent there is, where rounding decides between them.
"""

from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor

from il_bench.tokenizers import ResidualVQTokenizer
from il_bench.tokenizers import residual_vq as residual_vq_module

DIM, N_CODES = 8, 16
#: Weights and biases of the encoder, the codes' distance from the latent, the second stage's place as a share
#: of the latent (half way to it |x.e - |e|^2 / 2| and e_i.e_k are about as large, at 0 both are small), and
#: how far about that place its codes lie.
Layers = tuple[list[Tensor], float, float, float]


def uniform(*shape: int, generator: torch.Generator) -> Tensor:
    return torch.rand(*shape, generator=generator)


def zeros(width: int) -> list[Tensor]:
    """A first layer and the weights of a second that pass nothing on."""
    return [torch.zeros(width, 4), torch.zeros(width), torch.zeros(width, width)]


def constant_decides(generator: torch.Generator) -> Layers:
    """The last bias is nearly all of the latent."""
    width = 4
    weight = 1e-3 * torch.randn(DIM, width, generator=generator)
    hidden = 0.01 * uniform(width, generator=generator)
    return [*zeros(width), hidden, weight, torch.randn(DIM, generator=generator)], 1.0, 0.0, 1e-3


def cross_decides(generator: torch.Generator) -> Layers:
    """The same, and the second stage's scores change by as much where the first's code is taken away."""
    layers, radius, *_ = constant_decides(generator)
    return layers, radius, 0.49, 0.1


def last_product_decides(generator: torch.Generator) -> Layers:
    """The latent is twice its bias, so that the codes' constant scores x.e - |e|^2 / 2 cancel.

    The second stage's codes are far enough apart not to be in doubt themselves.
    """
    width = 64
    weight = 100.0 * (0.5 + uniform(DIM, width, generator=generator))
    hidden = 0.01 * (0.5 + uniform(width, generator=generator))
    bias = (weight.double() @ hidden.double()).float()
    return [*zeros(width), hidden, weight, bias], 0.01, 0.0, 0.3


def hidden_layers_decide(generator: torch.Generator) -> Layers:
    """Wide, with biases that take away nearly all that the second layer adds up for the chunk of ones."""
    width = 64
    first, first_bias = uniform(width, 4, generator=generator), 2000.0 * uniform(width, generator=generator)
    second = -uniform(width, width, generator=generator)
    taken = -(second.double() @ (first.double().sum(dim=1) + first_bias.double()))
    bias = (taken + uniform(width, generator=generator)).float()
    weight = torch.randn(DIM, width, generator=generator) / width**0.5
    return [first, first_bias, second, bias, weight, torch.zeros(DIM)], 0.3, 0.0, 3e-4


def large_chunks_decide(generator: torch.Generator) -> Layers:
    """The second layer adds up to nearly nothing, and its terms grow with the chunk: no bias hides them.

    The second stage's codes are far apart, as above.
    """
    width = 64
    first = uniform(width, 4, generator=generator)
    ones = first.double().sum(dim=1)
    second = torch.randn(width, width, generator=generator, dtype=torch.float64)
    second -= torch.outer(second @ ones, ones) / ones.square().sum()
    weight = torch.randn(DIM, width, generator=generator) / width**0.5
    bias = 10.0 * uniform(width, generator=generator)
    return [first, torch.zeros(width), second.float(), bias, weight, torch.zeros(DIM)], 0.3, 0.0, 10.0


KINDS = (constant_decides, cross_decides, last_product_decides, hidden_layers_decide)


def network(
    kind: Any, seed: int, spread: float = 0.0, size: float = 1.0
) -> tuple[ResidualVQTokenizer, Tensor]:
    """A tokenizer whose codes lie around the latent (D,) of the chunk of only ``size``, and that latent.

    On a sphere, or at distances ``spread`` times as large that differ.
    """
    generator = torch.Generator().manual_seed(seed)
    layers, radius, share, reach = kind(generator)
    tokenizer = ResidualVQTokenizer.new(N_CODES, (2, 2), embedding_dim=DIM, hidden_dim=len(layers[1]))
    vqvae = tokenizer.vqvae
    latent = torch.full((4,), size, dtype=torch.float64)
    with torch.no_grad():
        for parameter, values in zip(vqvae.encoder.parameters(), layers, strict=True):
            parameter.copy_(values)
    for number in range(0, 6, 2):
        latent = layers[number].double() @ (latent.relu() if number else latent) + layers[number + 1].double()
    ways = torch.randn(2, N_CODES, DIM, generator=generator)
    away = spread * ways[0] if spread else ways[0] / ways[0].norm(dim=1, keepdim=True)
    around = (latent + radius * away).float()
    second = (share * latent + reach * (spread or 1.0) * ways[1]).float()
    for stage, codes in zip(vqvae.vq_layer.layers, (around, second), strict=True):
        stage._codebook.embed.copy_(codes[None])
    vqvae.discretized.fill_(True)
    return tokenizer.eval(), latent


def in_float32(tokenizer: Any, size: float) -> int:
    """The first stage's code by scores in float32 alone."""
    first, *_ = tokenizer.vqvae.vq_layer.codebooks
    *hidden, (weight, bias) = [(layer.weight, layer.bias) for layer in list(tokenizer.vqvae.encoder)[::2]]
    values = torch.full((1, 4), size)
    for each in hidden:
        values = torch.nn.functional.linear(values, *each).relu()
    scores = values @ (weight.T @ first.T) + (first @ bias - first.square().sum(dim=1) / 2)
    return int(scores.argmax())


@pytest.mark.parametrize(
    ("kind", "size"), [*((kind, 1.0) for kind in KINDS), (large_chunks_decide, 30_000.0)]
)
def test_codes_that_rounding_cannot_tell_apart_are_decided_in_float64(kind: Any, size: float) -> None:
    """Also of chunks that are not normalised, in px or of another robot."""
    wrong_in_float32 = 0
    for seed in range(30):
        tokenizer, latent = network(kind, seed, size=size)
        first = tokenizer.vqvae.vq_layer.codebooks[0]
        nearest = int((first.double() - latent).square().sum(dim=1).argmin())
        with torch.no_grad():
            wrong_in_float32 += in_float32(tokenizer, size) != nearest
            assert tokenizer.encode(torch.full((1, 2, 2), size))[0, 0] == nearest, seed
    assert wrong_in_float32 > 5


@pytest.mark.parametrize(("kind", "spread"), list(zip(KINDS, (1.0, 1.0, 1e4, 2000.0), strict=True)))
def test_codes_that_rounding_can_tell_apart_are_not_decided_in_float64(kind: Any, spread: float) -> None:
    """The same networks, the codes at other distances that differ by far more than rounding."""
    decided = 0
    for seed in range(30):
        tokenizer, _ = network(kind, seed, spread)
        with mock.patch.object(
            residual_vq_module, "encode_in_float64", wraps=residual_vq_module.encode_in_float64
        ) as in_float64:
            tokenizer.encode(torch.ones(1, 2, 2))
        decided += in_float64.call_count
    assert decided <= 3
