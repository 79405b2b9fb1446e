"""How many floating-point operations one call takes: counted while it runs, not worked out from a formula."""

from collections import Counter
from collections.abc import Callable
from typing import Any, override

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, bmm_flop, sdpa_backward_flop_count, sdpa_flop_count

aten = torch.ops.aten

#: Operators with products inside that torch's counter passes over and that have no formula here.
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


def count_flops(call: Callable[[], object]) -> int | None:
    """Run `call` once and count its floating-point operations; a multiplication and its addition are two.

    Counted are matrix products, convolutions (with the padding they multiply) and attention, and nothing
    else: no biases, activations, norms, softmax or sampling. None where the call uses an operator of OPAQUE.
    The call must be eager: nothing is seen of what torch.compile fused or a CUDA graph replays, but the
    products are the same.

    Source: `torch.utils.flop_counter`, with FORMULAS for operators that it lacks.
    """
    counter = FlopCounterMode(display=False, custom_mapping=FORMULAS)
    # torch's fast path of MultiheadAttention and TransformerEncoderLayer would be one operator.
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with _Seen() as seen, counter:
            call()
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
    return None if any(seen.operators[name] for name in OPAQUE) else counter.get_total_flops()


class _Seen(TorchDispatchMode):
    """Notes which operators run; around a FlopCounterMode it sees what that has taken apart."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operators: Counter[str] = Counter()

    @override
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.operators[str(func.overloadpacket)] += 1
        return func(*args, **(kwargs or {}))


#: Of shapes, as FlopCounterMode's `custom_mapping` wants them.
FORMULAS: dict[Any, Callable[..., int]] = {
    aten.mv: lambda matrix, vector, **_: bmm_flop((1, *matrix), (1, *vector, 1)),
    aten.addmv: lambda added, matrix, vector, **_: bmm_flop((1, *matrix), (1, *vector, 1)),
    aten.dot: lambda one, other, **_: bmm_flop((1, 1, *one), (1, *other, 1)),
    aten._scaled_dot_product_flash_attention_for_cpu: (
        lambda query, key, value, *_, **__: sdpa_flop_count(query, key, value)
    ),
    aten._scaled_dot_product_flash_attention_for_cpu_backward: (
        lambda grad, query, key, value, *_, **__: sdpa_backward_flop_count(grad, query, key, value)
    ),
}
