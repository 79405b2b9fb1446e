"""Usage and perplexity of a vocabulary, as the report states them, lie within what they can be."""

from typing import Any

import numpy as np
import pytest
import torch
from fitted import KINDS, demonstrations, fitted
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from strategies import examples, tokens_of

from il_bench.suite.reconstruction import use_of_codes


def check(tokens: torch.Tensor, codebook_size: int) -> None:
    """Against scipy's entropy; and 1 <= perplexity <= codes in use <= the fewer of codes and tokens."""
    usage, perplexity = use_of_codes(tokens, codebook_size)
    counts = [np.bincount(column, minlength=codebook_size) for column in tokens.numpy().T]
    in_use = np.mean([(count > 0).sum() for count in counts])
    assert usage == pytest.approx(in_use / codebook_size, rel=1e-6)
    assert perplexity == pytest.approx(np.mean([np.exp(stats.entropy(count)) for count in counts]), rel=1e-5)
    assert 1 / codebook_size <= usage * (1 + 1e-6) <= min(1.0, len(tokens) / codebook_size) * (1 + 2e-6)
    assert 1 - 1e-6 <= perplexity <= in_use * (1 + 1e-5)


@examples(50)
@given(data=st.data(), codebook_size=st.integers(1, 40), num_quantizers=st.integers(1, 3))
def test_usage_and_perplexity_are_within_their_bounds(
    data: st.DataObject, codebook_size: int, num_quantizers: int
) -> None:
    check(data.draw(tokens_of(codebook_size, num_quantizers, most=60)), codebook_size)


@pytest.mark.parametrize("kind", KINDS)
def test_usage_and_perplexity_of_a_fitted_tokenizer(kind: str) -> None:
    tokenizer: Any = fitted(kind)
    check(tokenizer.encode(demonstrations()), tokenizer.codebook_size)


@pytest.mark.parametrize("n", [1, 7, 64])
def test_the_extremes_are_reached(n: int) -> None:
    """Every code equally often: all of them; one code only: one."""
    assert use_of_codes(torch.arange(n).repeat(3)[:, None], n) == pytest.approx((1.0, n))
    assert use_of_codes(torch.zeros(9, 1, dtype=torch.int64), n) == pytest.approx((1 / n, 1.0))
