"""k-means: centres are the means of what they own, and no iteration makes it worse."""

from typing import Any

import numpy as np
import oracles
import pytest
import torch
import vector_quantize_pytorch.vector_quantize_pytorch as library
from fitted import demonstrations, fitted, plain_kmeans
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from lerobot.policies.vqbet import vqbet_utils as lerobot
from oracles import EPS
from strategies import examples, smooth

from il_bench.errors import IlBenchError
from il_bench.tokenizers import KMeansTokenizer
from il_bench.tokenizers import kmeans as kmeans_module

F32 = EPS[torch.float32]


def inertia(points: Any, centers: Any) -> float:
    return float(oracles.squared_distances(points, centers).min(axis=1).sum())


def check_means(tokenizer: KMeansTokenizer, chunks: torch.Tensor) -> None:
    """Every centre owns chunks, is their mean to the last bits of float32, and so cannot be bettered."""
    flat, centers = oracles.array(chunks).reshape(len(chunks), -1), oracles.array(tokenizer.centers)
    owners = tokenizer.encode(chunks)[:, 0].numpy()
    assert len(np.unique(owners)) == tokenizer.codebook_size
    means = oracles.means_of_owned(flat, owners, centers)
    assert np.abs(means - centers).max() <= 2 * F32 * np.abs(flat).max()
    assert inertia(flat, centers) <= inertia(flat, means) * (1 + 1e-6)


@examples(20)
@given(data=st.data(), n_codes=st.integers(1, 6))
def test_centres_are_the_means_of_what_they_own(data: st.DataObject, n_codes: int) -> None:
    points = data.draw(arrays(np.float32, (40, 1, 2), elements=smooth, unique=False))
    tokenizer = KMeansTokenizer(n_codes, (1, 2))
    chunks = (
        torch.from_numpy(points) + torch.linspace(0, 1, 40).exp()[:, None, None]
    )  # all different, none half way
    tokenizer.fit(chunks, seed=data.draw(st.integers(0, 9)))
    check_means(tokenizer, chunks)


def test_centres_are_the_means_of_what_they_own_where_it_takes_many_iterations() -> None:
    """A plain of points without clusters: scikit-learn's default tolerance stops long before the end."""
    check_means(fitted("kmeans"), demonstrations())
    chunks = torch.rand(6000, 2, 1, generator=torch.Generator().manual_seed(0))
    tokenizer = KMeansTokenizer(24, (2, 1))
    tokenizer.fit(chunks)
    check_means(tokenizer, chunks)


def test_the_seed_decides_where_the_centres_start() -> None:
    chunks = torch.rand(200, 1, 2, generator=torch.Generator().manual_seed(0))
    found = set()
    for seed in range(4):
        tokenizer = KMeansTokenizer(20, (1, 2))
        tokenizer.fit(chunks, seed=seed)
        found.add(str(sorted(tokenizer.centers.tolist())))
    assert len(found) > 1


def test_fitting_well_separated_clusters_finds_them() -> None:
    generator = torch.Generator().manual_seed(0)
    places = 100.0 * torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    chunks = (places.repeat(30, 1) + torch.randn(90, 2, generator=generator))[:, None]
    for seed in range(5):
        tokenizer = KMeansTokenizer(3, (1, 2))
        tokenizer.fit(chunks, seed=seed)
        assert sorted(tokenizer.centers.round(decimals=-1).tolist()) == [[0, 0], [0, 100], [100, 0]]


