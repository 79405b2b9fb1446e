"""Stages of a residual quantizer: each sees what the one before it left, and none makes things worse."""

from typing import Any

import numpy as np
import oracles
import pytest
import torch
from fitted import CHUNK, demonstrations, fitted, frozen_vqvae, plain_residual_vq
from hypothesis import given
from hypothesis import strategies as st
from lerobot.policies.vqbet.vqbet_utils import ResidualVQ
from oracles import EPS
from strategies import chunks_of, examples, partitions, smooth, two_stages

F32 = EPS[torch.float32]


def seen_by_stages(layer: ResidualVQ, points: torch.Tensor) -> tuple[list[Any], list[Any], Any]:
    """What goes into each stage and comes out of it as tokens, and what the whole returns."""
    inputs, indices = [], []
    hooks = [
        stage.register_forward_hook(
            lambda _, given_, made: (inputs.append(given_[0].detach().clone()), indices.append(made[1]))[0]
        )
        for stage in layer.layers
    ]
    answer = layer(points)
    for hook in hooks:
        hook.remove()
    return inputs, indices, answer


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@examples(40)
@given(problem=two_stages(smooth, dim=3))
def test_stage_k_sees_exactly_what_stage_k_minus_1_left(training: bool, problem: Any) -> None:
    """Bit by bit in eval mode; in training x + (q - x) is q only up to rounding."""
    points, codebooks = (torch.from_numpy(part) for part in problem)
    layer = frozen_vqvae(codebooks).vq_layer.train(training)
    inputs, (first, second), (quantized, indices, losses) = seen_by_stages(layer, points[None])
    assert torch.equal(inputs[0], points[None])
    left = points - codebooks[0][first[0]]
    off = (inputs[1][0] - left).abs()
    rounding = 2 * F32 * (points.abs() + left.abs()) if training else torch.zeros_like(left)
    assert (off <= rounding).all()
    assert torch.equal(indices, torch.stack([first, second], dim=-1))
    total = codebooks[0][first[0]] + codebooks[1][second[0]]
    assert (quantized[0] - total).abs().max() <= 64 * F32
    assert losses.shape == (1, 2)
    assert training or losses.count_nonzero() == 0


@examples(40)
@given(problem=two_stages(smooth, dim=3))
def test_our_stages_quantize_the_residual_of_the_first(problem: Any) -> None:
    """Tokens, and what they decode to where the decoder passes its input through: the sum of both codes."""
    points, codebooks = problem
    tokenizer = plain_residual_vq(torch.from_numpy(codebooks))
    chunks = torch.from_numpy(points)[:, None]
    tokens = tokenizer.encode(chunks)
    for stage, left in enumerate([points, points - codebooks[0][tokens[:, 0]]]):
        # Decided in float64; `left` is rounded here, once in the second stage.
        latent = oracles.Bounded(oracles.array(left), F32 * np.abs(left) * stage)
        error = oracles.stage_error(latent, codebooks[stage], 1e-15)
        oracles.check_nearest(left, codebooks[stage], tokens[:, stage], error)
    total = codebooks[0].astype(np.float64)[tokens[:, 0]] + codebooks[1].astype(np.float64)[tokens[:, 1]]
    size = np.abs(codebooks).sum(axis=0).max() + 1e-30
    for decode in (tokenizer.decode, tokenizer.reference_decode):
        assert np.abs(oracles.array(decode(tokens)[:, 0]) - total).max() <= 4 * F32 * size


def squared_error(chunks: torch.Tensor, decoded: torch.Tensor) -> float:
    return float(np.square(oracles.array(chunks) - oracles.array(decoded)).sum())


@examples(60)
@given(data=st.data())
def test_no_stage_raises_the_error_where_codes_are_means_of_what_they_own(data: st.DataObject) -> None:
    """Whoever owns what: sum |x - mean|^2 <= sum |x|^2, and the nearest code is no farther than the mean."""
    dim, n_codes = 3, 4
    points, owners = data.draw(partitions(dim, n_codes))
    unused = data.draw(st.floats(-4, 4, width=32))
    first = oracles.means_of_owned(points, owners, np.full((n_codes, dim), unused)).astype(np.float32)
    left = points - first[oracles.nearest(points, first)]
    owners = data.draw(st.permutations(owners.tolist()))
    second = oracles.means_of_owned(left, owners, np.full((n_codes, dim), unused)).astype(np.float32)
    tokenizer = plain_residual_vq(torch.from_numpy(np.stack([first, second])))
    chunks = torch.from_numpy(points)[:, None]
    tokens = tokenizer.encode(chunks)
    none = float(np.square(points.astype(np.float64)).sum())
    one = squared_error(chunks[:, 0], tokenizer.vqvae.vq_layer.codebooks[0][tokens[:, 0]])
    both = squared_error(chunks, tokenizer.decode(tokens))
    rounding = 64 * F32 * (none + np.square(first).sum() + np.square(second).sum())
    assert one <= none + rounding
    assert both <= one + rounding


def test_stage_errors_by_hand() -> None:
    """1.0 by codes 0 or 2 and then 0.25 or -0.75: two ties to the lower code leave 1, 1 and 0.75."""
    codebooks = torch.tensor([[[0.0], [2.0]], [[0.25], [-0.75]]])
    tokenizer = plain_residual_vq(codebooks)
    # 1.25 goes to 2, which leaves -0.75.
    for value, tokens, errors in ((1.0, [0, 0], [1.0, 1.0, 0.75]), (1.25, [1, 1], [1.25, 0.75, 0.0])):
        chunks = torch.tensor([[[value]]])
        assert tokenizer.encode(chunks).tolist() == [tokens]
        assert tokenizer.stage_errors(chunks).tolist() == errors


@examples(15)
@given(chunks=chunks_of(CHUNK))
def test_stage_errors_are_those_of_the_partial_sums(chunks: torch.Tensor) -> None:
    tokenizer: Any = fitted("residual_vq")
    tokens = tokenizer.encode(chunks).numpy()
    codebooks = oracles.array(tokenizer.vqvae.vq_layer.codebooks)
    latent = np.zeros((len(chunks), codebooks.shape[2]))
    expected = []
    for stage in range(3):
        decoded = oracles.mlp(tokenizer.vqvae.decoder, latent, F32).value
        expected.append(np.abs(oracles.array(chunks).reshape(len(chunks), -1) - decoded).mean())
        if stage < 2:
            latent = latent + codebooks[stage][tokens[:, stage]]
    np.testing.assert_allclose(tokenizer.stage_errors(chunks).numpy(), expected, rtol=1e-4, atol=1e-5)
    assert expected[2] == pytest.approx(
        np.abs(oracles.array(tokenizer.decode(torch.from_numpy(tokens)) - chunks)).mean(), rel=1e-4, abs=1e-5
    )


def test_stages_help_on_what_they_were_trained_on() -> None:
    tokenizer: Any = fitted("residual_vq")
    none, one, both = tokenizer.stage_errors(demonstrations()).tolist()
    assert both < one < none
