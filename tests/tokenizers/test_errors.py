"""What the errors say, word by word: which tokenizer, which value, and the way out."""

from collections.abc import Callable
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


def test_what_is_said_of_sizes() -> None:
    assert words(lambda: UniformBinsTokenizer(0, CHUNK)) == (
        "UniformBinsTokenizer: codebook_size is 0; give 1 or more."
    )
    assert words(lambda: KMeansTokenizer(3, (0, 2))) == (
        "KMeansTokenizer: chunk_shape is (0, 2); give (W, A), both 1 or more."
    )
    assert words(lambda: VQVAETokenizer(8, CHUNK, embedding_dim=0, hidden_dim=4)) == (
        "VQVAETokenizer: embedding_dim is 0 and hidden_dim 4; give 1 or more."
    )
    assert words(lambda: ResidualVQTokenizer.new(8, CHUNK, embedding_dim=4, hidden_dim=0)) == (
        "ResidualVQTokenizer: codebook_size 8, chunk_shape (3, 2), embedding_dim 4, hidden_dim 0; "
        "give 1 or more for each."
    )
    for size, shape in ((0, CHUNK), (8, (0, 2)), (8, (3, 0))):
        assert words(lambda: ResidualVQTokenizer.new(size, shape, embedding_dim=4, hidden_dim=5)) == (  # noqa: B023
            f"ResidualVQTokenizer: codebook_size {size}, chunk_shape {shape}, embedding_dim 4, hidden_dim 5; "
            "give 1 or more for each."
        )
    assert words(lambda: FSQTokenizer([5, 2], CHUNK)) == (
        "FSQTokenizer: levels are (5, 2); give 3 to 1000 for each."
    )
    assert words(lambda: FSQTokenizer([300, 300, 300], CHUNK)) == (
        "FSQTokenizer: levels (300, 300, 300) make 27000000 codes; give at most 16777216."
    )
    assert words(two_linear_layers_in_a_row) == (
        "ResidualVQTokenizer: the decoder is (Linear, Linear, Linear); give two or more Linear layers with "
        "a bias, ReLU between them, as LeRobot's."
    )


def test_what_is_said_of_a_fit() -> None:
    for kind in KINDS:
        tokenizer = MAKERS[kind]()
        assert words(lambda: tokenizer.fit(torch.empty(0, *CHUNK))) == (  # noqa: B023
            f"{type(tokenizer).__name__}: no chunks to fit; give one or more."
        )
    few = demonstrations(5).repeat(4, 1, 1)
    for kind, name in (("kmeans", "KMeansTokenizer"), ("vqvae", "VQVAETokenizer")):
        assert words(lambda: MAKERS[kind]().fit(few)) == (  # noqa: B023
            f"{name}: 5 different chunks cannot fill 8 codes; give more data or a smaller codebook_size."
        )
    huge = demonstrations(20).double()
    huge[7, 1, 1] = -1e300
    for kind in KINDS:
        tokenizer = MAKERS[kind]()
        assert words(lambda: tokenizer.fit(huge)) == (  # noqa: B023
            f"{type(tokenizer).__name__}: chunk 7 is too large for torch.float32; scale it down."
        )


def test_what_is_said_of_encoding() -> None:
    assert words(lambda: MAKERS["kmeans"]().encode(demonstrations(1))) == (
        "KMeansTokenizer has learned nothing yet; call fit(chunks) first."
    )
    assert words(lambda: own_copy("fsq").encode(torch.zeros(4, 6))) == (
        "FSQTokenizer: chunks have shape (4, 6); give (N, 3, 2)."
    )
    assert words(lambda: own_copy("vqvae").encode(torch.zeros(1, *CHUNK).half())) == (
        "VQVAETokenizer: chunks are torch.float16; give torch.float32 or torch.float64."
    )
    infinite = torch.tensor([0.0, torch.inf])[:, None, None].expand(2, *CHUNK)
    assert words(lambda: own_copy("residual_vq").encode(infinite)) == (
        "ResidualVQTokenizer: chunk 1 holds NaN or infinity; drop or mend it."
    )
    assert words(lambda: own_copy("residual_vq").bfloat16().encode(demonstrations(2))) == (
        "ResidualVQTokenizer: the weights are torch.bfloat16; convert them by .float()."
    )
    assert words(lambda: in_training().reference_encode(demonstrations(2))) == (
        "The residual VQ is in training mode and would change; call eval() first."
    )


def test_what_is_said_of_decoding() -> None:
    assert words(lambda: own_copy("kmeans").decode(torch.zeros(2, 1, dtype=torch.int32))) == (
        "KMeansTokenizer: tokens are torch.int32 of shape (2, 1); give int64 of shape (N, 1)."
    )
    assert words(lambda: own_copy("residual_vq").decode(torch.tensor([[-1, 9]]))) == (
        "ResidualVQTokenizer: tokens run from -1 to 9; the codebook has 0 to 7."
    )


def test_what_is_said_of_offsets() -> None:
    tokenizer, tokens = own_copy("kmeans"), torch.zeros(2, 1, dtype=torch.int64)
    broken = torch.zeros(2, *CHUNK)
    broken[1, 0, 1] = torch.nan
    given: list[tuple[Any, str]] = [
        (torch.zeros(2, 6), "offsets have shape (2, 6); give (N, 3, 2)."),
        (torch.zeros(1, *CHUNK), "there are 1 offsets for 2 tokens; give one for each."),
        (torch.zeros(2, *CHUNK).half(), "offsets are torch.float16; give torch.float32 or torch.float64."),
        (broken, "offset 1 holds NaN or infinity; drop or mend it."),
        (broken.numpy(), "offsets are numpy.ndarray; give a torch.Tensor."),
    ]
    for offsets, said in given:
        assert words(lambda: tokenizer.decode(tokens, offsets)) == f"KMeansTokenizer: {said}"  # noqa: B023


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
            assert words(lambda: call(given)) == (  # noqa: B023
                f"{type(tokenizer).__name__}: {name} are {said}; give a torch.Tensor."
            )


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


@pytest.mark.parametrize("kind", KINDS)
def test_errors_begin_with_the_tokenizers_name(kind: str) -> None:
    tokenizer, unfitted = own_copy(kind), MAKERS[kind]()
    n = tokenizer.num_quantizers
    calls = [
        lambda: unfitted.encode(torch.zeros(1, *CHUNK)),
        lambda: tokenizer.encode(torch.zeros(1, 2, 2)),
        lambda: tokenizer.encode(torch.zeros(1, *CHUNK).half()),
        lambda: tokenizer.decode(torch.zeros(1, n, dtype=torch.int32)),
        lambda: tokenizer.decode(torch.full((1, n), 10**6)),
    ]
    for call in calls:
        with pytest.raises(IlBenchError, match=f"^{type(tokenizer).__name__}\\b"):
            call()
    for arguments in ((0, CHUNK), (4, (0, 2))):
        if kind in ("bins", "kmeans"):
            with pytest.raises(IlBenchError, match=f"^{type(tokenizer).__name__}: .* 1 or more"):
                type(tokenizer)(*arguments)
    with pytest.raises(IlBenchError, match=f"^{type(tokenizer).__name__}: no chunks to fit; give one"):
        unfitted.fit(torch.empty(0, *CHUNK))


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