@pytest.mark.parametrize("module", [lerobot, library], ids=["lerobot", "library"])
@examples(25)
@given(data=st.data(), n_codes=st.integers(1, 5))
def test_lloyds_iterations_never_raise_the_inertia(module: Any, data: st.DataObject, n_codes: int) -> None:
    """LeRobot's and the library's k-means, which place codes where kmeans_init is on."""
    points = data.draw(arrays(np.float32, (20, 2), elements=smooth))
    points += np.arange(20, dtype=np.float32)[:, None]  # so that they differ
    samples = torch.from_numpy(points)[None]
    means = oracles.array(points[:n_codes])
    before = inertia(points, means)
    for iterations in range(1, 5):
        found, sizes = module.kmeans(samples, n_codes, iterations, sample_fn=lambda x, n: x[:, :n])
        owners = oracles.nearest(points, means)
        assert sizes.sum().item() == 20
        after = inertia(points, found[0])
        assert after <= before * (1 + 1e-5) + 1e-6
        distances = oracles.squared_distances(points, means)
        if not oracles.near_tie(distances, oracles.expanded_error(points, means, F32)).any():
            np.testing.assert_allclose(
                found[0].numpy(), oracles.means_of_owned(points, owners, means), rtol=1e-5, atol=1e-5
            )
            assert sizes[0].tolist() == np.bincount(owners, minlength=n_codes).tolist()
        before, means = after, oracles.array(found[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_nearest_centre_is_found_where_squares_overflow(dtype: torch.dtype) -> None:
    """Above 1.8e19 in float32, and above 1.3e154 in float64, every square is infinite."""
    tokenizer = plain_kmeans(torch.tensor([[-1.0, 0.0], [0.0, 0.0], [1e20, 0.0], [0.0, 1e38]]))
    chunks = torch.tensor([[2e20, 0.0], [0.5, 0.0], [0.0, 2e38], [1e20, 3e20], [-3e38, 3e38]], dtype=dtype)
    assert tokenizer.encode(chunks[:, None])[:, 0].tolist() == [2, 1, 3, 2, 3]
    if dtype == torch.float64:
        farther = torch.tensor([[0.0, 0.0], [1e300, 0.0], [1.0, 1e200]], dtype=dtype)
        double = plain_kmeans(torch.zeros(3, 2)).double()
        double.centers.copy_(farther)
        assert double.encode(farther[:, None].mul(1.5))[:, 0].tolist() == [0, 1, 2]


def test_an_offset_that_overflows_is_refused() -> None:
    tokenizer = plain_kmeans(torch.tensor([[-3e38], [-2.9e38]]))
    with pytest.raises(IlBenchError, match=r"^KMeansTokenizer: chunk 1 is too far from its centre for torch"):
        tokenizer.encode_with_offset(torch.tensor([[[-3e38]], [[3e38]]]))
    _, offsets = tokenizer.encode_with_offset(torch.tensor([[[3e38]]], dtype=torch.float64))
    assert float(offsets) == pytest.approx(5.9e38)


def test_nan_among_large_numbers_is_refused() -> None:
    tokenizer = plain_kmeans(torch.tensor([[-1.0], [0.0], [1e20]]))
    with pytest.raises(IlBenchError, match="chunk 1 holds NaN or infinity"):
        tokenizer.encode(torch.tensor([[[2e20]], [[torch.nan]], [[3e20]]]))


@pytest.mark.parametrize("n_codes", [1, 5, 64])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_blocks_of_chunks_give_the_tokens_of_all_at_once(
    n_codes: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the bit, duplicates among the centres, numbers whose squares overflow and all."""
    generator = torch.Generator().manual_seed(0)
    tokenizer = plain_kmeans(torch.randn(n_codes, 7, generator=generator).repeat(2, 1))
    chunks = torch.randn(300, 1, 7, generator=generator, dtype=dtype)
    chunks[::13] *= 1e20
    differences = chunks - tokenizer.centers.to(dtype)  # (N, C, D)
    expected = differences.double().square().sum(dim=-1).argmin(dim=1, keepdim=True)
    whole = tokenizer.encode(chunks)
    assert torch.equal(whole, expected)
    for rows in (0, 1, 7, 299, 300):
        monkeypatch.setattr(kmeans_module, "DIFFERENCES_AT_ONCE", rows * 2 * n_codes * 7)
        assert torch.equal(tokenizer.encode(chunks), whole)


def test_no_more_differences_are_held_at_once_than_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them would be 335 MB for 16,384 chunks of ten numbers and 512 centres."""
    tokenizer, seen = plain_kmeans(torch.randn(8, 5)), []
    original = tokenizer._nearest
    monkeypatch.setattr(tokenizer, "_nearest", lambda flat: (seen.append(len(flat)), original(flat))[1])
    monkeypatch.setattr(kmeans_module, "DIFFERENCES_AT_ONCE", 8 * 5 * 10)
    for n in (25, 10):
        tokenizer.encode(torch.randn(n, 1, 5))
    assert seen == [10, 10, 5, 10]
    monkeypatch.setattr(kmeans_module, "DIFFERENCES_AT_ONCE", 8 * 5 - 1)  # not enough for one
    tokenizer.encode(torch.randn(3, 1, 5))
    assert seen[4:] == [1, 1, 1]
