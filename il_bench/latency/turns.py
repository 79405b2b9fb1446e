"""Time several calls in turns, so that all of them see the same moments of the machine."""

from collections.abc import Callable, Sequence

from il_bench.latency.device import Device

COLD_BELOW = 0.01  # s: no cache decides how long a longer call takes

Call = Callable[[], object]
Clock = Callable[[], float]  # seconds since whenever


def seconds_of(call: Call, device: Device, clock: Clock) -> float:
    """How long a call takes, until the device is done; earlier work of the device is not counted."""
    device.synchronize()
    start = clock()
    call()
    device.synchronize()
    return clock() - start


class TimedBeside:
    """A call that is timed beside another one: `times` in a row at each turn. `seconds`: all of them."""

    def __init__(self, call: Call, device: Device, clock: Clock, *, times: int = 1) -> None:
        self.call, self.device, self.clock = call, device, clock
        self.seconds: list[float] = []
        self._times = times

    def turn(self, *, warm: bool = False) -> None:
        """Time it, where `warm` after one call that does not count; several in a row warm themselves."""
        if warm and self._times == 1:
            self.call()
        self.seconds += [seconds_of(self.call, self.device, self.clock) for _ in range(self._times)]


class Turns:
    """Runs before each round of a call that somebody else times; every so many rounds the others get a turn.

    What another call left in the caches must not count. So each call runs once untimed before its own
    measurement, until the main call turns out to take so long that no cache decides.

    Args:
        call: what somebody else times. prepare: brings everything into the state that it starts from.
        every: rounds between turns.
        cold_below: seconds from which on `call` takes long; 0 and inf where that is known beforehand.
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
