"""Whose turn it is, and what must run untimed so that nobody pays for what another left in the caches."""

import math
from collections.abc import Callable

import pytest

from il_bench.latency.device import device_for
from il_bench.latency.turns import COLD_BELOW, TimedBeside, Turns

CPU = device_for("cpu")


class Log:
    """A clock, and calls that move it and write their name down."""

    def __init__(self) -> None:
        self.now, self.names = 0.0, list[str]()

    def clock(self) -> float:
        return self.now

    def call(self, name: str, seconds: float = 0.001) -> Callable[[], None]:
        def call() -> None:
            self.names.append(name)
            self.now += seconds

        return call


def turns(log: Log, *, seconds: float = 0.001, times: int = 1, **options: float) -> Turns:
    others = [TimedBeside(log.call(name), CPU, log.clock, times=times) for name in ("theirs", "floor")]
    prepare = log.call("prepare", 100.0)
    return Turns(log.call("ours", seconds), others, prepare=prepare, **options)  # type: ignore[arg-type]


def test_each_call_runs_once_before_it_is_timed() -> None:
    log = Log()
    turns(log)()
    assert log.names == ["theirs", "theirs", "floor", "floor", "prepare", "ours", "prepare"]


def test_what_takes_long_needs_no_warming() -> None:
    log = Log()
    turns(log, cold_below=0.0)()
    assert log.names == ["theirs", "floor", "prepare"]
    log = Log()
    turns(log, seconds=2 * COLD_BELOW, cold_below=math.inf)()
    assert "ours" in log.names, "whatever it takes, where asked to"
    log = Log()
    both = turns(log, seconds=2 * COLD_BELOW, times=2)
    both()
    assert log.names == ["theirs"] * 2 + ["floor"] * 2 + ["prepare", "ours", "prepare"]
    both()
    assert log.names[-5:] == ["theirs"] * 2 + ["floor"] * 2 + ["prepare"]


def test_turns_come_every_so_many_rounds() -> None:
    log = Log()
    every = turns(log, every=3, cold_below=0.0)
    for _ in range(4):
        every()
    assert log.names == ["theirs", "floor", *["prepare"] * 3, "theirs", "floor", "prepare"]


def test_the_others_seconds_are_kept_without_what_runs_untimed() -> None:
    log = Log()
    other = TimedBeside(log.call("other", 0.5), CPU, log.clock)
    for _ in range(2):
        Turns(log.call("ours"), [other])()
    assert other.seconds == pytest.approx([0.5, 0.5])
