"""How many floating-point operations one call takes: counted while it runs, not worked out from a formula."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, override

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, bmm_flop, sdpa_backward_flop_count, sdpa_flop_count

aten = torch.ops.aten

#: Products behind one operator that torch's counter passes over and that has no formula here.
OPAQUE = (
    "aten._cdist_forward",
    "aten._cudnn_rnn",
    "aten._euclidean_dist",
    "aten._native_multi_head_attention",
    "aten._transformer_encoder_layer_fwd",
    "aten._trilinear",
    "aten.miopen_rnn",
    "aten.mkldnn_rnn_layer",
)


@dataclass(frozen=True)
class Flops:
    """Floating-point operations of one call; a multiplication and its addition are two.

    `by_operator`: of matrix products, convolutions and attention, by the operator that does them, such as
    ``aten.addmm``. Everything else is not counted: biases, activations, norms, softmax, sampling,
    embeddings, normalisation. What a convolution multiplies with its padding is counted. `unseen`: operators
    of OPAQUE that the call uses, whose products are not among the counted ones.
    """

    by_operator: dict[str, int]
    unseen: tuple[str, ...] = ()

    @property
    def total(self) -> int | None:
        """All of them; None where some products could not be counted."""
        return None if self.unseen else sum(self.by_operator.values())


def count(call: Callable[[], object]) -> Flops:
    """Run `call` once and count.

    The call must be eager: of what torch.compile fused, or a CUDA graph replays, nothing would be seen. The
    same policy has the same products in those modes.

    Source: `torch.utils.flop_counter`, with formulas for the operators of FORMULAS, which it lacks.
    """
    counter = FlopCounterMode(display=False, custom_mapping=FORMULAS)
    with _separate_attention(), _Seen() as seen, counter:
        call()
    counted = counter.get_flop_counts().get("Global", {})
    return Flops(
        by_operator={str(operator): int(n) for operator, n in counted.items() if n},
        unseen=tuple(name for name in OPAQUE if seen.operators[name]),
    )


class _Seen(TorchDispatchMode):
    """Notes which operators run; around a FlopCounterMode it sees what that has taken apart."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operators: Counter[str] = Counter()

    @override
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.operators[str(func.overloadpacket)] += 1
        return func(*args, **(kwargs or {}))


@contextmanager
def _separate_attention() -> Iterator[None]:
    """Without torch's fast path of `nn.MultiheadAttention` and `nn.TransformerEncoderLayer`: one operator."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def _mv(matrix: Any, vector: Any, **_: Any) -> int:
    return int(bmm_flop((1, *matrix), (1, *vector, 1)))


def _addmv(added: Any, matrix: Any, vector: Any, **_: Any) -> int:
    return _mv(matrix, vector)


def _dot(one: Any, other: Any, **_: Any) -> int:
    return _mv((1, *one), other)


def _attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return int(sdpa_flop_count(query, key, value))


def _attention_backward(grad: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return int(sdpa_backward_flop_count(grad, query, key, value))


#: Of shapes, as FlopCounterMode's `custom_mapping` wants them.
FORMULAS: dict[Any, Callable[..., int]] = {
    aten.mv: _mv,
    aten.addmv: _addmv,
    aten.dot: _dot,
    aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}
