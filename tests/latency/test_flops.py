"""Counted operations against counts by hand: sums of 2 m k n over the products of each network."""

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from il_bench.latency.calls import policy_call
from il_bench.latency.flops import count_flops
from il_bench.policies.checkpoint import load_policy

from .fakes import made

BATCH = 3


def linear(rows: int, *widths: int) -> int:
    """Operations of a chain of layers on so many rows."""
    return sum(2 * rows * a * b for a, b in pairwise(widths))


@pytest.mark.parametrize("what", ["new chunk", "predict_action_chunk", "control step"])
@pytest.mark.parametrize("batch", [1, 5])
def test_bc_is_its_mlp(what: str, batch: int) -> None:
    """Two observations of 91 numbers (agent and features) to 8 actions of 2, through three blocks of 512."""
    call = policy_call(load_policy("bc"), what, batch)
    expected = linear(batch, 182, 512) + 3 * linear(batch, 512, 512, 512) + linear(batch, 512, 16)
    assert count_flops(lambda: made(call)) == expected


def test_a_queued_action_multiplies_nothing() -> None:
    call = policy_call(load_policy("bc"), "queued action", 1)
    call.prepare()
    assert count_flops(call.call) == 0


def test_diffusion_does_its_network_once_a_denoising_step() -> None:
    policy = load_policy("diffusion")
    call = policy_call(policy, "new chunk", 1)
    every = count_flops(lambda: made(call))
    policy.policy.diffusion.num_inference_steps //= 2
    half = count_flops(lambda: made(call))
    assert every is not None and half is not None and every == 2 * half > 0


@pytest.mark.parametrize(
    ("module", "given", "expected"),
    [
        # every output place (10, padding counted) and channel: 5 taps of 4 channels
        (nn.Conv1d(4, 6, 5, padding=2), (BATCH, 4, 10), 2 * BATCH * 10 * 6 * 4 * 5),
        (nn.Conv1d(4, 6, 3, stride=2, padding=1), (BATCH, 4, 10), 2 * BATCH * 5 * 6 * 4 * 3),
        (nn.Conv1d(4, 6, 5, padding=2, groups=2), (BATCH, 4, 10), 2 * BATCH * 10 * 6 * 2 * 5),
        # every input place goes to 4 taps
        (nn.ConvTranspose1d(4, 6, 4, stride=2, padding=1), (BATCH, 4, 10), 2 * BATCH * 10 * 4 * 6 * 4),
        (nn.Conv2d(3, 8, 3, padding=1), (BATCH, 3, 6, 6), 2 * BATCH * 36 * 8 * 3 * 9),
        (nn.Sequential(nn.LayerNorm(8), nn.GELU(), nn.Softmax(-1)), (BATCH, 8), 0),
    ],
)
def test_layers_by_hand(module: nn.Module, given: tuple[int, ...], expected: int) -> None:
    with torch.no_grad():
        assert count_flops(lambda: module(torch.zeros(given))) == expected


def attention(length: int, width: int) -> int:
    """Scores and their weighted sums, whatever the number of heads, without the projections."""
    return 2 * linear(BATCH * length, width, length)


def sdpa() -> object:
    return F.scaled_dot_product_attention(*torch.rand(3, BATCH, 4, 10, 8).unbind())


def multihead() -> object:
    x = torch.rand(BATCH, 10, 32)
    return nn.MultiheadAttention(32, 4, batch_first=True).eval()(x, x, x, need_weights=False)


def encoder_layer() -> object:
    return nn.TransformerEncoderLayer(32, 4, 64, batch_first=True).eval()(torch.rand(BATCH, 10, 32))


PROJECTIONS = 4 * linear(BATCH * 10, 32, 32)  # query, key, value, output


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (sdpa, attention(10, 32)),
        (multihead, PROJECTIONS + attention(10, 32)),
        (encoder_layer, PROJECTIONS + attention(10, 32) + linear(BATCH * 10, 32, 64, 32)),
        (lambda: torch.rand(5, 7) @ torch.rand(7), 2 * 5 * 7),
        (lambda: torch.rand(7) @ torch.rand(7), 2 * 7),
    ],
    ids=["attention", "MultiheadAttention", "TransformerEncoderLayer", "matrix times vector", "dot"],
)
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_what_torch_does_in_one_operator_is_counted_too(
    call: Callable[[], object], expected: int, mode: Callable[[], torch.no_grad]
) -> None:
    with mode():
        assert count_flops(call) == expected


def test_a_training_step_is_three_times_its_forward_without_the_inputs_gradient() -> None:
    """Of each layer's products forward, gradient of the weight and gradient of the input; not the first's."""
    network = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4))
    x = torch.rand(BATCH, 6)
    found = count_flops(lambda: network(x).sum().backward())
    assert found == 2 * linear(BATCH, 6, 8) + 3 * linear(BATCH, 8, 4)
    assert torch.backends.mha.get_fastpath_enabled(), "counting leaves torch as it was"


def test_products_that_cannot_be_seen_make_no_count() -> None:
    distances, found = torch.cdist(torch.rand(30, 4), torch.rand(30, 4)), torch.rand(30, 2)
    assert count_flops(lambda: distances @ found) == 2 * 30 * 30 * 2
    assert count_flops(lambda: torch.cdist(torch.rand(30, 4), torch.rand(30, 4)) @ found) is None
