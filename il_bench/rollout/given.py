"""What somebody's policy or environment gives: checked where it has to be numbers, and put in words."""

from collections.abc import Mapping

import torch

from il_bench.errors import IlBenchError

_INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def checked(action: object, shape: tuple[int, ...], at: str) -> torch.Tensor:
    """A policy's actions without their gradient, on the CPU; some may not be finite.

    Raises IlBenchError unless they are a tensor of this shape, of real numbers; `at`: where in the rollout.
    """
    if isinstance(action, torch.Tensor) and tuple(action.shape) == shape:
        is_plain = action.layout == torch.strided and not action.is_meta
        if is_plain and (action.is_floating_point() or action.dtype in _INTEGERS):
            return action.detach().cpu()
    raise IlBenchError(
        f"policy returned {in_words(action)} {at}, expected a tensor of shape {shape}, of real numbers"
    )


def in_words(value: object) -> str:
    """What somebody's code gave, in a few words: 'None', "'False'", 'a tuple of 2 (Tensor, dict)'."""
    if value is None or isinstance(value, bool | int | float | str):
        return f"{value!r:.40}"
    if isinstance(value, Mapping):
        return f"a {type(value).__name__} with {', '.join(map(repr, list(value)[:3])):.60}"
    if isinstance(value, tuple | list):
        kinds = ", ".join(type(each).__name__ for each in value[:3])
        return f"a {type(value).__name__} of {len(value)} ({kinds}{', ..' if len(value) > 3 else ''})"
    shape = getattr(value, "shape", None)
    if shape is None:
        return f"a {type(value).__name__}"
    if tuple(shape) == () and not getattr(value, "is_meta", False):
        return f"{value!r:.40}"
    kind = "tensor" if isinstance(value, torch.Tensor) else type(value).__name__
    more = [str(getattr(value, "dtype", ""))]
    if getattr(value, "layout", torch.strided) != torch.strided:
        more.append(str(value.layout))  # type: ignore[attr-defined]
    if getattr(value, "is_meta", False):
        more.append("without values (meta)")
    return f"a {kind} of shape {tuple(shape)} ({', '.join(more)})"
