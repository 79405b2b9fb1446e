"""The protocol of every action tokenizer, and the checks of what it is given."""

import math
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from il_bench.errors import IlBenchError

DTYPES = (torch.float32, torch.float64)


def full_precision(device: torch.device) -> AbstractContextManager[None]:
    """Autocast off: it would compute the products that decide between codes in 16 bits."""
    if torch.is_autocast_enabled(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()


class Tokenizer(nn.Module, ABC):
    """Chunks of actions to tokens and back; everything it learned is in its ``state_dict``.

    Chunks are float32 or float64. Bins and k-means compute in the chunks' type; a tokenizer with a network
    computes in its weights' type, which ``.double()`` changes.

    Args:
        codebook_size: number of codes C of each codebook.
        num_quantizers: number of codebooks G: a chunk has one token of each.
        chunk_shape: (W, A), the steps of a chunk and the dimensions of an action.
    """

    fitted: Tensor  # () bool, in state_dict

    def __init__(self, codebook_size: int, num_quantizers: int, chunk_shape: tuple[int, int]) -> None:
        super().__init__()
        self.codebook_size = codebook_size
        self.num_quantizers = num_quantizers
        self.chunk_shape = (int(chunk_shape[0]), int(chunk_shape[1]))
        if codebook_size < 1:
            raise self._error(f"codebook_size is {codebook_size}; give 1 or more.")
        if min(self.chunk_shape) < 1:
            raise self._error(f"chunk_shape is {self.chunk_shape}; give (W, A), both 1 or more.")

    @property
    def bits_per_chunk(self) -> float:
        """Bits that index a chunk, G log2 C."""
        return self.num_quantizers * math.log2(self.codebook_size)

    @abstractmethod
    def fit(self, chunks: Tensor, *, seed: int = 0) -> None:
        """Learn from ``chunks`` (N, W, A); the same chunks and seed give the same tokenizer, in eval mode.

        What was learned before is forgotten. Torch's global generator stays as it was. A fit that fails
        changes nothing. Raises IlBenchError for what ``encode`` refuses, and for too few chunks.
        """

    @abstractmethod
    def encode(self, chunks: Tensor) -> Tensor:
        """Tokens of ``chunks`` (N, W, A): int64 of shape (N, G), each in [0, C).

        Raises IlBenchError for another shape or type, for NaN or infinity, and before ``fit``.
        """

    @abstractmethod
    def decode(self, indices: Tensor) -> Tensor:
        """The chunks (N, W, A) that the tokens ``indices`` (N, G) stand for.

        Raises IlBenchError for another shape or type, for tokens out of range, and before ``fit``.
        """

    def _error(self, problem: str) -> IlBenchError:
        return IlBenchError(f"{type(self).__name__}: {problem}")

    def _check_fitted(self, weights: Tensor | None = None) -> None:
        if not self.fitted:
            raise IlBenchError(f"{type(self).__name__} has learned nothing yet; call fit(chunks) first.")
        if weights is not None:
            self._check_weights(weights)

    def _check_weights(self, weights: Tensor) -> None:
        if weights.dtype not in DTYPES:
            raise self._error(f"the weights are {weights.dtype}; convert them with .float().")

    def _check_tensor(self, name: str, values: object) -> None:
        if not isinstance(values, Tensor):
            kind = f"{type(values).__module__}.{type(values).__name__}".removeprefix("builtins.")
            raise self._error(f"{name} are {kind}; give a torch.Tensor.")

    def _check_chunks(self, chunks: Tensor) -> None:
        self._check_shape(chunks)
        self._check_finite(chunks)

    def _to_fit(self, chunks: Tensor, weights: Tensor, dtype: torch.dtype) -> Tensor:
        """``chunks`` (N, W, A) in the type to fit in; raises IlBenchError for what no ``fit`` takes."""
        self._check_weights(weights)
        self._check_chunks(chunks)
        if not len(chunks):
            raise self._error("no chunks to fit; give one or more.")
        return self._in_type(chunks.detach(), dtype)

    def _check_shape(self, chunks: Tensor, name: str = "chunk") -> None:
        self._check_tensor(f"{name}s", chunks)
        if chunks.ndim != 3 or chunks.shape[1:] != self.chunk_shape:
            expected = f"(N, {self.chunk_shape[0]}, {self.chunk_shape[1]})"
            raise self._error(f"{name}s have shape {tuple(chunks.shape)}; give {expected}.")
        if chunks.dtype not in DTYPES:
            raise self._error(f"{name}s are {chunks.dtype}; give torch.float32 or torch.float64.")

    def _check_finite(self, chunks: Tensor, name: str = "chunk") -> None:
        if (row := first_not_finite(chunks)) is not None:
            raise self._error(f"{name} {row} holds NaN or infinity; remove or repair it.")

    def _in_type(self, chunks: Tensor, dtype: torch.dtype) -> Tensor:
        """Finite ``chunks`` (N, ...) in another type; raises IlBenchError where it cannot hold them."""
        converted = chunks.to(dtype)
        if converted.dtype != chunks.dtype and (row := first_not_finite(converted)) is not None:
            raise self._error(f"chunk {row} is too large for {dtype}; scale it down.")
        return converted

    def _check_different(self, chunks: Tensor) -> None:
        n_different = len(torch.unique(chunks.flatten(1), dim=0))
        if n_different < self.codebook_size:
            raise self._error(
                f"{n_different} different chunks cannot fill {self.codebook_size} codes; give more data or a "
                "smaller codebook_size."
            )

    def _check_indices(self, indices: Tensor) -> None:
        self._check_tensor("tokens", indices)
        if indices.ndim != 2 or indices.shape[1] != self.num_quantizers or indices.dtype != torch.int64:
            raise self._error(
                f"tokens are {indices.dtype} of shape {tuple(indices.shape)}; "
                f"give int64 of shape (N, {self.num_quantizers})."
            )
        if not indices.numel():
            return
        low, high = map(int, torch.aminmax(indices))
        if low < 0 or high >= self.codebook_size:
            last = self.codebook_size - 1
            raise self._error(f"tokens run from {low} to {high}; the codebook has 0 to {last}.")


def first_not_finite(values: Tensor) -> int | None:
    """Row of the first NaN or infinity in ``values`` (N, ...)."""
    finite = torch.isfinite(values)
    return None if finite.all() else int((~finite).flatten(1).any(dim=1).nonzero()[0])
