"""Input that a tokenizer cannot answer gets one clear error; an empty batch gets the empty answer."""

import itertools
from typing import Any

import pytest
import torch
from fitted import CHUNK, KINDS, MAKERS, demonstrations, fitted, own_copy, same_state, state

from il_bench.errors import IlBenchError

every_kind = pytest.mark.parametrize("kind", KINDS)


@every_kind
@pytest.mark.parametrize("n", [0, 1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_batch_of_none_or_one_gives_as_many_answers(kind: str, n: int, dtype: torch.dtype) -> None:
    tokenizer: Any = fitted(kind)
    tokens = tokenizer.encode(demonstrations(n).to(dtype))
    assert tokens.shape == (n, tokenizer.num_quantizers) and tokens.dtype == torch.int64
    chunks = tokenizer.decode(tokens)
    assert chunks.shape == (n, *CHUNK) and chunks.dtype == torch.float32
    if kind == "kmeans":
        tokens, offsets = tokenizer.encode_with_offset(demonstrations(n))
        assert tokens.shape == (n, 1) and offsets.shape == (n, *CHUNK)
        assert tokenizer.decode(tokens, offsets).shape == (n, *CHUNK)


@every_kind
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_nan_and_infinity_are_refused_by_row_wherever_they_stand(kind: str, value: float) -> None:
    tokenizer = own_copy(kind)
    before = state(tokenizer)
    uses = [tokenizer.encode, tokenizer.fit] + ([tokenizer.encode_with_offset] if kind == "kmeans" else [])
    for row, place in itertools.product((0, 4), range(CHUNK[0] * CHUNK[1])):
        chunks = demonstrations(6)
        chunks[row].view(-1)[place] = value
        for use in uses:
            with pytest.raises(IlBenchError, match=rf"^\w+Tokenizer: chunk {row} holds NaN or infinity"):
                use(chunks)
    assert same_state(state(tokenizer), before)


@every_kind
@pytest.mark.parametrize(
    "shape", [(4, 2, 3), (4, 6), (3, 2), (4, 3, 3), (4, 2, 2), (1, 4, 3, 2), (4, 6, 1), ()]
)
def test_another_shape_is_refused(kind: str, shape: tuple[int, ...]) -> None:
    for use in (fitted(kind).encode, MAKERS[kind]().fit):
        with pytest.raises(IlBenchError, match=r"^\w+Tokenizer: chunks have shape \(.*\); give \(N, 3, 2\)"):
            use(torch.zeros(shape))


@every_kind
@pytest.mark.parametrize("token", [-1, "C", 10**9])
def test_tokens_out_of_range_are_refused(kind: str, token: Any) -> None:
    tokenizer = fitted(kind)
    value = tokenizer.codebook_size if token == "C" else token
    tokens = torch.zeros(3, tokenizer.num_quantizers, dtype=torch.int64)
    tokens[1, -1] = value
    with pytest.raises(IlBenchError, match=rf"^\w+Tokenizer: .* has 0 to {tokenizer.codebook_size - 1}\."):
        tokenizer.decode(tokens)
    tokens[1, -1] = tokenizer.codebook_size - 1
    assert tokenizer.decode(tokens).shape == (3, *CHUNK)


@every_kind
@pytest.mark.parametrize("dtype", [torch.int32, torch.float32, torch.bool, torch.uint8])
def test_tokens_of_another_type_are_refused(kind: str, dtype: torch.dtype) -> None:
    tokenizer = fitted(kind)
    with pytest.raises(IlBenchError, match=rf"^\w+: tokens are {dtype} of shape \(2, \d\); give int64"):
        tokenizer.decode(torch.zeros(2, tokenizer.num_quantizers, dtype=dtype))


@every_kind
def test_tokens_of_another_shape_are_refused(kind: str) -> None:
    tokenizer = fitted(kind)
    n = tokenizer.num_quantizers
    for shape in ((2, n + 1), (n,), (2, n, 1), (2, 0)):
        with pytest.raises(IlBenchError, match=rf"give int64 of shape \(N, {n}\)"):
            tokenizer.decode(torch.zeros(shape, dtype=torch.int64))


@pytest.mark.parametrize("shape", [(3, 1, 2), (3, 3, 1), (3, 6), (3, 2, 3), (1, 3, 2), (2, 3, 2), (3, 2), ()])
def test_offsets_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    """Those that would broadcast move all chunks by the same offset."""
    tokenizer: Any = fitted("kmeans")
    with pytest.raises(IlBenchError, match=r"^KMeansTokenizer: (offsets have|there are \d offsets)"):
        tokenizer.decode(torch.zeros(3, 1, dtype=torch.int64), torch.zeros(shape))


@every_kind
def test_nothing_is_encoded_or_decoded_before_it_is_fitted(kind: str) -> None:
    tokenizer = MAKERS[kind]()
    assert not bool(tokenizer.fitted)
    with pytest.raises(IlBenchError, match=r"^\w+Tokenizer has learned nothing yet; call fit"):
        tokenizer.encode(torch.zeros(1, *CHUNK))
    with pytest.raises(IlBenchError, match=r"call fit\(chunks\) first"):
        tokenizer.decode(torch.zeros(1, tokenizer.num_quantizers, dtype=torch.int64))
    if kind == "residual_vq":
        reference: Any = tokenizer
        with pytest.raises(IlBenchError, match=r"call fit\(chunks\) first"):
            reference.reference_encode(torch.zeros(1, *CHUNK))


def test_a_vqbet_in_its_first_phase_is_no_tokenizer_yet() -> None:
    tokenizer = own_copy("residual_vq")
    tokenizer.vqvae.discretized.fill_(False)
    for use in (tokenizer.encode, tokenizer.reference_encode):
        with pytest.raises(IlBenchError, match=r"call fit\(chunks\) first"):
            use(demonstrations(2))


def test_the_reference_is_refused_where_it_would_move_the_codes() -> None:
    tokenizer = own_copy("residual_vq")
    tokenizer.vqvae.train()
    with pytest.raises(IlBenchError, match=r"training mode and would change; call eval\(\) first"):
        tokenizer.reference_encode(demonstrations(2))
