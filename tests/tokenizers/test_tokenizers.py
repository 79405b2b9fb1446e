"""k-means with offset and residual VQ: answers worked out by hand, round trips, bad input."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from il_bench.errors import IlBenchError
from il_bench.tokenizers import KMeansTokenizer, ResidualVQTokenizer, Tokenizer

N_CODES, CHUNK = 5, (3, 2)


def fitted_kmeans() -> KMeansTokenizer:
    tokenizer = KMeansTokenizer(N_CODES, CHUNK)
    tokenizer.fit(torch.randn(200, *CHUNK, generator=torch.Generator().manual_seed(0)))
    return tokenizer


def trained_vq() -> ResidualVQTokenizer:
    from il_bench.policies.modeling_vqbet import ResumableVqVae

    config = SimpleNamespace(
        vqvae_embedding_dim=8,
        vqvae_n_embed=4,
        vqvae_enc_hidden_dim=16,
        action_chunk_size=CHUNK[0],
        action_feature=SimpleNamespace(shape=(CHUNK[1],)),
    )
    torch.manual_seed(0)
    vqvae = ResumableVqVae(config)
    vqvae.discretized.fill_(True)
    return ResidualVQTokenizer(vqvae).eval()


@pytest.fixture(params=[fitted_kmeans, trained_vq])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return request.param()


chunks_of = arrays(
    np.float32, st.tuples(st.integers(1, 20), *map(st.just, CHUNK)), elements=st.floats(-3, 3, width=32)
)


def test_kmeans_by_hand() -> None:
    tokenizer = KMeansTokenizer(2, (1, 2))
    tokenizer.fit(torch.tensor([[[0.0, 0.0]], [[0.0, 2.0]], [[10.0, 0.0]], [[10.0, 2.0]]]))
    centers = sorted(tokenizer.centers.tolist())
    assert centers == [[0.0, 1.0], [10.0, 1.0]]
    indices, offsets = tokenizer.encode_with_offset(torch.tensor([[[1.0, 3.0]]]))
    assert tokenizer.decode(indices).tolist() == [[[0.0, 1.0]]]
    assert offsets.tolist() == [[[1.0, 2.0]]]


@given(chunks_of)
def test_the_chosen_centre_is_nearest(chunks: np.ndarray) -> None:
    tokenizer = fitted_kmeans()
    index = tokenizer.encode(torch.from_numpy(chunks))[:, 0].numpy()
    flat = chunks.reshape(len(chunks), -1).astype(np.float64)
    distance = ((flat[:, None] - tokenizer.centers.double().numpy()) ** 2).sum(-1)
    chosen = distance[np.arange(len(chunks)), index]
    margin = 32 * np.finfo(np.float32).eps * (1 + distance.max(axis=1))
    assert (chosen <= distance.min(axis=1) + margin).all()


@given(chunks_of)
def test_centre_plus_offset_is_the_chunk(chunks: np.ndarray) -> None:
    tokenizer = fitted_kmeans()
    given_chunks = torch.from_numpy(chunks)
    indices, offsets = tokenizer.encode_with_offset(given_chunks)
    scale = torch.maximum(given_chunks.abs(), tokenizer.decode(indices).abs())
    ulp = torch.nextafter(scale, torch.tensor(torch.inf)) - scale
    assert ((tokenizer.decode(indices, offsets) - given_chunks).abs() <= 2 * ulp).all()


def test_a_centre_encodes_to_itself() -> None:
    tokenizer = fitted_kmeans()
    every = torch.arange(N_CODES)[:, None]
    assert torch.equal(tokenizer.encode(tokenizer.decode(every)), every)


def test_tokens_are_in_range_and_do_not_depend_on_the_batch(tokenizer: Tokenizer) -> None:
    chunks = torch.randn(50, *CHUNK, generator=torch.Generator().manual_seed(1))
    tokens = tokenizer.encode(chunks)
    assert tokens.shape == (50, tokenizer.num_quantizers) and tokens.dtype == torch.int64
    assert tokens.min() >= 0 and tokens.max() < tokenizer.codebook_size
    alone = torch.cat([tokenizer.encode(chunk[None]) for chunk in chunks])
    assert torch.equal(tokens, alone)


def test_state_dict_round_trip_gives_identical_tokens() -> None:
    chunks = torch.randn(100, *CHUNK, generator=torch.Generator().manual_seed(2))
    tokenizer, again = fitted_kmeans(), KMeansTokenizer(N_CODES, CHUNK)
    again.load_state_dict(tokenizer.state_dict())
    assert torch.equal(tokenizer.encode(chunks), again.encode(chunks))


def test_residual_vq_decodes_the_sum_of_its_codes() -> None:
    tokenizer = trained_vq()
    tokens = torch.tensor([[3, 1]])
    codebooks = tokenizer.vqvae.vq_layer.codebooks  # (G, C, D)
    latent = codebooks[0, 3] + codebooks[1, 1]
    expected = tokenizer.vqvae.decoder(latent[None]).view(1, *CHUNK)
    torch.testing.assert_close(tokenizer.decode(tokens), expected.detach())
    assert tokenizer.bits_per_chunk == 4.0


@pytest.mark.parametrize(
    ("chunks", "message"),
    [
        (torch.zeros(4, 2, 2), r"chunks have shape \(4, 2, 2\); give \(N, 3, 2\)"),
        (torch.full((1, 3, 2), torch.nan), "chunk 0 holds NaN or infinity"),
    ],
)
def test_bad_chunks_are_refused(tokenizer: Tokenizer, chunks: torch.Tensor, message: str) -> None:
    with pytest.raises(IlBenchError, match=message):
        tokenizer.encode(chunks)


@pytest.mark.parametrize("token", [-1, 99])
def test_tokens_out_of_range_are_refused(tokenizer: Tokenizer, token: int) -> None:
    with pytest.raises(IlBenchError, match="the codebook has 0 to"):
        tokenizer.decode(torch.full((1, tokenizer.num_quantizers), token))


def test_an_empty_batch_gives_an_empty_answer() -> None:
    assert fitted_kmeans().encode(torch.empty(0, *CHUNK)).shape == (0, 1)


def test_nothing_is_encoded_before_it_is_fitted() -> None:
    with pytest.raises(IlBenchError, match=r"call fit\(chunks\) first"):
        KMeansTokenizer(2, CHUNK).encode(torch.zeros(1, *CHUNK))
    unfinished = trained_vq()
    unfinished.vqvae.discretized.fill_(False)
    with pytest.raises(IlBenchError, match="still in its first phase"):
        unfinished.encode(torch.zeros(1, *CHUNK))


def test_too_few_different_chunks_are_refused() -> None:
    with pytest.raises(IlBenchError, match="1 different chunks cannot fill 5 clusters"):
        KMeansTokenizer(5, CHUNK).fit(torch.zeros(100, *CHUNK))
