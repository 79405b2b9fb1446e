"""k-means: centres are the means of what they own, and no iteration makes it worse."""

from typing import Any

import numpy as np
import oracles
import pytest
import torch
import vector_quantize_pytorch.vector_quantize_pytorch as library
from fitted import CHUNK, MAKERS, demonstrations, fitted
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from lerobot.policies.vqbet import vqbet_utils as lerobot
from oracles import EPS
from strategies import examples, smooth

from il_bench.errors import IlBenchError
from il_bench.tokenizers import KMeansTokenizer

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
    chunks = torch.from_numpy(points) + torch.linspace(0, 1, 40)[:, None, None]  # all different
    tokenizer.fit(chunks, seed=data.draw(st.integers(0, 9)))
    check_means(tokenizer, chunks)


def test_centres_are_the_means_of_what_they_own_on_demonstrations() -> None:
    check_means(fitted("kmeans"), demonstrations())


def test_centres_are_the_means_of_what_they_own_where_it_takes_many_iterations() -> None:
    """A plain of points without clusters: scikit-learn's default tolerance stops long before the end."""
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


def test_too_few_different_chunks_are_refused_and_change_nothing() -> None:
    for kind, n_different in (("kmeans", 7), ("vqvae", 7)):
        tokenizer = MAKERS[kind]()
        chunks = demonstrations(n_different).repeat(20, 1, 1)
        with pytest.raises(IlBenchError, match="7 different chunks cannot fill 8"):
            tokenizer.fit(chunks)
        assert not bool(tokenizer.fitted)
    for kind in MAKERS:
        with pytest.raises(IlBenchError, match=r"no chunks to fit|0 different chunks"):
            MAKERS[kind]().fit(torch.empty(0, *CHUNK))
