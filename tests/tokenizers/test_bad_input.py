"""Input that a tokenizer cannot answer gets one clear error; an empty batch gets the empty answer.

Each error says which tokenizer, which value, and the way out; what it says is compared word by word.
"""

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from fitted import CHUNK, KINDS, MAKERS, demonstrations, fitted, own_copy, same_state, state
from lerobot.policies.vqbet.modeling_vqbet import VqVae
from torch import nn

from il_bench.errors import IlBenchError
from il_bench.tokenizers import (
    FSQTokenizer,
    KMeansTokenizer,
    ResidualVQTokenizer,
    UniformBinsTokenizer,
    VQVAETokenizer,
)

every_kind = pytest.mark.parametrize("kind", KINDS)
IN_TYPES = "give torch.float32 or torch.float64."
UNFITTED = "has learned nothing yet; call fit(chunks) first."


def words(call: Callable[[], object]) -> str:
    with pytest.raises(IlBenchError) as caught:
        call()
    return str(caught.value)


def said_of(tokenizer: Any, use: Callable[..., object], *given: Any) -> str:
    """What an error says after the tokenizer's name."""
    return words(partial(use, *given)).removeprefix(f"{type(tokenizer).__name__}: ")


def tokens_for(tokenizer: Any, n: int = 2, dtype: torch.dtype = torch.int64) -> torch.Tensor:
    return torch.zeros(n, tokenizer.num_quantizers, dtype=dtype)


def encoders(kind: str, tokenizer: Any) -> list[Callable[[Any], Any]]:
    """All that takes chunks and fits nothing."""
    if kind == "kmeans":
        return [tokenizer.encode, tokenizer.encode_with_offset]
    return [tokenizer.encode] + ([tokenizer.reference_encode] if kind == "residual_vq" else [])


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


# Chunks


@every_kind
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_nan_and_infinity_are_refused_by_row_wherever_they_stand(kind: str, value: float) -> None:
    tokenizer = own_copy(kind)
    before = state(tokenizer)
    for row, place in itertools.product((0, 4), range(CHUNK[0] * CHUNK[1])):
        chunks = demonstrations(6)
        chunks[row].view(-1)[place] = value
        for use in [*encoders(kind, tokenizer), tokenizer.fit]:
            said = said_of(tokenizer, use, chunks)
            assert said == f"chunk {row} holds NaN or infinity; remove or repair it."
    assert same_state(state(tokenizer), before)


@every_kind
@pytest.mark.parametrize(
    "shape", [(4, 2, 3), (4, 6), (3, 2), (4, 3, 3), (4, 2, 2), (1, 4, 3, 2), (4, 6, 1), ()]
)
def test_another_shape_is_refused(kind: str, shape: tuple[int, ...]) -> None:
    tokenizer = fitted(kind)
    for use in (tokenizer.encode, MAKERS[kind]().fit):
        assert said_of(tokenizer, use, torch.zeros(shape)) == f"chunks have shape {shape}; give (N, 3, 2)."


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int64, torch.bool, torch.complex64])
@every_kind
def test_another_type_of_chunk_is_refused(kind: str, dtype: torch.dtype) -> None:
    tokenizer, chunks = own_copy(kind), torch.zeros(2, *CHUNK, dtype=dtype)
    for use in [*encoders(kind, tokenizer), tokenizer.fit]:
        assert said_of(tokenizer, use, chunks) == f"chunks are {dtype}; {IN_TYPES}"


@every_kind
def test_a_fit_takes_neither_nothing_nor_too_little(kind: str) -> None:
    tokenizer, few = MAKERS[kind](), demonstrations(7).repeat(4, 1, 1)
    assert said_of(tokenizer, tokenizer.fit, few[:0]) == "no chunks to fit; give one or more."
    if kind in ("kmeans", "vqvae"):
        said = "7 different chunks cannot fill 8 codes; give more data or a smaller codebook_size."
        assert said_of(tokenizer, tokenizer.fit, few) == said
    assert not bool(tokenizer.fitted)


@pytest.mark.parametrize("kind", ["vqvae", "fsq"])
def test_a_chunk_whose_latent_overflows_is_named(kind: str) -> None:
    tokenizer, chunks = own_copy(kind), demonstrations(6)
    with torch.no_grad():
        tokenizer.encoder[-1].weight.mul_(1e6)
    chunks[4] = 1e37
    said = said_of(tokenizer, tokenizer.encode, chunks)
    assert said == "chunk 4 is so large that its latent overflows."


# Tokens


