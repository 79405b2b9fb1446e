"""LeRobot's ``VqVae`` in fewer operations: tables hold all that follows from the weights alone.

Encoding. With h the last hidden layer and x = W h + b its latent vector, the code e_k nearest to x has the
highest score x.e_k - |e_k|^2 / 2, which is h.(W^T e_k) + const: one narrow matrix product scores the codes
of all stages, and the last layer is never computed. Stage g sees the residual x - e_i, whose scores are those
of x less the e_i.e_k: a row of a table, and the residual is never computed either.

Rounding errors are estimated from the sizes of the terms: for the scores by one more column of that product,
for the hidden layers beforehand, for chunks in [-1, 1]. Where they could swap the best two codes, the row is
decided in float64.

Decoding. If there are few combinations of codes, all are decoded beforehand. Otherwise a table holds what
each code contributes to the decoder's first layer.
"""

import ctypes
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from il_bench.tokenizers.nearest import nearest_in_float64

# Comparing the weights by torch.equal, which is portable, would cost 23 µs more a call: at batch 1 encoding
# would take 75 µs instead of 53, decoding 50 instead of 27 (one core, the shipped vqbet).
_memcmp: Any = None
with suppress(OSError, TypeError, AttributeError):  # Windows has no such library
    _memcmp = ctypes.CDLL(None).memcmp
    _memcmp.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)

#: A row is decided in float64 when the scores of its best two codes differ by less than MARGIN eps times the
#: sizes of their terms, plus HIDDEN_MARGIN eps times the most that the hidden layers can add up. Both are
#: measured, not proven: bounds (Higham 2002, chapter 3) grow with the layers' widths and would send many more
#: rows to float64 than these, which send fewer than one in a thousand of the shipped policy's demonstrations.
#: A wide last layer whose products have one sign can round by more: a row may then get the second best code.
MARGIN = 8.0
HIDDEN_MARGIN = 0.05
#: The most combinations of codes that are decoded beforehand.
MOST_COMBINATIONS = 4096


class Weights:
    """A copy of some tensors' values; ``unchanged`` notices every write since.

    LeRobot updates its codebooks through ``.data``, which moves no version counter, so values are compared.
    """

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self._copies = [tensor.detach().clone(memory_format=torch.contiguous_format) for tensor in tensors]

    def unchanged(self, tensors: Sequence[Tensor]) -> bool:
        """Whether ``tensors``, of the same shapes, hold the same numbers in the same type and place."""
        return all(map(_same, tensors, self._copies))


def _same(tensor: Tensor, copy: Tensor) -> bool:
    if (tensor.shape, tensor.dtype, tensor.device) != (copy.shape, copy.dtype, copy.device):
        return False
    if _memcmp and tensor.is_cpu and tensor.is_contiguous():
        return not _memcmp(tensor.data_ptr(), copy.data_ptr(), copy.nbytes)
    return torch.equal(tensor, copy)


@dataclass(frozen=True, eq=False)
class EncoderTables:
    """An encoder's last layer, with H inputs, folded with G codebooks of C codes.

    The hidden layers are not in the tables, so a change of theirs needs no new ones.
    """

    weights: Weights
    #: Bias (G * C + 1,) and weight (H, G * C + 1) of the scores and, last, of their margin.
    score: tuple[Tensor, Tensor]
    #: For each stage g but the last (C, (G - g - 1) * C): e_i.e_k of its codes i with all later k.
    cross: tuple[Tensor, ...]
    n_codes: int  # C

    @classmethod
    def of(cls, tensors: Sequence[Tensor], n_stages: int) -> "EncoderTables":
        """Make them of an encoder's weights and biases in turn, then ``n_stages`` codebooks (1, C, D)."""
        dtype = tensors[0].dtype
        eps = torch.finfo(dtype).eps
        doubles = [tensor.detach().double() for tensor in tensors]
        *hidden, (weight, bias) = _layers(doubles, n_stages)
        codes = torch.cat(doubles[-n_stages:])  # (G, C, D)
        every = codes.flatten(0, 1)  # (G * C, D)
        n_codes = codes.shape[1]
        cross = [codes[g] @ every[(g + 1) * n_codes :].T for g in range(n_stages - 1)]
        score = (every @ bias - every.square().sum(dim=1) / 2, weight.T @ every.T)

        most = score[1].abs().amax(dim=1)  # (H,), that a hidden unit moves a score by
        constant = score[0].abs().max() + sum(table.abs().max() for table in cross)
        margin = MARGIN * eps * constant + HIDDEN_MARGIN * eps * _hidden_sizes(hidden, most)
        return cls(
            weights=Weights(tensors[-n_stages - 2 :]),
            score=(
                torch.cat([score[0], margin.reshape(1)]).to(dtype),
                torch.cat([score[1], MARGIN * eps * most[:, None]], dim=1).to(dtype),
            ),
            cross=tuple(table.to(dtype) for table in cross),
            n_codes=n_codes,
        )

    def fits(self, tensors: Sequence[Tensor]) -> bool:
        """Whether these are the tables of ``tensors``, as ``of`` takes them."""
        return self.weights.unchanged(tensors[-len(self.cross) - 3 :])

    def encode(self, flat: Tensor, tensors: Sequence[Tensor], largest: float) -> tuple[Tensor, Tensor | None]:
        """Codes (N, G) of chunks ``flat`` (N, W * A) in [-largest, largest], and any rows in doubt."""
        n_stages, n_codes = len(self.cross) + 1, self.n_codes
        values = flat
        for number in range(0, len(tensors) - n_stages - 2, 2):
            values = F.linear(values, tensors[number], tensors[number + 1]).relu_()
        bias, weight = self.score
        scores = torch.addmm(bias, values, weight)  # (N, G * C + 1)
        # One operation each; slicing and reshaping would be two.
        n_rows, width = scores.shape
        by_stage = scores.as_strided((n_rows, n_stages, n_codes), (width, n_codes, 1))
        margin = scores.as_strided((n_rows, 1, 1), (width, 1, 1), width - 1)
        if largest > 1:
            margin.mul_(largest)
        for stage, table in enumerate(self.cross):
            chosen = scores.narrow(1, stage * n_codes, n_codes).argmax(dim=1)
            scores.narrow(1, (stage + 1) * n_codes, table.shape[1]).sub_(table.index_select(0, chosen))
        best, indices = by_stage.max(dim=2, keepdim=True)
        lower = by_stage < best - margin  # written so that a NaN is not lower
        n_lower = n_stages * (n_codes - 1)  # in a row without doubt; 0 says nothing
        if n_lower and int(torch.count_nonzero(lower)) == len(flat) * n_lower:
            return indices.squeeze(2), None
        return indices.squeeze(2), (lower.flatten(1).sum(dim=1) != n_lower).nonzero()[:, 0]


