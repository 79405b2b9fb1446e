"""Codes that must not move, and tokenizers that must stay what they are: eval, second phase, saving."""

import copy
import io
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from fitted import (
    CHUNK,
    KINDS,
    LEARNED,
    MAKERS,
    demonstrations,
    fit,
    fitted,
    own_copy,
    same_state,
    state,
    vqvae_config,
)
from hypothesis import given
from lerobot.policies.vqbet.modeling_vqbet import VQBeTHead, VqVae
from strategies import chunks_of, examples
from torch import nn

from il_bench.policies.vqbet import ResumableVqVae

FEATURES = 6
resumable = pytest.mark.parametrize("kind", [ResumableVqVae, VqVae], ids=["ours", "lerobot"])


def head_of(kind: type[VqVae], *, sequential: bool = False) -> Any:
    """VQ-BeT's head, which runs both phases, around a residual VQ of ``kind``."""
    config = SimpleNamespace(
        **vars(vqvae_config(CHUNK, 4, 5, 16)),
        gpt_output_dim=FEATURES,
        sequentially_select=sequential,
        bet_softmax_temperature=0.1,
        primary_code_loss_weight=5.0,
        secondary_code_loss_weight=0.5,
        offset_loss_weight=100.0,
    )
    torch.manual_seed(0)
    head = VQBeTHead(config)
    head.vqvae_model = kind(config)
    return head.train()


def first_phase(head: Any, optimizer: torch.optim.Optimizer, steps: range, total: int) -> None:
    for step in steps:
        loss, *_ = head.discretize(total, demonstrations(32, seed=step))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def second_phase(head: Any, optimizer: torch.optim.Optimizer, steps: int) -> None:
    for step in range(steps):
        chunks = demonstrations(16, seed=50 + step)
        features = chunks.flatten(1)[:, None, :FEATURES]
        loss = head.loss_fn(head(features), chunks[:, None])["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def reloaded(saved: Any) -> Any:
    """The same after a way through a file."""
    file = io.BytesIO()
    torch.save(saved, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


# Eval mode


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", ["eval", "train"])
@examples(8)
@given(chunks=chunks_of(CHUNK))
def test_encoding_and_decoding_change_no_bit(kind: str, mode: str, chunks: torch.Tensor) -> None:
    tokenizer = own_copy(kind).train(mode == "train")
    before = state(tokenizer)
    tokenizer.decode(tokenizer.encode(chunks))
    assert same_state(state(tokenizer), before)
    assert torch.equal(tokenizer.encode(chunks), fitted(kind).encode(chunks))
    assert not tokenizer.decode(tokenizer.encode(chunks.clone().requires_grad_())).requires_grad


@resumable
def test_lerobots_forward_in_eval_mode_changes_no_bit(kind: type[VqVae]) -> None:
    vqvae = kind(vqvae_config(CHUNK, 4, 5, 16)).eval()
    before = state(vqvae)
    vqvae.vqvae_forward(demonstrations(32))
    vqvae.get_code(demonstrations(32))
    assert same_state(state(vqvae), before)


# Second phase


@resumable
@pytest.mark.parametrize("sequential", [False, True])
def test_the_second_phase_changes_no_bit_of_the_residual_vq(kind: type[VqVae], sequential: bool) -> None:
    """Also after ``train()`` is called again, as every training loop does after an evaluation."""
    head = head_of(kind, sequential=sequential)
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-2)
    first_phase(head, optimizer, range(4), total=4)
    assert bool(head.vqvae_model.discretized) and bool(head.vqvae_model.vq_layer.freeze_codebook)
    before, tokens = state(head.vqvae_model), head.vqvae_model.get_code(demonstrations())[1]
    rest = state(head.map_to_cbet_preds_offset)
    second_phase(head, optimizer, 3)
    head.train()
    second_phase(head, optimizer, 3)
    assert same_state(state(head.vqvae_model), before)
    assert torch.equal(head.vqvae_model.get_code(demonstrations())[1], tokens)
    assert not same_state(state(head.map_to_cbet_preds_offset), rest)


@resumable
def test_a_second_phase_that_is_resumed_keeps_the_residual_vq(kind: type[VqVae]) -> None:
    """That it is frozen, and that the first phase is over, are in state_dict."""
    head = head_of(kind)
    first_phase(head, torch.optim.AdamW(head.parameters(), lr=1e-2), range(3), total=3)
    again = head_of(kind)
    again.load_state_dict(head.state_dict())
    again.train()
    assert bool(again.vqvae_model.discretized) and bool(again.vqvae_model.vq_layer.freeze_codebook)
    second_phase(again, torch.optim.AdamW(again.parameters(), lr=1e-2), 2)
    assert same_state(state(again.vqvae_model), state(head.vqvae_model))


def test_our_frozen_residual_vq_stays_in_eval_mode() -> None:
    head = head_of(ResumableVqVae)
    first_phase(head, torch.optim.SGD(head.parameters(), lr=0.0), range(2), total=3)
    assert head.vqvae_model.training
    first_phase(head, torch.optim.SGD(head.parameters(), lr=0.0), range(1), total=3)
    for mode in (True, False, True):
        assert not any(module.training for module in head.train(mode).vqvae_model.modules())


def test_the_first_phase_moves_codes_encoder_and_decoder() -> None:
    """What the tests above would not notice to be frozen from the start."""
    head = head_of(ResumableVqVae)
    before = state(head.vqvae_model)
    first_phase(head, torch.optim.SGD(head.parameters(), lr=0.1), range(3), total=9)
    after = state(head.vqvae_model)
    codebooks = [f"vq_layer.layers.{g}._codebook.embed" for g in (0, 1)]
    parts = ("encoder.0.weight", "decoder.0.weight", *codebooks)
    assert not any(torch.equal(before[part], after[part]) for part in parts)
    assert not bool(head.vqvae_model.discretized)


# Resuming


def resumed(kind: type[VqVae], *, stop: int, total: int) -> Any:
    """A first phase of ``total`` steps, saved and loaded again after ``stop``."""
    head = head_of(kind)
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-2)
    first_phase(head, optimizer, range(stop), total)
    weights, moments = reloaded([head.state_dict(), optimizer.state_dict()])
    again = head_of(kind)
    again.load_state_dict(weights)
    optimizer = torch.optim.AdamW(again.parameters(), lr=1e-2)
    optimizer.load_state_dict(moments)
    first_phase(again, optimizer, range(stop, total), total)
    return again


