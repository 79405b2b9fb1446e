"""Times several calls in turns, so that all see the same moments of the machine."""

from collections.abc import Callable, Sequence

from il_bench.latency.device import Device

COLD_BELOW = 0.01  # s; how long a longer call takes does not depend on cold caches

Call = Callable[[], object]
Clock = Callable[[], float]  # seconds since any moment


def seconds_of(call: Call, device: Device, clock: Clock) -> float:
    """How long a call takes until the device is done; the device's earlier work does not count."""
    device.synchronize()
    start = clock()
    call()
    device.synchronize()
    return clock() - start


class TimedBeside:
    """A call that is timed beside another one, `times` in a row at each turn; `seconds` holds all times."""

    def __init__(self, call: Call, device: Device, clock: Clock, *, times: int = 1) -> None:
        self.call, self.device, self.clock = call, device, clock
        self.seconds: list[float] = []
        self._times = times

    def turn(self, *, warm: bool = False) -> None:
        """Time the call, if `warm` after one that does not count; several in a row warm each other."""
        if warm and self._times == 1:
            self.call()
        self.seconds += [seconds_of(self.call, self.device, self.clock) for _ in range(self._times)]


class Turns:
    """Gives other calls their turns between the rounds of a main call, which somebody else times.

    Run it before each round. What one call leaves in the caches must not change another's time. So each call
    runs once untimed before it is timed, unless the main call takes too long for caches to matter.

    call: the main call. prepare: brings everything into its state before the call.
    every: rounds between turns. cold_below: seconds of `call` from which caches do not matter; 0 and inf say
        so beforehand.
    """

    def __init__(
        self,
        call: Call,
        others: Sequence[TimedBeside],
        *,
        prepare: Call = lambda: None,
        every: int = 1,
        cold_below: float = COLD_BELOW,
    ) -> None:
        self._call, self._others, self._prepare = call, others, prepare
        self._every, self._cold_below, self._round = every, cold_below, 0
        self._warm = cold_below > 0.0

    def __call__(self) -> None:
        """Let the others take their turn if it is time, then prepare the call."""
        if self._others and self._round % self._every == 0:
            for other in self._others:
                other.turn(warm=self._warm)
            if self._warm:
                self._prepare()
                beside = self._others[-1]
                self._warm = seconds_of(self._call, beside.device, beside.clock) < self._cold_below
        self._round += 1
        self._prepare()
