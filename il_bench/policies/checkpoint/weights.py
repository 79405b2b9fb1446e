"""The weights of a checkpoint: what their file says of itself, and whether a policy really took them.

A file of safetensors begins with a table of its tensors. It tells a file that was cut, and how many numbers
the policy has, before anything is made of either.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_parameter_registration_hook,
)

from il_bench.errors import IlBenchError
from il_bench.files import check_regular, parse_json, reading

_FETCH = "fetch it again."
_LONGEST_TABLE = 100_000_000  # bytes, as in safetensors
#: How much larger than its weights a policy may be: numbers that are shared or not saved, and small change.
_FACTOR, _NUMBERS, _TENSORS = 4, 100_000_000, 10_000


class StoredTensor(NamedTuple):
    """What the table says of a tensor."""

    dtype: str  # "F32", "BF16", "I64", "BOOL" ..
    size: int  # how many numbers

    @property
    def is_float(self) -> bool:
        """Whether its numbers have fractions, of whatever length."""
        return self.dtype.startswith(("F", "BF"))


@contextmanager
def readable(path: Path) -> Iterator[Path]:
    """Turn what is wrong with a file of safetensors into an IlBenchError that names it, here and inside."""
    table(path)
    try:
        yield path
    except (OSError, SafetensorError) as error:
        raise IlBenchError(f"{path}: not readable as safetensors ({error}); {_FETCH}") from None


def table(path: Path) -> dict[str, StoredTensor]:
    """The tensors of a file by their names; IlBenchError if it was cut or is something else."""
    check_regular(path, _FETCH)
    with reading(path, _FETCH), path.open("rb") as file:
        n_bytes = int.from_bytes(file.read(8), "little")
        content = file.read(n_bytes) if n_bytes <= _LONGEST_TABLE else b""
        there = path.stat().st_size
    if there > 8 and not content.startswith(b"{"):
        raise IlBenchError(f"{path}: not readable as safetensors (it does not begin like one); {_FETCH}")
    ends, found = [0], {}
    if there >= 8 + n_bytes:
        for name, entry in parse_json(content, path, _FETCH).items():
            if name == "__metadata__":
                continue
            try:
                size = 1
                for length in entry["shape"]:
                    size *= int(length)
                ends.append(n_bytes + int(entry["data_offsets"][1]))
                found[name] = StoredTensor(str(entry["dtype"]), size)
            except (LookupError, TypeError, ValueError):
                raise IlBenchError(f"{path}: {name}: damaged in the table of tensors; {_FETCH}") from None
    if there < (needed := 8 + max(n_bytes, *ends)):
        raise IlBenchError(f"{path}: cut: {there:,} bytes are there of {needed:,}; {_FETCH}")
    return found


@contextmanager
def bounded(stored: Mapping[str, StoredTensor], where: str) -> Iterator[None]:
    """Let no module grow far beyond the weights that are to fill it; IlBenchError names ``where``.

    It counts every parameter and buffer as it is registered, whose memory may be asked for already.
    """
    numbers, tensors = sum(each.size for each in stored.values()), len(stored)
    most, most_tensors = _FACTOR * numbers + _NUMBERS, _FACTOR * tensors + _TENSORS
    seen: dict[int, Tensor] = {}
    n = 0

    def count(_module: nn.Module, _name: str, tensor: Tensor | None) -> None:
        nonlocal n
        if tensor is None or id(tensor) in seen:
            return
        seen[id(tensor)] = tensor
        n += tensor.numel()
        if n > most or len(seen) > most_tensors:
            raise _TooLargeError(
                f"{where}: asks for a policy of at least {n:,} numbers in {len(seen):,} tensors, but its "
                f"weights are {numbers:,} in {tensors:,}; the two must come from the same training run."
            )

    hooks = [
        register_module_parameter_registration_hook(count),
        register_module_buffer_registration_hook(count),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


class _TooLargeError(IlBenchError):
    pass


def check_size(make: Callable[[], nn.Module], stored: Mapping[str, StoredTensor], where: str) -> None:
    """Raise IlBenchError if ``make`` would ask for memory out of all proportion; none is asked for here.

    What cannot be made without memory is not judged.
    """
    with torch.random.fork_rng(devices=[]), bounded(stored, where), torch.device("meta"):
        try:
            make()
        except _TooLargeError:
            raise
        except Exception:  # it will be told where it is made in earnest
            return


def check_taken(module: nn.Module, path: Path, prefix: str = "") -> None:
    """Raise IlBenchError naming the tensor that a module took as it is not in the file, or is not finite.

    Of a tensor with fractions the file has to have fractions. Of whole numbers and truth values, such as
    counters, it may have floats, as a conversion to 16 bits leaves them.
    """
    stored, parameters = table(path), {name for name, _ in module.named_parameters()}
    for name, tensor in module.state_dict().items():
        if not isinstance(tensor, Tensor):  # whatever else a module keeps there
            continue
        there = stored.get(prefix + name)
        if there and tensor.is_floating_point() and not there.is_float:
            raise IlBenchError(
                f"{path}: {prefix}{name} is of type {there.dtype}, and the policy's is "
                f"{str(tensor.dtype).removeprefix('torch.')}: the decimals are lost; give the "
                "weights as they were trained."
            )
        if not (_is_finite(tensor) or (name not in parameters and _is_mask(tensor))):
            raise _not_finite(f"{path}: {prefix}{name}")


def _is_finite(tensor: Tensor) -> bool:
    if not (tensor.is_floating_point() and tensor.numel()):
        return True
    return bool(torch.isfinite(torch.stack(torch.aminmax(tensor))).all())  # 20 times as fast as all of them


def _is_mask(tensor: Tensor) -> bool:
    """Whether it is to be added to scores: 0 where something is seen, minus infinity where not."""
    return bool((torch.isneginf(tensor) | (tensor == 0)).all())


def check_finite(weights: Mapping[str, Tensor], where: str) -> None:
    """Raise IlBenchError naming the weight that is not finite."""
    for name, weight in weights.items():
        if not _is_finite(weight):
            raise _not_finite(f"{where}{name}")


def _not_finite(name: str) -> IlBenchError:
    return IlBenchError(f"{name} holds NaN or infinity; give a checkpoint from before its training diverged.")
