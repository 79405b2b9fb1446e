"""Ctrl-C and SIGTERM become a question."""

import os
import signal

import pytest

from il_bench.train.interrupts import asked_to_stop


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_an_answer_within_and_a_signal_again_afterwards(number: signal.Signals) -> None:
    before, also = signal.getsignal(number), []
    with asked_to_stop(lambda: also.append(number)) as asked:
        assert not asked()
        os.kill(os.getpid(), number)
        assert asked()
    assert (also, signal.getsignal(number)) == ([number], before)
