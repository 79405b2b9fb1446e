"""Residual VQ of LeRobot's ``VqVae`` in fewer operations: what can be worked out from the weights, is.

Encoding. With h the last hidden layer and x = W h + b its latent vector, the code e_k nearest to x has the
highest score x.e_k - |e_k|^2 / 2, which is h.(W^T e_k) + const: one narrow matrix product scores the codes
of all stages, and the last layer is never computed. Stage g sees the residual x - e_i, whose scores are those
of x less the e_i.e_k: a row of a table, and the residual is never computed either.

Rounding is followed along: one more unit in each layer adds up the sizes of all that is added, so that it is
known where rounding could swap the best two codes, and such a row is decided in float64.

Decoding. Few combinations of codes are all decoded beforehand; of many, what each code contributes to the
decoder's first layer.
"""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from il_bench.tokenizers.nearest import nearest_in_float64

_memcmp = ctypes.CDLL(None).memcmp
_memcmp.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)

#: A row is decided in float64 when the scores of its best two codes differ by less than this many eps, times
#: the sum of the sizes of all that was added up for them.
MARGIN = 4.0
#: The most combinations of codes that are decoded beforehand.
MOST_COMBINATIONS = 4096


class Weights:
    """What was in some tensors: ``unchanged`` notices every write since, also one through ``.data``.

    Such a write, which is how LeRobot updates its codebooks, moves no version counter, so the numbers
    themselves are compared.
    """

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self._copies = [tensor.detach().clone(memory_format=torch.contiguous_format) for tensor in tensors]

    def unchanged(self, tensors: Sequence[Tensor]) -> bool:
        """Whether ``tensors``, of the same shapes, hold the same numbers in the same type and place."""
        return all(map(_same, tensors, self._copies))


def _same(tensor: Tensor, copy: Tensor) -> bool:
    if tensor.dtype != copy.dtype or tensor.device != copy.device:
        return False
    if tensor.is_cpu and tensor.is_contiguous():
        # A sixth of the time of torch.equal, which a batch of one feels.
        return not _memcmp(tensor.data_ptr(), copy.data_ptr(), copy.nbytes)
    return torch.equal(tensor, copy)


@dataclass(frozen=True, eq=False)
class EncoderTables:
    """An encoder of H-wide layers folded with G codebooks of C codes; the last unit of each is that of sizes.

    Attributes:
        hidden: bias (H + 1,) and weight (n_in, H + 1) of each hidden layer; the first takes (x, |x|).
        score: bias (G * C + 1,) and weight (H + 1, G * C + 1) of the scores and, last, their margin.
        cross: for each stage g but the last (C, (G - g - 1) * C): e_i.e_k of its codes i with all later k.
        exact: what the tables were made of, in float64, for the rows in doubt.
        n_codes: C.
    """

    weights: Weights
    hidden: tuple[tuple[Tensor, Tensor], ...]
    score: tuple[Tensor, Tensor]
    cross: tuple[Tensor, ...]
    exact: tuple[Tensor, ...]
    n_codes: int

    @classmethod
    def of(cls, tensors: Sequence[Tensor], n_stages: int) -> "EncoderTables":
        """Of an encoder's weights and biases in turn, followed by ``n_stages`` codebooks (1, C, D)."""
        dtype = tensors[0].dtype
        doubles = [tensor.detach().double() for tensor in tensors]
        layers = _layers(doubles, n_stages)
        codes = torch.cat(doubles[-n_stages:])  # (G, C, D)
        every = codes.flatten(0, 1)  # (G * C, D)
        n_codes = codes.shape[1]
        cross = [codes[g] @ every[(g + 1) * n_codes :].T for g in range(n_stages - 1)]

        weight, bias = layers.pop()
        score = (every @ bias - every.square().sum(dim=1) / 2, weight.T @ every.T)
        sizes = score[0].abs().max() + sum(table.abs().max() for table in cross)
        # By how much a score can be wrong for each unit of the layer before, worked out from the end.
        reach = MARGIN * torch.finfo(dtype).eps * score[1].abs().amax(dim=1)  # (H,)
        folded = [_with_sizes(*score, MARGIN * torch.finfo(dtype).eps * sizes, reach)]
        for weight, bias in reversed(layers):
            size, reach = bias.abs() @ reach, weight.T.abs() @ reach
            folded.append(_with_sizes(bias, weight.T, size, reach))
        first_bias, first = folded.pop()
        n_in = len(first) - 1
        # A chunk has no unit of sizes yet; its own are |x|.
        folded.append((first_bias, torch.block_diag(first[:n_in, :-1], first[:n_in, -1:])))
        last, *hidden = [(bias.to(dtype), weight.to(dtype)) for bias, weight in folded]
        return cls(
            weights=Weights(tensors),
            hidden=tuple(reversed(hidden)),
            score=last,
            cross=tuple(table.to(dtype) for table in cross),
            exact=tuple(doubles),
            n_codes=n_codes,
        )

    def encode(self, flat: Tensor) -> tuple[Tensor, Tensor | None]:
        """Codes (N, G) of chunks ``flat`` (N, W * A), and what rows are in doubt, if any may be.

        NaN and infinity put a row in doubt, so that they need not be looked for unless there is doubt.
        """
        n_stages, n_codes = len(self.cross) + 1, self.n_codes
        hidden = torch.cat((flat, flat.abs()), dim=1)
        for bias, weight in self.hidden:
            hidden = torch.addmm(bias, hidden, weight).relu_()
        bias, weight = self.score
        scores = torch.addmm(bias, hidden, weight)  # (N, G * C + 1)
        for stage, table in enumerate(self.cross):
            chosen = scores.narrow(1, stage * n_codes, n_codes).argmax(dim=1)
            scores.narrow(1, (stage + 1) * n_codes, table.shape[1]).sub_(table.index_select(0, chosen))
        by_stage = scores.narrow(1, 0, n_stages * n_codes).view(-1, n_stages, n_codes)
        best, indices = by_stage.max(dim=2, keepdim=True)
        # Written so that a NaN is not lower.
        lower = by_stage < best - scores.narrow(1, n_stages * n_codes, 1).unsqueeze(2)
        n_lower = n_stages * (n_codes - 1)  # in a row without doubt; 0 tells nothing
        if n_lower and int(torch.count_nonzero(lower)) == len(flat) * n_lower:
            return indices.squeeze(2), None
        return indices.squeeze(2), (lower.flatten(1).sum(dim=1) != n_lower).nonzero()[:, 0]


def _with_sizes(bias: Tensor, weight: Tensor, size: Tensor, reach: Tensor) -> tuple[Tensor, Tensor]:
    """A layer, bias (n_out,) and weight (n_in, n_out), and as its last input and output the unit of sizes."""
    weight = torch.block_diag(weight, weight.new_ones(1, 1))
    weight[:-1, -1] = reach
    return torch.cat([bias, size.reshape(1)]), weight


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
    """G codebooks of C codes folded with a decoder.

    Attributes:
        first: (G, C, H), what each code contributes to the first layer; the bias is with the first stage's.
        rest: weight (n_out, n_in) and bias of each layer after it.
        chunks: (C ** G, W * A), all combinations decoded, the last stage's code running fastest, if not too
            many.
    """

    weights: Weights
    first: Tensor
    rest: tuple[tuple[Tensor, Tensor], ...]
    chunks: Tensor | None

    @classmethod
    def of(cls, tensors: Sequence[Tensor], n_stages: int) -> "DecoderTables":
        """Of a decoder's weights and biases in turn, followed by ``n_stages`` codebooks (1, C, D)."""
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
