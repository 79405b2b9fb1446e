"""The devices that calls run on: how to wait for one, its memory, its state."""

import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import Any, override

import torch
from torch.profiler import ProfilerActivity, profile

from il_bench.errors import IlBenchError
from il_bench.machine import arithmetic, gpu, nvidia_smi, one_thread

#: Bits of NVML's clocks-event reasons that mean a GPU runs slower than it could (nvml.h).
SLOWED_BY = {
    0x004: "software power cap",
    0x008: "hardware slowdown",
    0x020: "software thermal slowdown",
    0x040: "hardware thermal slowdown",
    0x080: "hardware power brake",
}
#: Fields of `CudaDevice.state`, and nvidia-smi's names of them.
NUMBERS = {
    "clock_mhz": "clocks.sm",
    "max_clock_mhz": "clocks.max.sm",
    "memory_clock_mhz": "clocks.mem",
    "temperature_c": "temperature.gpu",
    "power_w": "power.draw",
}
Values = dict[str, Any]
Replay = Callable[[], object]


class Device(ABC):
    """Where calls run. `name`: torch's, such as ``cuda:0``."""

    has_graphs = False  # whether `capture` works

    def __init__(self, name: str) -> None:
        self.name = name

    @property
    def kind(self) -> str:
        """``cpu``, ``cuda`` or ``mps``."""
        return self.name.partition(":")[0]

    @abstractmethod
    def synchronize(self) -> None:
        """Wait until the device has done all its work."""

    def event(self) -> Any:
        """A mark for the device's queue, like `torch.cuda.Event`; None if the device has no clock."""
        return None

    def waited_for(self, call: Callable[[], object]) -> Callable[[], object]:
        """A call that also waits until the device is done."""

        def wait() -> None:
            call()
            self.synchronize()

        return wait

    def call_memory_mb(self, call: Callable[[], object]) -> float | None:
        """The most memory that one call adds, its result included, in MB (10^6 bytes); None if unknown."""
        return None

    def reset_peak_memory(self) -> None:  # noqa: B027  (there may be nothing to do)
        """Restart `peak_memory_mb`."""

    def peak_memory_mb(self) -> float | None:
        """The most memory in use at once since the reset, weights included, in MB; None if unknown."""
        return None

    def identity(self) -> Values:
        """What must be equal for times to be comparable: hardware, driver, arithmetic settings, threads."""
        return {"device": self.kind, "threads": torch.get_num_threads(), **arithmetic(self.kind)}

    def state(self) -> Values:
        """What changes while calls run: clocks, throttling, load. It takes some ms: never ask in a timing."""
        return {"load": round(os.getloadavg()[0], 2)} if hasattr(os, "getloadavg") else {}

    def capture(self, work: Callable[[], object]) -> tuple[object, Replay]:
        """Record `work`; return its result, and a call that does it again in the same memory.

        Raises IlBenchError if `work` does something that cannot be recorded.
        """
        raise NotImplementedError(self.name)


class CpuDevice(Device):
    """The processor: calls return when they are done."""

    @override
    def synchronize(self) -> None:
        pass

    @override
    def waited_for(self, call: Callable[[], object]) -> Callable[[], object]:
        return call

    @override
    def call_memory_mb(self, call: Callable[[], object]) -> float | None:
        # Without acc_events torch warns that it forgets the events of earlier cycles; there are none.
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as profiled:
            call()
        events = profiled.profiler.kineto_results.events()
        # An event for each time that torch takes memory or gives it back.
        changes: Iterator[int] = (event.nbytes() for event in events if event.name() == "[memory]")
        return max(accumulate(changes, initial=0)) / 1e6


class MpsDevice(Device):
    """An Apple GPU."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._peak = 0

    @override
    def synchronize(self) -> None:
        torch.mps.synchronize()

    @override
    def reset_peak_memory(self) -> None:
        self._peak = torch.mps.current_allocated_memory()

    @override
    def peak_memory_mb(self) -> float | None:
        """The memory in use now or at the reset, whichever is more: MPS records no peak."""
        self._peak = max(self._peak, torch.mps.current_allocated_memory())
        return self._peak / 1e6


class CudaDevice(Device):
    """An NVIDIA GPU: calls return before their work is done."""

    has_graphs = True

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._index = torch.device(name).index or 0

    @override
    def synchronize(self) -> None:
        torch.cuda.synchronize(self._index)

    @override
    def event(self) -> Any:
        return torch.cuda.Event(enable_timing=True)

    @override
    def call_memory_mb(self, call: Callable[[], object]) -> float | None:
        self.reset_peak_memory()
        before = torch.cuda.memory_allocated(self._index)
        call()
        return (torch.cuda.max_memory_allocated(self._index) - before) / 1e6

    @override
    def reset_peak_memory(self) -> None:
        torch.cuda.reset_peak_memory_stats(self._index)

    @override
    def peak_memory_mb(self) -> float | None:
        return torch.cuda.max_memory_allocated(self._index) / 1e6

    @override
    def identity(self) -> Values:
        return super().identity() | gpu(self._index)

    @override
    def state(self) -> Values:
        found = nvidia_smi(self._index)
        numbers: Values = {}
        for name, field in NUMBERS.items():
            try:
                numbers[name] = float(found[field])
            except (KeyError, ValueError):  # not told
                numbers[name] = None
        reasons = found.get("reasons")
        slowed = None if reasons is None else slowed_by(int(reasons, 16))
        return {**super().state(), **numbers, "slowed_by": slowed}

    @override
    def capture(self, work: Callable[[], object]) -> tuple[object, Replay]:
        graph = torch.cuda.CUDAGraph()
        beside = torch.cuda.Stream(self._index)
        beside.wait_stream(torch.cuda.current_stream(self._index))
        try:
            with torch.cuda.stream(beside):  # in their first calls libraries set themselves up
                for _ in range(3):
                    work()
            torch.cuda.current_stream(self._index).wait_stream(beside)
            with torch.cuda.graph(graph):
                result = work()
        except RuntimeError as error:
            first = str(error).strip().partition("\n")[0]
            raise IlBenchError(
                f"cuda graph: a network of this policy cannot be captured ({first}); use another mode"
            ) from None
        return result, graph.replay


def device_for(name: str) -> Device:
    """The device that torch calls `name`; an IlBenchError if there is none."""
    try:
        kind = torch.device(name).type
    except RuntimeError:
        kind = ""
    makers: dict[str, type[Device]] = {"cpu": CpuDevice, "cuda": CudaDevice, "mps": MpsDevice}
    if kind not in makers:
        raise IlBenchError(f"device: unknown device {name!r}; use cpu, cuda, cuda:N or mps")
    return makers[kind](name)


def process_memory_mb() -> float | None:
    """The peak memory of this process on the host, in MB; None if the system does not record it."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    except OSError:  # not Linux
        try:
            import resource
        except ImportError:  # Windows
            return None
        unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes on a Mac
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024 / 1e6


def slowed_by(reasons: int) -> str:
    """What slows a GPU down, in words, from NVML's bits; ``nothing`` without any."""
    return ", ".join(word for bit, word in SLOWED_BY.items() if reasons & bit) or "nothing"


@contextmanager
def inference_on_one_thread() -> Iterator[None]:
    """Run torch on one thread, and without gradients."""
    with one_thread(), torch.inference_mode():
        yield
