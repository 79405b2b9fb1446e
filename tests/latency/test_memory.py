import resource
import sys

import pytest
import torch

from il_bench.latency.memory import peak_memory_mb, resident_peak_mb


def test_peak_memory_is_what_a_call_holds_at_once() -> None:
    kept = torch.ones(1000, 1000)  # 4 MB that were there before

    def call() -> object:
        one = torch.ones(1000, 1000)
        two = one + kept
        del one
        return two + 1  # two arrays at once, never three

    assert peak_memory_mb(call, "cpu") == pytest.approx(8.0, rel=0.01)


def test_the_processes_peak_is_what_the_system_counts() -> None:
    unit = 1 if sys.platform == "darwin" else 1024
    counted = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
    assert resident_peak_mb() == pytest.approx(counted, rel=0.05)