def _hidden_sizes(hidden: Sequence[tuple[Tensor, Tensor]], most: Tensor) -> Tensor:
    """The most () that hidden layers (weight, bias) add up for a chunk in [-1, 1], counted in scores.

    most: (H,), what each unit of the last layer moves a score by.
    """
    largest = torch.ones_like(hidden[0][0][0])
    sizes = []
    for weight, bias in hidden:
        largest = weight.abs() @ largest + bias.abs()
        sizes.append(largest)
    total = most.new_zeros(())
    for (weight, _), largest in zip(reversed(hidden), reversed(sizes), strict=True):
        total = total + most @ largest
        most = weight.abs().T @ most
    return total


def encode_in_float64(flat: Tensor, tensors: Sequence[Tensor], n_stages: int) -> Tensor:
    """Codes (N, G) of chunks ``flat`` (N, W * A) by the definition; ``tensors`` as for ``EncoderTables``."""
    residual = flat.double()
    for number, (weight, bias) in enumerate(_layers(tensors, n_stages)):
        residual = F.linear(residual.relu() if number else residual, weight.double(), bias.double())
    indices = []
    for codebook in tensors[-n_stages:]:
        indices.append(nearest_in_float64(residual, codebook[0]))
        residual = residual - codebook[0, indices[-1]].double()
    return torch.stack(indices, dim=1)


@dataclass(frozen=True, eq=False)
class DecoderTables:
    """G codebooks of C codes folded with a decoder."""

    weights: Weights
    #: (G, C, H), what each code contributes to the first layer; the bias is with the first stage's.
    first: Tensor
    rest: tuple[tuple[Tensor, Tensor], ...]  # weight (n_out, n_in) and bias of each layer after it
    #: (C ** G, W * A), all combinations decoded, the last stage's code fastest; None if too many.
    chunks: Tensor | None

    @classmethod
    def of(cls, tensors: Sequence[Tensor], n_stages: int) -> "DecoderTables":
        """Make them of a decoder's weights and biases in turn, then ``n_stages`` codebooks (1, C, D)."""
        dtype = tensors[0].dtype
        (weight, bias), *rest = _layers([tensor.detach().double() for tensor in tensors], n_stages)
        first = torch.cat([codebook.detach().double() for codebook in tensors[-n_stages:]]) @ weight.T
        first[0] += bias
        chunks = None
        if first.shape[1] ** n_stages <= MOST_COMBINATIONS:
            combined = first[0]
            for contribution in first[1:]:
                combined = (combined[:, None] + contribution).flatten(0, 1)
            chunks = _after_first(combined, rest).to(dtype)
        layers = tuple((weight.to(dtype), bias.to(dtype)) for weight, bias in rest)
        return cls(Weights(tensors), first.to(dtype), layers, chunks)

    def decode(self, indices: Tensor) -> Tensor:
        """Chunks (N, W * A) of codes (N, G)."""
        columns = indices.unbind(dim=1)
        if self.chunks is not None:
            row = columns[0]
            for column in columns[1:]:
                row = torch.add(column, row, alpha=self.first.shape[1])
            return self.chunks.index_select(0, row)
        hidden = self.first[0].index_select(0, columns[0])
        for contribution, column in zip(self.first[1:], columns[1:], strict=True):
            hidden += contribution.index_select(0, column)
        return _after_first(hidden, self.rest)


def _after_first(hidden: Tensor, rest: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    for weight, bias in rest:
        hidden = F.linear(hidden.relu(), weight, bias)
    return hidden


def _layers(tensors: Sequence[Tensor], n_stages: int) -> list[tuple[Tensor, Tensor]]:
    """Weight and bias of each layer, without the codebooks."""
    return list(zip(tensors[:-n_stages:2], tensors[1:-n_stages:2], strict=True))
