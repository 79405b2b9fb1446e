"""How fast the machine multiplies matrices, and how long a call would take if it did nothing else."""

import statistics
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch

from il_bench.latency.device import Device
from il_bench.latency.turns import Call, Clock, TimedBeside, Turns, seconds_of

#: Rows of the square matrices that are tried, by kind of device: what fits a core's caches, or fills a GPU.
SIZES = {"cpu": (256, 512, 1024), "cuda": (2048, 4096, 8192), "mps": (1024, 2048, 4096)}
TRIALS = 5  # of each size, after one that warms up
AS_GOOD = 0.95  # of the best rate: a smaller size that reaches it is taken, for its turns are shorter
TURNS = 15  # at most, spread over the calls that are timed beside the products
FEWEST_BETWEEN = 4  # calls between turns: most of them then follow no product, and so does their median
IN_A_TURN = 3  # products

_best: dict[tuple[Any, ...], int] = {}


class MatrixProducts(TimedBeside):
    """Products of two square matrices, timed in turns with a call on the same device, dtype and threads.

    Of the SIZES it takes the smallest that is AS_GOOD as the fastest, found once in a process for each number
    of threads. The process's settings, such as TF32, are the call's too. But cuDNN's convolutions have their
    own and use TF32 by default: on such a GPU a floor of convolutions can be too high.

    Args:
        clock: seconds since whenever.
        product: makes the call that multiplies two n x n matrices; default torch's.
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
        """What to run before each of `calls` timed calls instead of `prepare`: TURNS turns, and `prepare`."""
        return Turns(call, [self], prepare=prepare, every=max(FEWEST_BETWEEN, calls // TURNS))

    @property
    def flops_per_second(self) -> float:
        """Operations a second, by the median of its turns; takes one if there was none."""
        if not self.seconds:
            self.turn()
        return operations(self.size) / statistics.median(self.seconds)


def operations(n: int) -> int:
    """Floating-point operations of one product of n x n matrices."""
    return 2 * n**3


def dtype_of(policy: object) -> torch.dtype:
    """The floating-point type of most of a network's parameters; torch's default for what has none."""
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