def test_a_resumed_first_phase_goes_on_where_it_stopped() -> None:
    head = head_of(ResumableVqVae)
    first_phase(head, torch.optim.AdamW(head.parameters(), lr=1e-2), range(6), total=6)
    again = resumed(ResumableVqVae, stop=4, total=6)
    assert bool(again.vqvae_model.discretized)
    assert again.vqvae_model.optimized_steps == 6
    assert same_state(state(again), state(head))


@pytest.mark.xfail(
    strict=True,
    raises=AssertionError,
    reason="lerobot 0.6.1, modeling_vqbet.py:777: VqVae.optimized_steps is not in state_dict. A first phase "
    "that is resumed counts from 0; a job always stopped before 20,000 steps never trains a policy.",
)
def test_lerobots_resumed_first_phase_goes_on_where_it_stopped() -> None:
    assert bool(resumed(VqVae, stop=4, total=6).vqvae_model.discretized)


# Saving


@pytest.mark.parametrize("kind", KINDS)
def test_everything_learned_is_in_state_dict(kind: str) -> None:
    again = MAKERS[kind]()
    assert not bool(again.fitted)
    again.load_state_dict(reloaded(fitted(kind).state_dict()))
    chunks = demonstrations(300, seed=7)
    tokens = fitted(kind).encode(chunks)
    assert bool(again.fitted)
    assert torch.equal(again.encode(chunks), tokens)
    assert torch.equal(again.decode(tokens), fitted(kind).decode(tokens))
    assert torch.equal(copy.deepcopy(again).encode(chunks), tokens)


@pytest.mark.parametrize("kind", KINDS)
def test_loading_other_weights_into_a_tokenizer_in_use_takes_effect(kind: str) -> None:
    chunks = demonstrations(200, seed=8)
    other = MAKERS[kind]()
    fit(other, 0.5 * demonstrations(200, seed=9) + 0.2, seed=1, steps=60)
    used = own_copy(kind)
    before = used.encode(chunks)
    used.decode(before)
    used.load_state_dict(other.state_dict())
    assert torch.equal(used.encode(chunks), other.encode(chunks))
    assert torch.equal(used.decode(before), other.decode(before))
    assert not torch.equal(used.encode(chunks), before)


# Fitting


@pytest.mark.parametrize("kind", KINDS)
def test_a_fit_is_a_function_of_chunks_and_seed(kind: str) -> None:
    chunks = demonstrations(120, seed=3)
    one, other = MAKERS[kind](), own_copy(kind)  # what was learned before is forgotten
    rng = torch.get_rng_state()
    fit(one, chunks, seed=4, steps=15)
    assert torch.equal(torch.get_rng_state(), rng)
    torch.manual_seed(99)
    np.random.seed(99)
    with torch.no_grad():
        fit(other, chunks.clone(), seed=4, steps=15)
    assert same_state(state(one), state(other))
    assert torch.equal(chunks, demonstrations(120, seed=3))
    assert not any(module.training for module in one.modules())
    if kind in LEARNED:
        fit(other, chunks, seed=5, steps=15)
        assert not same_state(state(one), state(other))


@pytest.mark.parametrize("kind", KINDS)
def test_a_fit_says_more_than_the_mean_chunk(kind: str) -> None:
    chunks, tokenizer = demonstrations(), fitted(kind)
    lost = (tokenizer.decode(tokenizer.encode(chunks)) - chunks).abs().mean()
    assert lost < 0.6 * (chunks.mean(dim=0) - chunks).abs().mean()


def test_modules_of_tokenizers_hold_no_state_outside_state_dict() -> None:
    """Non-persistent buffers would vanish; the library's FSQ has some that follow from its levels alone."""
    for kind in KINDS:
        tokenizer: nn.Module = fitted(kind)
        kept = set(tokenizer.state_dict())
        lost = {name for name, _ in tokenizer.named_buffers()} - kept
        assert lost <= {f"quantizer.{name}" for name in ("_levels", "_basis", "implicit_codebook", "zero")}
