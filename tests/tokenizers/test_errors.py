"""What the errors say, word by word: which tokenizer, which value, and the way out."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from fitted import CHUNK, KINDS, MAKERS, demonstrations, own_copy
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


def in_training() -> ResidualVQTokenizer:
    tokenizer = own_copy("residual_vq")
    tokenizer.vqvae.train()
    return tokenizer  # type: ignore[no-any-return]


def two_linear_layers_in_a_row() -> ResidualVQTokenizer:
    vqvae = VqVae(MAKERS["residual_vq"]().vqvae.config)
    vqvae.decoder = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 6))
    return ResidualVQTokenizer(vqvae)


def words(call: Callable[[], object]) -> str:
    with pytest.raises(IlBenchError) as caught:
        call()
    return str(caught.value)


INFINITE = torch.tensor([0.0, torch.inf])[:, None, None].expand(2, *CHUNK)
SAID: list[tuple[Callable[[], object], str]] = [
    (
        lambda: UniformBinsTokenizer(0, CHUNK),
        "UniformBinsTokenizer: codebook_size is 0; give 1 or more.",
    ),
    (
        lambda: UniformBinsTokenizer(4, (0, 2)),
        "UniformBinsTokenizer: chunk_shape is (0, 2); give (W, A), both 1 or more.",
    ),
    (lambda: KMeansTokenizer(-3, CHUNK), "KMeansTokenizer: codebook_size is -3; give 1 or more."),
    (
        lambda: KMeansTokenizer(3, (0, 2)),
        "KMeansTokenizer: chunk_shape is (0, 2); give (W, A), both 1 or more.",
    ),
    (
        lambda: VQVAETokenizer(8, CHUNK, embedding_dim=0, hidden_dim=4),
        "VQVAETokenizer: embedding_dim is 0 and hidden_dim 4; give 1 or more.",
    ),
    (
        lambda: ResidualVQTokenizer.new(8, CHUNK, embedding_dim=4, hidden_dim=0),
        "ResidualVQTokenizer: codebook_size 8, chunk_shape (3, 2), embedding_dim 4, hidden_dim 0; "
        "give 1 or more for each.",
    ),
    (lambda: FSQTokenizer([], CHUNK), "FSQTokenizer: levels are (); give 3 to 1000 for each."),
    (lambda: FSQTokenizer([5, 2], CHUNK), "FSQTokenizer: levels are (5, 2); give 3 to 1000 for each."),
    (lambda: FSQTokenizer([1001], CHUNK), "FSQTokenizer: levels are (1001,); give 3 to 1000 for each."),
    (
        lambda: FSQTokenizer([300, 300, 300], CHUNK),
        "FSQTokenizer: levels (300, 300, 300) make 27000000 codes; give at most 16777216.",
    ),
    (
        two_linear_layers_in_a_row,
        "ResidualVQTokenizer: the decoder is (Linear, Linear, Linear); give two or more Linear layers with "
        "a bias, ReLU between them, as LeRobot's.",
    ),
    (
        lambda: MAKERS["kmeans"]().encode(demonstrations(1)),
        "KMeansTokenizer has learned nothing yet; call fit(chunks) first.",
    ),
    (
        lambda: own_copy("fsq").encode(torch.zeros(4, 6)),
        "FSQTokenizer: chunks have shape (4, 6); give (N, 3, 2).",
    ),
    (
        lambda: own_copy("vqvae").encode(torch.zeros(1, *CHUNK).half()),
        "VQVAETokenizer: chunks are torch.float16; give torch.float32 or torch.float64.",
    ),
    (
        lambda: own_copy("residual_vq").encode(INFINITE),
        "ResidualVQTokenizer: chunk 1 holds NaN or infinity; drop or mend it.",
    ),
    (
        lambda: in_training().reference_encode(demonstrations(2)),
        "The residual VQ is in training mode and would change; call eval() first.",
    ),
    (
        lambda: own_copy("kmeans").decode(torch.zeros(2, 1, dtype=torch.int32)),
        "KMeansTokenizer: tokens are torch.int32 of shape (2, 1); give int64 of shape (N, 1).",
    ),
    (
        lambda: own_copy("residual_vq").decode(torch.tensor([[-1, 9]])),
        "ResidualVQTokenizer: tokens run from -1 to 9; the codebook has 0 to 7.",
    ),
]


@pytest.mark.parametrize(("call", "said"), SAID, ids=[said for _, said in SAID])
def test_what_is_said(call: Callable[[], object], said: str) -> None:
    assert words(call) == said


def test_what_is_said_of_a_fit() -> None:
    few, huge = demonstrations(7).repeat(4, 1, 1), demonstrations(20).double()
    huge[7, 1, 1] = -1e300
    for kind in KINDS:
        tokenizer = MAKERS[kind]()
        name = type(tokenizer).__name__
        given = [
            (torch.empty(0, *CHUNK), "no chunks to fit; give one or more."),
            (huge, "chunk 7 is too large for torch.float32; scale it down."),
        ]
        if kind in ("kmeans", "vqvae"):
            said = "7 different chunks cannot fill 8 codes; give more data or a smaller codebook_size."
            given.append((few, said))
        for chunks, said in given:
            assert words(partial(tokenizer.fit, chunks)) == f"{name}: {said}"
        assert not bool(tokenizer.fitted)


def test_what_is_said_of_offsets() -> None:
    tokenizer, tokens = own_copy("kmeans"), torch.zeros(2, 1, dtype=torch.int64)
    broken = torch.zeros(2, *CHUNK)
    given: list[tuple[Any, str]] = [
        (torch.zeros(2, 6), "offsets have shape (2, 6); give (N, 3, 2)."),
        (torch.zeros(1, *CHUNK), "there are 1 offsets for 2 tokens; give one for each."),
        (broken.numpy(), "offsets are numpy.ndarray; give a torch.Tensor."),
    ]
    for dtype in (torch.float16, torch.bfloat16, torch.int64, torch.complex64):
        given.append((broken.to(dtype), f"offsets are {dtype}; give torch.float32 or torch.float64."))
    for value in (torch.nan, torch.inf, -torch.inf):
        given.append((broken.clone(), "offset 1 holds NaN or infinity; drop or mend it."))
        given[-1][0][1, 0, 1] = value
    for offsets, said in given:
        assert words(partial(tokenizer.decode, tokens, offsets)) == f"KMeansTokenizer: {said}"


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_said_of_what_is_no_tensor(kind: str) -> None:
    tokenizer = own_copy(kind)
    chunks, tokens = demonstrations(2), torch.zeros(2, tokenizer.num_quantizers, dtype=torch.int64)
    calls: list[tuple[Callable[[Any], object], str, Any]] = [
        (tokenizer.encode, "chunks", chunks),
        (tokenizer.fit, "chunks", chunks),
        (tokenizer.decode, "tokens", tokens),
    ]
    if kind == "residual_vq":
        calls += [
            (tokenizer.reference_encode, "chunks", chunks),
            (tokenizer.reference_decode, "tokens", tokens),
        ]
    for call, name, values in calls:
        for given, said in ((values.numpy(), "numpy.ndarray"), (values.tolist(), "list"), (None, "NoneType")):
            message = f"{type(tokenizer).__name__}: {name} are {said}; give a torch.Tensor."
            assert words(partial(call, given)) == message


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_said_of_weights_in_16_bits(kind: str, dtype: torch.dtype) -> None:
    """Also where the tokenizer was in use before, so that tables of other weights are at hand."""
    tokenizer, chunks = own_copy(kind), demonstrations(20)
    tokens = tokenizer.encode(chunks)
    tokenizer.decode(tokens)
    tokenizer.to(dtype)
    said = f"{type(tokenizer).__name__}: the weights are {dtype}; convert them by .float()."
    calls = [
        lambda: tokenizer.encode(chunks),
        lambda: tokenizer.encode(chunks.double()),
        lambda: tokenizer.decode(tokens),
        lambda: tokenizer.fit(chunks),
    ]
    if kind == "kmeans":
        calls += [
            lambda: tokenizer.encode_with_offset(chunks),
            lambda: tokenizer.decode(tokens, torch.zeros(20, *CHUNK)),
        ]
    if kind == "residual_vq":
        calls += [
            lambda: tokenizer.reference_encode(chunks),
            lambda: tokenizer.reference_decode(tokens),
            lambda: tokenizer.stage_errors(chunks),
        ]
    for call in calls:
        assert words(call) == said
    tokenizer.float()
    assert tokenizer.decode(tokenizer.encode(chunks)).dtype == torch.float32


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


@pytest.mark.parametrize("kind", ["vqvae", "fsq"])
def test_a_chunk_whose_latent_overflows_is_named(kind: str) -> None:
    tokenizer, chunks = own_copy(kind), demonstrations(6)
    with torch.no_grad():
        tokenizer.encoder[-1].weight.mul_(1e6)
    chunks[4] = 1e37
    with pytest.raises(IlBenchError, match=f"^{type(tokenizer).__name__}: chunk 4 is so large that its"):
        tokenizer.encode(chunks)


@pytest.mark.parametrize(
    ("layers", "found"),
    [
        ([nn.Linear(6, 8)], r"\(Linear\)"),
        ([nn.Linear(6, 8), nn.ReLU()], r"\(Linear, ReLU\)"),
        ([nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU()], r"\(Linear, ReLU, Linear, ReLU\)"),
        ([nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8, bias=False)], r"\(Linear, ReLU, Linear\)"),
        ([nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 8)], r"\(Linear, Linear, Linear\)"),
    ],
)
@pytest.mark.parametrize("network", ["encoder", "decoder"])
def test_only_networks_that_can_be_folded_are_taken(network: str, layers: list[Any], found: str) -> None:
    vqvae = VqVae(MAKERS["residual_vq"]().vqvae.config)
    setattr(vqvae, network, nn.Sequential(*layers))
    with pytest.raises(IlBenchError, match=f"the {network} is {found}; give .*ReLU between"):
        ResidualVQTokenizer(vqvae)
