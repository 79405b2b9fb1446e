"""How fast a device multiplies matrices: the floor of a call that does nothing else."""

import statistics
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch

from il_bench.latency.device import Device
from il_bench.latency.turns import Call, Clock, TimedBeside, Turns, seconds_of

#: Rows of the square matrices to try, by kind of device: they fit a core's caches, or fill a GPU.
SIZES = {"cpu": (256, 512, 1024), "cuda": (2048, 4096, 8192), "mps": (1024, 2048, 4096)}
TRIALS = 5  # of each size, after one that warms up
AS_GOOD = 0.95  # a smaller size that reaches this share of the best rate is better: its turns are shorter
TURNS = 15  # at most, spread over the calls that are timed beside the products
FEWEST_BETWEEN = 4  # calls between turns: then most calls, and their median, do not come after a product
IN_A_TURN = 3  # products

_best: dict[tuple[Any, ...], int] = {}


class MatrixProducts(TimedBeside):
    """Products of two square matrices, timed in turns with a call on the same device, dtype and threads.

    The size is the smallest of SIZES that is AS_GOOD as the fastest; a process finds it once for each number
    of threads. Settings such as TF32 hold for products and call alike. But cuDNN's convolutions have settings
    of their own, and use TF32 by default: on such a GPU the floor of convolutions can be too high.

    product: makes the call that multiplies two n x n matrices; default: torch's.
    """

    def __init__(
        self,
        device: Device,
        dtype: torch.dtype,
        *,
        clock: Clock = time.perf_counter,
        product: Callable[[int], Call] | None = None,
    ) -> None:
        make = product or (lambda n: _product(n, device, dtype))

        def trial_rate(n: int) -> float:
            multiply = make(n)
            multiply()
            return operations(n) / min(seconds_of(multiply, device, clock) for _ in range(TRIALS))

        key = (device.name, dtype, torch.get_num_threads(), product)
        if key not in _best:
            rates = {n: trial_rate(n) for n in SIZES[device.kind]}
            _best[key] = min(n for n, rate in rates.items() if rate >= AS_GOOD * max(rates.values()))
        self.size = _best[key]
        super().__init__(make(self.size), device, clock, times=IN_A_TURN)
        self.call()

    def between(self, prepare: Call, call: Call, *, calls: int) -> Turns:
        """What to run before each of `calls` timed calls: `prepare`, and TURNS times the products."""
        return Turns(call, [self], prepare=prepare, every=max(FEWEST_BETWEEN, calls // TURNS))

    @property
    def flops_per_second(self) -> float:
        """Operations a second, from the median of the turns; takes one if there was none."""
        if not self.seconds:
            self.turn()
        return operations(self.size) / statistics.median(self.seconds)


def operations(n: int) -> int:
    """The floating-point operations of one product of n x n matrices."""
    return 2 * n**3


def dtype_of(policy: object) -> torch.dtype:
    """The floating-point type of most of a network's parameters; torch's default without any."""
    sizes: Counter[torch.dtype] = Counter()
    for parameter in policy.parameters() if isinstance(policy, torch.nn.Module) else ():
        if parameter.is_floating_point():
            sizes[parameter.dtype] += parameter.numel()
    return sizes.most_common(1)[0][0] if sizes else torch.get_default_dtype()


def _product(n: int, device: Device, dtype: torch.dtype) -> Call:
    generator = torch.Generator().manual_seed(n)
    left, right = (torch.randn(n, n, generator=generator).to(device.name, dtype) for _ in range(2))
    result = torch.empty_like(left)

    def multiply() -> None:
        with torch.no_grad():
            torch.mm(left, right, out=result)

    return multiply