@every_kind
@pytest.mark.parametrize("token", [-1, "C", 10**9])
def test_tokens_out_of_range_are_refused(kind: str, token: Any) -> None:
    tokenizer = fitted(kind)
    last = tokenizer.codebook_size - 1
    value = last + 1 if token == "C" else token
    tokens = tokens_for(tokenizer, 3)
    tokens[1, -1] = value
    said = f"tokens run from {min(value, 0)} to {max(value, 0)}; the codebook has 0 to {last}."
    assert said_of(tokenizer, tokenizer.decode, tokens) == said
    tokens[1, -1] = last
    assert tokenizer.decode(tokens).shape == (3, *CHUNK)


@every_kind
def test_tokens_of_another_type_or_shape_are_refused(kind: str) -> None:
    tokenizer = fitted(kind)
    n = tokenizer.num_quantizers
    types = (torch.int32, torch.float32, torch.bool, torch.uint8)
    for tokens in [
        *(tokens_for(tokenizer, dtype=dtype) for dtype in types),
        *(torch.zeros(shape, dtype=torch.int64) for shape in ((2, n + 1), (n,), (2, n, 1), (2, 0))),
    ]:
        said = f"tokens are {tokens.dtype} of shape {tuple(tokens.shape)}; give int64 of shape (N, {n})."
        assert said_of(tokenizer, tokenizer.decode, tokens) == said


# Offsets


@pytest.mark.parametrize("shape", [(3, 1, 2), (3, 3, 1), (3, 6), (3, 2, 3), (1, 3, 2), (2, 3, 2), (3, 2), ()])
def test_offsets_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    """Those that would broadcast move all chunks by the same offset."""
    tokenizer = fitted("kmeans")
    said = said_of(tokenizer, tokenizer.decode, tokens_for(tokenizer, 3), torch.zeros(shape))
    if shape[1:] == CHUNK:
        assert said == f"there are {shape[0]} offsets for 3 tokens; give one for each."
    else:
        assert said == f"offsets have shape {shape}; give (N, 3, 2)."


def test_what_is_said_of_offsets() -> None:
    tokenizer, broken = own_copy("kmeans"), torch.zeros(2, *CHUNK)
    given: list[tuple[Any, str]] = [(broken.numpy(), "offsets are numpy.ndarray; give a torch.Tensor.")]
    for dtype in (torch.float16, torch.bfloat16, torch.int64, torch.complex64):
        given.append((broken.to(dtype), f"offsets are {dtype}; {IN_TYPES}"))
    for value in (torch.nan, torch.inf, -torch.inf):
        given.append((broken.clone(), "offset 1 holds NaN or infinity; remove or repair it."))
        given[-1][0][1, 0, 1] = value
    for offsets, said in given:
        assert said_of(tokenizer, tokenizer.decode, tokens_for(tokenizer), offsets) == said


# Whatever is given


@every_kind
def test_what_is_said_of_what_is_no_tensor(kind: str) -> None:
    tokenizer = own_copy(kind)
    chunks, tokens = demonstrations(2), tokens_for(tokenizer)
    uses = [(use, "chunks", chunks) for use in (tokenizer.encode, tokenizer.fit)]
    uses.append((tokenizer.decode, "tokens", tokens))
    if kind == "residual_vq":
        uses += [
            (tokenizer.reference_encode, "chunks", chunks),
            (tokenizer.reference_decode, "tokens", tokens),
        ]
    for use, name, values in uses:
        for given, said in ((values.numpy(), "numpy.ndarray"), (values.tolist(), "list"), (None, "NoneType")):
            assert said_of(tokenizer, use, given) == f"{name} are {said}; give a torch.Tensor."


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@every_kind
def test_what_is_said_of_weights_in_16_bits(kind: str, dtype: torch.dtype) -> None:
    """Also where the tokenizer was in use before, so that tables of other weights are at hand."""
    tokenizer, chunks = own_copy(kind), demonstrations(20)
    tokens = tokenizer.encode(chunks)
    tokenizer.decode(tokens)
    tokenizer.to(dtype)
    calls: list[tuple[Any, ...]] = [(use, chunks) for use in (*encoders(kind, tokenizer), tokenizer.fit)]
    calls += [(tokenizer.encode, chunks.double()), (tokenizer.decode, tokens)]
    if kind == "kmeans":
        calls.append((tokenizer.decode, tokens, torch.zeros(20, *CHUNK)))
    if kind == "residual_vq":
        calls += [(tokenizer.reference_decode, tokens), (tokenizer.stage_errors, chunks)]
    for call in calls:
        assert said_of(tokenizer, *call) == f"the weights are {dtype}; convert them with .float()."
    tokenizer.float()
    assert tokenizer.decode(tokenizer.encode(chunks)).dtype == torch.float32


@every_kind
def test_nothing_is_encoded_or_decoded_before_it_is_fitted(kind: str) -> None:
    tokenizer = MAKERS[kind]()
    assert not bool(tokenizer.fitted)
    calls = [(use, torch.zeros(1, *CHUNK)) for use in encoders(kind, tokenizer)]
    for use, given in [*calls, (tokenizer.decode, tokens_for(tokenizer))]:
        assert words(partial(use, given)) == f"{type(tokenizer).__name__} {UNFITTED}"


