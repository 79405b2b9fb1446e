"""Counts the floating-point operations of a call while it runs."""

from collections import Counter
from collections.abc import Callable
from typing import Any, override

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, bmm_flop, sdpa_backward_flop_count, sdpa_flop_count

aten = torch.ops.aten

#: Operators that contain matrix products, but which torch's counter skips and FORMULAS lacks.
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

    Only matrix products, convolutions (with the padding they multiply) and attention count: no biases,
    activations, norms, softmax or sampling. None if the call uses an operator of OPAQUE. The call must be
    eager: what torch.compile has fused or a CUDA graph replays cannot be seen, though its products are the
    same. The counter is `torch.utils.flop_counter`, with FORMULAS for operators that it lacks.
    """
    counter = FlopCounterMode(display=False, custom_mapping=FORMULAS)
    # In torch's fast path, MultiheadAttention and TransformerEncoderLayer are one operator.
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with _Seen() as seen, counter:
            call()
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
    return None if any(seen.operators[name] for name in OPAQUE) else counter.get_total_flops()


class _Seen(TorchDispatchMode):
    """Records which operators run, after a FlopCounterMode inside it has taken them apart."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operators: Counter[str] = Counter()

    @override
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.operators[str(func.overloadpacket)] += 1
        return func(*args, **(kwargs or {}))


#: Operations by the shapes of the arguments, for FlopCounterMode's `custom_mapping`.
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
