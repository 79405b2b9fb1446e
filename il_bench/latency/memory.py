"""What a call holds of memory, and what the whole process does."""

import resource
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from il_bench.latency.device import inference_on_one_thread


def peak_memory_mb(call: Callable[[], object], device: str) -> float | None:
    """The most that one call holds beyond what was there before, its result included; None where unknown."""
    kind = torch.device(device).type
    if kind == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        return (torch.cuda.max_memory_allocated(device) - before) / 1e6
    if kind != "cpu":
        return None
    with inference_on_one_thread(), _profile() as profiled:
        call()
    held = most = 0
    for event in profiled.profiler.kineto_results.events():
        if event.name() == "[memory]":  # one each time torch takes memory, or gives it back
            held += event.nbytes()
            most = max(most, held)
    return most / 1e6


def resident_peak_mb() -> float:
    """The most memory of the host that this process has had at once since it began, MB: all of it.

    With a GPU the host's share only.
    """
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, bytes there
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024 / 1e6


def _profile() -> profile:
    # acc_events: without it torch warns that it forgets the events of earlier cycles; there are none.
    return profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True)