def test_a_vqbet_in_its_first_phase_is_no_tokenizer_yet() -> None:
    tokenizer = own_copy("residual_vq")
    tokenizer.vqvae.discretized.fill_(False)
    for use in (tokenizer.encode, tokenizer.reference_encode):
        assert words(partial(use, demonstrations(2))) == f"ResidualVQTokenizer {UNFITTED}"


def test_the_reference_is_refused_where_it_would_move_the_codes() -> None:
    tokenizer = own_copy("residual_vq")
    tokenizer.vqvae.train()
    said = said_of(tokenizer, tokenizer.reference_encode, demonstrations(2))
    assert said == "The residual VQ is in training mode and would change; call eval() first."


# Sizes and networks

SAID: dict[str, Callable[[], object]] = {
    "UniformBinsTokenizer: codebook_size is 0; give 1 or more.": lambda: UniformBinsTokenizer(0, CHUNK),
    "UniformBinsTokenizer: chunk_shape is (0, 2); give (W, A), both 1 or more.": lambda: UniformBinsTokenizer(
        4, (0, 2)
    ),
    "KMeansTokenizer: codebook_size is -3; give 1 or more.": lambda: KMeansTokenizer(-3, CHUNK),
    "KMeansTokenizer: chunk_shape is (0, 2); give (W, A), both 1 or more.": lambda: KMeansTokenizer(
        3, (0, 2)
    ),
    "VQVAETokenizer: embedding_dim is 0 and hidden_dim 4; give 1 or more.": lambda: VQVAETokenizer(
        8, CHUNK, embedding_dim=0, hidden_dim=4
    ),
    "ResidualVQTokenizer: codebook_size 8, chunk_shape (3, 2), embedding_dim 4, hidden_dim 0; "
    "give 1 or more for each.": lambda: ResidualVQTokenizer.new(8, CHUNK, embedding_dim=4, hidden_dim=0),
    "FSQTokenizer: levels are (); give 3 to 1000 for each.": lambda: FSQTokenizer([], CHUNK),
    "FSQTokenizer: levels are (5, 2); give 3 to 1000 for each.": lambda: FSQTokenizer([5, 2], CHUNK),
    "FSQTokenizer: levels are (1001,); give 3 to 1000 for each.": lambda: FSQTokenizer([1001], CHUNK),
    "FSQTokenizer: levels (300, 300, 300) make 27000000 codes; give at most 16777216.": lambda: FSQTokenizer(
        [300, 300, 300], CHUNK
    ),
}


@pytest.mark.parametrize("said", SAID)
def test_what_is_said_of_sizes(said: str) -> None:
    assert words(SAID[said]) == said


@pytest.mark.parametrize(
    ("codebook_size", "chunk_shape", "embedding_dim", "hidden_dim"),
    [(0, (3, 2), 4, 4), (4, (0, 2), 4, 4), (4, (3, 0), 4, 4), (4, (3, 2), 0, 4), (4, (3, 2), 4, 0)],
)
@pytest.mark.parametrize("make", [ResidualVQTokenizer.new, VQVAETokenizer])
def test_no_size_may_be_0_and_all_may_be_1(
    make: Any, codebook_size: int, chunk_shape: tuple[int, int], embedding_dim: int, hidden_dim: int
) -> None:
    with pytest.raises(IlBenchError, match=r"^(ResidualVQ|VQVAE)Tokenizer: .* 1 or more"):
        make(codebook_size, chunk_shape, embedding_dim=embedding_dim, hidden_dim=hidden_dim)
    smallest = make(1, (1, 1), embedding_dim=1, hidden_dim=1)
    assert (smallest.codebook_size, smallest.chunk_shape) == (1, (1, 1))


@pytest.mark.parametrize(
    "layers",
    [
        [nn.Linear(6, 8)],
        [nn.Linear(6, 8), nn.ReLU()],
        [nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU()],
        [nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8, bias=False)],
        [nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 8)],
        [nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 8)],
    ],
)
@pytest.mark.parametrize("network", ["encoder", "decoder"])
def test_only_networks_that_can_be_folded_are_taken(network: str, layers: list[nn.Module]) -> None:
    vqvae = VqVae(MAKERS["residual_vq"]().vqvae.config)
    setattr(vqvae, network, nn.Sequential(*layers))
    found = ", ".join(type(layer).__name__ for layer in layers)
    assert words(lambda: ResidualVQTokenizer(vqvae)) == (
        f"ResidualVQTokenizer: the {network} is ({found}); give two or more Linear layers with a bias, ReLU "
        "between them, as LeRobot's."
    )
