"""One answer worked out by hand for each tokenizer."""

import pytest
import torch
from fitted import plain_fsq, plain_kmeans, plain_residual_vq, plain_vqvae

from il_bench.tokenizers import KMeansTokenizer, UniformBinsTokenizer


def test_bins() -> None:
    """Two places, 0 to 8 and -1 to 1, in four bins: 2 and 0.5 wide, and edges belong to the bin above."""
    tokenizer = UniformBinsTokenizer(4, (1, 2))
    tokenizer.fit(torch.tensor([[[8.0, -1.0]], [[0.0, 1.0]], [[3.0, 0.5]]]))
    assert (tokenizer.low.tolist(), tokenizer.high.tolist()) == ([0.0, -1.0], [8.0, 1.0])
    chunks = torch.tensor(
        [[[0.0, -1.0]], [[1.9, -0.6]], [[2.0, -0.5]], [[7.9, 0.9]], [[8.0, 1.0]], [[-5.0, 7.0]], [[4.0, 0.0]]]
    )
    assert tokenizer.encode(chunks).tolist() == [[0, 0], [0, 0], [1, 1], [3, 3], [3, 3], [0, 3], [2, 2]]
    assert tokenizer.decode(torch.tensor([[0, 3], [3, 1]])).tolist() == [[[1.0, 0.75]], [[7.0, -0.25]]]
    assert (tokenizer.codebook_size, tokenizer.num_quantizers, tokenizer.bits_per_chunk) == (4, 2, 4.0)


def test_bins_of_a_place_that_never_changes() -> None:
    tokenizer = UniformBinsTokenizer(4, (1, 2))
    tokenizer.fit(torch.tensor([[[3.0, 0.0]], [[3.0, 4.0]]]))
    tokens = tokenizer.encode(torch.tensor([[[3.0, 1.0]], [[9.0, 4.0]], [[-9.0, 0.0]]]))
    assert tokens.tolist() == [[0, 1], [0, 3], [0, 0]]
    assert tokenizer.decode(tokens).tolist() == [[[3.0, 1.5]], [[3.0, 3.5]], [[3.0, 0.5]]]


def test_bins_number_their_places_by_step_then_dimension() -> None:
    tokenizer = UniformBinsTokenizer(10, (2, 3))
    tokenizer.fit(torch.tensor([[[0.0] * 3] * 2, [[10.0] * 3] * 2]))
    chunk = torch.tensor([[[0.5, 1.5, 2.5], [3.5, 4.5, 5.5]]])
    assert tokenizer.encode(chunk).tolist() == [[0, 1, 2, 3, 4, 5]]
    assert torch.equal(tokenizer.decode(torch.tensor([[0, 1, 2, 3, 4, 5]])), chunk)


def test_kmeans() -> None:
    """Four chunks in two pairs: the centres are the pairs' means, and (1, 3) is (1, 2) away from (0, 1)."""
    tokenizer = KMeansTokenizer(2, (1, 2))
    tokenizer.fit(torch.tensor([[[0.0, 0.0]], [[0.0, 2.0]], [[10.0, 0.0]], [[10.0, 2.0]]]))
    assert sorted(tokenizer.centers.tolist()) == [[0.0, 1.0], [10.0, 1.0]]
    indices, offsets = tokenizer.encode_with_offset(torch.tensor([[[1.0, 3.0]]]))
    assert tokenizer.decode(indices).tolist() == [[[0.0, 1.0]]]
    assert offsets.tolist() == [[[1.0, 2.0]]]
    assert tokenizer.decode(indices, offsets).tolist() == [[[1.0, 3.0]]]
    assert (tokenizer.codebook_size, tokenizer.num_quantizers, tokenizer.bits_per_chunk) == (2, 1, 1.0)


def test_kmeans_ties_go_to_the_lower_centre() -> None:
    tokenizer = plain_kmeans(torch.tensor([[4.0], [0.0]]))
    assert tokenizer.encode(torch.tensor([[[2.0]], [[1.9]], [[2.1]]])).tolist() == [[0], [1], [0]]


def test_residual_vq() -> None:
    """(3, 1) is nearest to (4, 0), which leaves (-1, 1), nearest to (-1, 0.5): together (3, 0.5)."""
    tokenizer = plain_residual_vq(
        torch.tensor([[[0.0, 0.0], [4.0, 0.0], [0.0, 4.0]], [[1.0, 0.0], [0.0, -1.0], [-1.0, 0.5]]])
    )
    chunk = torch.tensor([[[3.0, 1.0]]])
    assert tokenizer.encode(chunk).tolist() == tokenizer.reference_encode(chunk).tolist() == [[1, 2]]
    tokens = torch.tensor([[1, 2], [2, 0], [0, 1]])
    expected = [[[3.0, 0.5]], [[1.0, 4.0]], [[0.0, -1.0]]]
    assert tokenizer.decode(tokens).tolist() == tokenizer.reference_decode(tokens).tolist() == expected
    assert (tokenizer.codebook_size, tokenizer.num_quantizers) == (3, 2)
    assert tokenizer.bits_per_chunk == pytest.approx(3.169925)  # 2 log2(3)


def test_vqvae() -> None:
    """Squared distances of (1, 2): 5 to the origin, 13 to (3, 5), 1 to (2, 2) and to (1, 3): the lower."""
    tokenizer = plain_vqvae(torch.tensor([[0.0, 0.0], [3.0, 5.0], [2.0, 2.0], [1.0, 3.0]]))
    assert tokenizer.encode(torch.tensor([[[1.0, 2.0]], [[3.0, 4.0]]])).tolist() == [[2], [1]]
    assert tokenizer.decode(torch.tensor([[3], [1]])).tolist() == [[[1.0, 3.0]], [[3.0, 5.0]]]
    assert (tokenizer.codebook_size, tokenizer.num_quantizers, tokenizer.bits_per_chunk) == (4, 1, 2.0)


def test_fsq() -> None:
    """Levels (3, 4): digits 0 to 2 and 0 to 3, the first the lowest; 0 is digit 1 of three and 2 of four."""
    tokenizer = plain_fsq((3, 4))
    # tanh bounds: far out is the last level on either side; 0 rounds to the level that decodes to 0.
    chunks = torch.tensor([[[0.0, 0.0]], [[9.0, -9.0]], [[-9.0, 9.0]], [[9.0, 9.0]], [[0.0, -0.5]]])
    # tanh(-0.5 + atanh(1/3)) 1.5 - 0.5 = -0.729, which is level -1, digit 1.
    assert tokenizer.encode(chunks)[:, 0].tolist() == [1 + 3 * 2, 2 + 3 * 0, 0 + 3 * 3, 2 + 3 * 3, 1 + 3 * 1]
    codes = tokenizer.decode(torch.tensor([[0], [2], [7], [11]]))[:, 0]
    assert codes.tolist() == [[-1.0, -1.0], [1.0, -1.0], [0.0, 0.0], [1.0, 0.5]]
    assert (tokenizer.codebook_size, tokenizer.num_quantizers) == (12, 1)
    assert tokenizer.bits_per_chunk == pytest.approx(3.5849625)  # log2(12)
