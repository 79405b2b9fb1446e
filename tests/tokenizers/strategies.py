"""What hypothesis draws for tokenizers: points and codebooks with ties and duplicates, chunks, tokens."""

from typing import Any

import numpy as np
import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

Problem = tuple[NDArray[np.float32], NDArray[np.float32]]


def examples(n: int) -> settings:
    """``n`` examples, none at random: a red run is then somebody's change.

    Nearly always: hypothesis also tries constants of the modules that happen to be loaded.
    """
    return settings(
        deadline=None,
        max_examples=n,
        derandomize=True,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )


# Quarters up to 4: every product and sum of a few of them is exact in float32, so that ties are ties and
# the nearest code is known without any margin.
grid = st.integers(-16, 16).map(lambda quarters: quarters / 4)
smooth = st.floats(-4, 4, width=32)
moves = st.floats(-2, 2, width=32)  # as normalised actions


def matrices(n_rows: st.SearchStrategy[int], dim: int, elements: st.SearchStrategy[float]) -> Any:
    return n_rows.flatmap(lambda n: arrays(np.float32, (n, dim), elements=elements))


@st.composite
def problems(
    draw: st.DrawFn, elements: st.SearchStrategy[float], *, codes: int | None = None, dim: int | None = None
) -> Problem:
    """Points (N, D) and a codebook (C, D).

    Among the codes are duplicates, and among the points codes, and points half way between two codes.
    """
    dim = dim or draw(st.integers(1, 4))
    n_codes = codes or draw(st.integers(1, 6))
    codebook = draw(arrays(np.float32, (n_codes, dim), elements=elements))
    for source, copy in draw(st.lists(st.tuples(*[st.integers(0, n_codes - 1)] * 2), max_size=2)):
        codebook[copy] = codebook[source]
    points = draw(matrices(st.integers(1, 8), dim, elements))
    pairs = draw(st.lists(st.tuples(*[st.integers(0, n_codes - 1)] * 2), max_size=4))
    halfway = [(codebook[a] + codebook[b]) / 2 for a, b in pairs]
    return np.array([*points, *halfway], dtype=np.float32), codebook


@st.composite
def two_stages(draw: st.DrawFn, elements: st.SearchStrategy[float], *, dim: int) -> Any:
    """Points (N, D) and two codebooks (2, C, D)."""
    points, first = draw(problems(elements, dim=dim))
    _, second = draw(problems(elements, codes=len(first), dim=dim))
    return points, np.stack([first, second])


@st.composite
def partitions(draw: st.DrawFn, dim: int, n_codes: int) -> Any:
    """Points (N, D) and an owner in 0 .. n_codes - 1 for each of them."""
    n = draw(st.integers(1, 12))
    points = draw(arrays(np.float32, (n, dim), elements=smooth))
    return points, draw(arrays(np.int64, n, elements=st.integers(0, n_codes - 1)))


def chunks_of(shape: tuple[int, int], *, most: int = 12, elements: st.SearchStrategy[float] = moves) -> Any:
    """float32 tensors (N, W, A), N from 1 to ``most``."""
    return (
        st.integers(1, most)
        .flatmap(lambda n: arrays(np.float32, (n, *shape), elements=elements))
        .map(torch.from_numpy)
    )


def tokens_of(codebook_size: int, num_quantizers: int, *, most: int = 12) -> Any:
    """int64 tensors (N, G) in range, N from 1 to ``most``."""
    elements = st.integers(0, codebook_size - 1)
    return (
        st.integers(1, most)
        .flatmap(lambda n: arrays(np.int64, (n, num_quantizers), elements=elements))
        .map(torch.from_numpy)
    )
