"""How fast the machine multiplies matrices, and how long a call would take if it did nothing else."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from il_bench.latency.device import Device

#: Rows of the square matrices that are tried, by kind of device: what fits a core's caches, or fills a GPU.
SIZES = {"cpu": (256, 512, 1024), "cuda": (2048, 4096, 8192), "mps": (1024, 2048, 4096)}
TRIALS = 5  # of each size, after one that warms up
AS_GOOD = 0.95  # of the best rate: a smaller size is taken that reaches it, for its turns are shorter
TURNS = 15  # of the best size at most, spread over the calls that are timed beside it
FEWEST_BETWEEN = 4  # calls between turns: their median is then one of calls that follow no product
IN_A_TURN = 3  # products
COLD_BELOW = 0.01  # s: what a longer call takes, no cache decides

Call = Callable[[], object]
Clock = Callable[[], float]  # seconds since whenever
_best: dict[tuple[Any, ...], int] = {}


@dataclass(frozen=True)
class Floor:
    """What a call's matrix products alone would take.

    `flops`: of the call, None where they could not be counted. `seconds`: at the machine's rate, None also
    where the call has no products. `flops_per_second`: that rate, None where it was
    not measured.
    """

    flops: int | None
    seconds: float | None = None
    flops_per_second: float | None = None


class MatrixProducts:
    """Products of two square matrices, timed in turns with a call on the same device, dtype and threads.

    Of the SIZES the one with the most operations a second is taken (the smallest that is AS_GOOD), found
    once in a process for each number of threads. Settings that change the arithmetic of products, such as
    TF32, are those of the process, as for the call. torch has another one for cuDNN's convolutions, which use
    TF32 by default where products do not: on such a GPU a floor of convolutions can be above the truth.

    Args:
        device: where to multiply.
        dtype: of the matrices.
        clock: seconds of wall time.
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
        self._device, self._clock = device, clock
        make = product or (lambda n: _product(n, device.name, dtype))
        key = (device.name, dtype, torch.get_num_threads(), product)
        if key not in _best:
            rates = {n: self._trial_rate(n, make(n)) for n in SIZES[device.kind]}
            _best[key] = min(n for n, rate in rates.items() if rate >= AS_GOOD * max(rates.values()))
        self.size = _best[key]
        self._multiply = make(self.size)
        self._multiply()
        self._seconds: list[float] = []

    def turn(self) -> None:
        """Time IN_A_TURN products."""
        self._seconds += [self._time(self._multiply) for _ in range(IN_A_TURN)]

    def between(self, prepare: Call, call: Call, *, calls: int) -> Call:
        """What to run before each of `calls` timed calls instead of `prepare`.

        Now and then it takes a turn, and after it makes one untimed call where calls are short: what products
        left in the caches is not the next call's doing. It ends with `prepare`.
        """
        every, place, is_short = max(FEWEST_BETWEEN, calls // TURNS), 0, True

        def ready() -> None:
            nonlocal place, is_short
            if place % every == 0:
                self.turn()
                if is_short:
                    prepare()
                    is_short = self._time(call) < COLD_BELOW
            place += 1
            prepare()

        return ready

    @property
    def flops_per_second(self) -> float:
        """Operations a second of the best size, by the median of its turns; takes one if there was none."""
        if not self._seconds:
            self.turn()
        return operations(self.size) / statistics.median(self._seconds)

    def floor(self, flops: int | None) -> Floor:
        """How long so many operations take at this rate."""
        rate = self.flops_per_second
        return Floor(flops, flops / rate if flops else None, rate)

    def _trial_rate(self, n: int, multiply: Call) -> float:
        multiply()
        return operations(n) / min(self._time(multiply) for _ in range(TRIALS))

    def _time(self, call: Call) -> float:
        self._device.synchronize()
        start = self._clock()
        call()
        self._device.synchronize()
        return self._clock() - start


def operations(n: int) -> int:
    """Floating-point operations of one product of n x n matrices."""
    return 2 * n**3


def dtype_of(policy: object) -> torch.dtype:
    """The floating-point type of most of a network's parameters; torch's default for what has none."""
    sizes: dict[torch.dtype, int] = {}
    parameters = policy.parameters() if isinstance(policy, torch.nn.Module) else ()
    for parameter in parameters:
        if parameter.is_floating_point():
            sizes[parameter.dtype] = sizes.get(parameter.dtype, 0) + parameter.numel()
    return max(sizes, key=lambda dtype: sizes[dtype], default=torch.get_default_dtype())


def _product(n: int, device: str, dtype: torch.dtype) -> Call:
    generator = torch.Generator().manual_seed(n)
    left, right = (torch.randn(n, n, generator=generator).to(device, dtype) for _ in range(2))
    result = torch.empty_like(left)

    def multiply() -> None:
        with torch.no_grad():
            torch.mm(left, right, out=result)

    return multiply
