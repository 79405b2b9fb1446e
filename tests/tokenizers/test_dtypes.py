"""float32 and float64 agree within stated bounds, and there is nothing else."""

from typing import Any

import numpy as np
import oracles
import pytest
import torch
from fitted import CHUNK, KINDS, LEARNED, demonstrations, fitted, own_copy, same_state, state
from hypothesis import given
from oracles import EPS, check_same_tokens, near_ties
from strategies import chunks_of, examples

from il_bench.errors import IlBenchError

F32 = EPS[torch.float32]


@pytest.mark.parametrize("kind", KINDS)
@examples(12)
@given(chunks=chunks_of(CHUNK))
def test_float32_and_float64_give_the_same_tokens(kind: str, chunks: torch.Tensor) -> None:
    """Outside near ties: the same float32 numbers, given as float64, to the tokenizer and to its double."""
    tokenizer, double = fitted(kind), own_copy(kind).double()
    exempt = near_ties(kind, tokenizer, chunks, F32)
    tokens = tokenizer.encode(chunks)
    check_same_tokens(tokenizer.encode(chunks.double()), tokens, exempt)
    check_same_tokens(double.encode(chunks.double()), tokens, exempt)
    check_same_tokens(double.encode(chunks), tokens, exempt)


@pytest.mark.parametrize("kind", KINDS)
def test_float64_is_computed_in_float64(kind: str) -> None:
    """The doubled tokenizer's tokens leave no more rows open than float64's rounding does: none, here."""
    double, chunks = own_copy(kind).double(), demonstrations(300, seed=4).double() * (1 + 1e-9)
    assert not near_ties(kind, double, chunks, EPS[torch.float64]).any()
    alone = torch.cat([double.encode(chunk[None]) for chunk in chunks[:40]])
    assert torch.equal(alone, double.encode(chunks)[:40])


@pytest.mark.parametrize("kind", KINDS)
def test_both_decode_to_the_same_chunk(kind: str) -> None:
    """And converting back and forth changes nothing."""
    tokenizer, double, chunks = fitted(kind), own_copy(kind).double(), demonstrations(100, seed=5)
    tokens = tokenizer.encode(chunks)
    single, exact = tokenizer.decode(tokens), double.decode(tokens)
    assert (single.dtype, exact.dtype) == (torch.float32, torch.float64)
    # Chunks are of order 1; the networks have 3 layers of 32 units.
    bound = 200 * F32 if kind in LEARNED else F32
    off = np.abs(oracles.array(single) - oracles.array(exact)).max()
    assert off <= bound * max(1.0, float(exact.abs().max()))
    again: Any = double.float()
    assert torch.equal(again.encode(chunks), tokens) and torch.equal(again.decode(tokens), single)


@pytest.mark.parametrize("kind", LEARNED)
def test_a_doubled_network_computes_in_float64(kind: str) -> None:
    """Two chunks that are one in float32 and lie on either side of a boundary have two tokens."""
    double = own_copy(kind).double()
    ends = demonstrations(200, seed=6).double()
    tokens = double.encode(ends)
    other = int((tokens != tokens[0]).any(dim=1).nonzero()[0])
    low, high = ends[0], ends[other]
    for _ in range(60):  # bisect to the boundary between them
        middle = (low + high) / 2
        same = torch.equal(double.encode(middle[None])[0], tokens[0])
        low, high = (middle, high) if same else (low, middle)
    gap = (high - low).abs().max()
    assert gap < 1e-14
    step = 1e-11 * (ends[other] - ends[0])
    assert torch.equal(double.encode((low - step)[None])[0], tokens[0])
    assert not torch.equal(double.encode((high + step)[None])[0], tokens[0])


@pytest.mark.parametrize("kind", KINDS)
def test_float64_that_float32_cannot_hold_is_refused(kind: str) -> None:
    chunks = demonstrations(3).double()
    chunks[1, 0, 0] = 1e300
    if kind in ("bins", "kmeans"):  # computed in float64
        assert fitted(kind).encode(chunks).shape[0] == 3
        return
    with pytest.raises(IlBenchError, match=r"chunk 1 is too large for torch\.float32; scale it down"):
        fitted(kind).encode(chunks)


@pytest.mark.parametrize("kind", KINDS)
def test_a_fit_takes_nothing_that_float32_cannot_hold(kind: str) -> None:
    """Infinite centres or an infinite range would be the answer; nothing changes."""
    tokenizer, chunks = own_copy(kind), demonstrations(20).double()
    chunks[3, 2, 0] = 1e39
    before = state(tokenizer)
    trained_in_float64 = kind in ("vqvae", "fsq")
    for each in (tokenizer,) if trained_in_float64 else (tokenizer, own_copy(kind).double()):
        with pytest.raises(IlBenchError, match=r"chunk 3 is too large for torch\.float32; scale it down"):
            each.fit(chunks)
    assert same_state(state(tokenizer), before)


@pytest.mark.parametrize("kind", ["bins", "kmeans"])
def test_a_fit_takes_what_float32_can_hold(kind: str) -> None:
    tokenizer, chunks = own_copy(kind), demonstrations(20).double()
    chunks[3, 2, 0], chunks[4, 2, 0] = 3e38, -3e38
    tokenizer.fit(chunks)
    decoded = tokenizer.decode(tokenizer.encode(chunks))
    assert torch.isfinite(decoded).all()
    assert decoded[3, 2, 0] > 2e38 and decoded[4, 2, 0] < -2e38
