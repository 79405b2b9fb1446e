"""Input that a tokenizer cannot answer gets one clear error; an empty batch gets the empty answer."""

from typing import Any

import pytest
import torch
from fitted import CHUNK, KINDS, MAKERS, demonstrations, fitted, own_copy, same_state, state

from il_bench.errors import IlBenchError
from il_bench.tokenizers import (
    FSQTokenizer,
    KMeansTokenizer,
    ResidualVQTokenizer,
    UniformBinsTokenizer,
    VQVAETokenizer,
)

every_kind = pytest.mark.parametrize("kind", KINDS)


@every_kind
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_empty_batch_gives_an_empty_answer(kind: str, dtype: torch.dtype) -> None:
    tokenizer = fitted(kind)
    tokens = tokenizer.encode(torch.empty(0, *CHUNK, dtype=dtype))
    assert tokens.shape == (0, tokenizer.num_quantizers) and tokens.dtype == torch.int64
    chunks = tokenizer.decode(tokens)
    assert chunks.shape == (0, *CHUNK) and chunks.dtype == torch.float32


@every_kind
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_nan_and_infinity_are_refused_wherever_they_stand(kind: str, value: float) -> None:
    for place in range(CHUNK[0] * CHUNK[1]):
        chunk = demonstrations(1)
        chunk.view(-1)[place] = value
        with pytest.raises(IlBenchError, match="chunk 0 holds NaN or infinity"):
            fitted(kind).encode(chunk)


def test_an_empty_batch_has_empty_offsets() -> None:
    tokenizer: Any = fitted("kmeans")
    tokens, offsets = tokenizer.encode_with_offset(torch.empty(0, *CHUNK))
    assert tokens.shape == (0, 1) and offsets.shape == (0, *CHUNK)
    assert tokenizer.decode(tokens, offsets).shape == (0, *CHUNK)


@every_kind
def test_a_batch_of_one_gives_one_answer(kind: str) -> None:
    tokenizer = fitted(kind)
    tokens = tokenizer.encode(demonstrations(1))
    assert tokens.shape == (1, tokenizer.num_quantizers)
    assert tokenizer.decode(tokens).shape == (1, *CHUNK)


@every_kind
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("row", [0, 4])
def test_nan_and_infinity_are_refused_by_row(kind: str, value: float, row: int) -> None:
    chunks = demonstrations(6)
    chunks[row, 2, 1] = value
    message = f"{type(fitted(kind)).__name__}: chunk {row} holds NaN or infinity"
    with pytest.raises(IlBenchError, match=message):
        fitted(kind).encode(chunks)
    other = own_copy(kind)
    before = state(other)
    with pytest.raises(IlBenchError, match=message):
        other.fit(chunks)
    assert same_state(state(other), before)
    if kind == "kmeans":
        with pytest.raises(IlBenchError, match=message):
            other.encode_with_offset(chunks)


@every_kind
@pytest.mark.parametrize(
    "shape", [(4, 2, 3), (4, 6), (3, 2), (4, 3, 3), (4, 2, 2), (1, 4, 3, 2), (4, 6, 1), ()]
)
def test_another_shape_is_refused(kind: str, shape: tuple[int, ...]) -> None:
    for use in (fitted(kind).encode, MAKERS[kind]().fit):
        with pytest.raises(IlBenchError, match=r"chunks have shape \(.*\); give \(N, 3, 2\)"):
            use(torch.zeros(shape))


@every_kind
@pytest.mark.parametrize("token", [-1, "C", 10**9])
def test_tokens_out_of_range_are_refused(kind: str, token: Any) -> None:
    tokenizer = fitted(kind)
    value = tokenizer.codebook_size if token == "C" else token
    tokens = torch.zeros(3, tokenizer.num_quantizers, dtype=torch.int64)
    tokens[1, -1] = value
    with pytest.raises(IlBenchError, match=f"the codebook has 0 to {tokenizer.codebook_size - 1}"):
        tokenizer.decode(tokens)
    tokens[1, -1] = tokenizer.codebook_size - 1
    assert tokenizer.decode(tokens).shape == (3, *CHUNK)


@every_kind
@pytest.mark.parametrize("dtype", [torch.int32, torch.float32, torch.bool, torch.uint8])
def test_tokens_of_another_type_are_refused(kind: str, dtype: torch.dtype) -> None:
    tokenizer = fitted(kind)
    with pytest.raises(IlBenchError, match=rf"tokens are {dtype} of shape \(2, \d\); give int64"):
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


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_offsets_that_are_no_numbers_are_refused(value: float) -> None:
    tokenizer: Any = fitted("kmeans")
    tokens, offsets = tokenizer.encode_with_offset(demonstrations(4))
    offsets[2, 1, 0] = value
    with pytest.raises(IlBenchError, match=r"^KMeansTokenizer: offset 2 holds NaN or infinity"):
        tokenizer.decode(tokens, offsets)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int64, torch.complex64])
def test_offsets_of_another_type_are_refused(dtype: torch.dtype) -> None:
    tokenizer: Any = fitted("kmeans")
    with pytest.raises(IlBenchError, match=rf"^KMeansTokenizer: offsets are {dtype}; give torch\.float32 or"):
        tokenizer.decode(torch.zeros(2, 1, dtype=torch.int64), torch.zeros(2, *CHUNK, dtype=dtype))


@every_kind
def test_nothing_is_encoded_or_decoded_before_it_is_fitted(kind: str) -> None:
    tokenizer = MAKERS[kind]()
    assert not bool(tokenizer.fitted)
    with pytest.raises(IlBenchError, match=r"has learned nothing yet; call fit\(chunks\) first"):
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


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: UniformBinsTokenizer(0, CHUNK), "codebook_size is 0; give 1 or more"),
        (lambda: KMeansTokenizer(-3, CHUNK), "codebook_size is -3; give 1 or more"),
        (lambda: KMeansTokenizer(3, (0, 2)), r"chunk_shape is \(0, 2\); give \(W, A\)"),
        (lambda: VQVAETokenizer(8, CHUNK, embedding_dim=0, hidden_dim=4), "embedding_dim is 0"),
        (lambda: ResidualVQTokenizer.new(8, CHUNK, embedding_dim=4, hidden_dim=0), "hidden_dim 0; give 1"),
        (lambda: FSQTokenizer([], CHUNK, hidden_dim=4), r"levels are \(\); give 3 to 1000"),
        (lambda: FSQTokenizer([5, 2], CHUNK, hidden_dim=4), r"levels are \(5, 2\); give 3 to 1000"),
        (lambda: FSQTokenizer([1001], CHUNK, hidden_dim=4), r"levels are \(1001,\); give 3 to 1000"),
        (lambda: FSQTokenizer([300, 300, 300], CHUNK, hidden_dim=4), "make 27000000 codes; give at most"),
    ],
)
def test_sizes_that_make_no_tokenizer_are_refused(make: Any, message: str) -> None:
    with pytest.raises(IlBenchError, match=message):
        make()
