"""A clock that moves only when told to, a device that works on after a call has returned, and others."""

import sys
from collections.abc import Callable
from typing import Any, override

import torch
from torch import nn
from torch.utils import _pytree

from il_bench.latency.calls import PolicyCall
from il_bench.latency.device import Device, Replay
from il_bench.latency.worker import PROTOCOL
from il_bench.pusht.batch import Camera


class FakeClock:
    """Seconds since its making. Processor time moves with it, but not while it waits."""

    def __init__(self) -> None:
        self.now = 0.0
        self.processor = 0.0

    def __call__(self) -> float:
        return self.now

    def work(self, seconds: float) -> None:
        """The host computes."""
        self.now += seconds
        self.processor += seconds


class FakeEvent:
    def __init__(self, device: "FakeDevice") -> None:
        self._device = device
        self.at: float | None = None

    def record(self) -> None:
        self.at = max(self._device.clock.now, self._device.busy_until)

    def elapsed_time(self, end: Any, /) -> float:
        assert self.at is not None and end.at is not None
        assert self._device.clock.now >= end.at, "asked before the device had passed the mark"
        return 1e3 * (end.at - self.at)


class FakeDevice(Device):
    """Work is put into a queue in `launch_s`, and done there one after the other, as on a GPU."""

    has_graphs = True

    def __init__(
        self, clock: FakeClock, name: str = "fake:0", *, launch_s: float = 1e-5, has_events: bool = True
    ) -> None:
        super().__init__(name)
        self.clock, self.busy_until, self.captured = clock, 0.0, 0
        self._launch_s, self._has_events = launch_s, has_events

    def launch(self, seconds: float) -> None:
        """Hand over work that takes the device so long; return at once."""
        self.clock.work(self._launch_s)
        self.busy_until = max(self.clock.now, self.busy_until) + seconds

    def call(self, seconds: float, *, host: float = 0.0) -> Callable[[], None]:
        """A call that takes so long in all, of it `host` seconds before the device begins."""

        def call() -> None:
            self.clock.work(host)
            self.launch(seconds - host - self._launch_s)

        return call

    @override
    def synchronize(self) -> None:
        self.clock.now = max(self.clock.now, self.busy_until)

    @override
    def event(self) -> FakeEvent | None:
        return FakeEvent(self) if self._has_events else None

    @override
    def capture(self, work: Any) -> tuple[object, Replay]:
        """Record by keeping the work; a replay writes into what the first run returned, as a graph does."""
        self.captured += 1
        result = work()

        def replay() -> None:
            for static, fresh in zip(_pytree.tree_leaves(result), _pytree.tree_leaves(work()), strict=True):
                if isinstance(static, torch.Tensor):
                    static.copy_(fresh)

        return result, replay


class PixelPolicy(nn.Module):
    """Sees the camera's image, as a project's own policy may, and stays where the agent is."""

    def __init__(self) -> None:
        super().__init__()
        self.camera = Camera("observation.image", width=24, height=24)
        self.eye = nn.Conv2d(3, 2, 24)

    def reset(self) -> None:
        pass

    def select_action(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        seen: torch.Tensor = self.eye(batch["observation.image"])  # (B, 2, 1, 1)
        return batch["observation.state"] + seen.flatten(1)


#: A worker without torch: its calls take as long as its policy's name says.
SCRIPT = f"""
import json, sys, time
def say(message): print(json.dumps(message), flush=True)
say({{"protocol": {PROTOCOL}, "il_bench": "0"}})
taking = 0.0
for line in sys.stdin:
    request = json.loads(line)
    if "load" in request:
        name = request["load"]["policy"]
        if name == "absent":
            say({{"error": "absent: no such policy. Give one of bc, act"}})
            continue
        if name == "stuck":
            time.sleep(600)
        taking = float(name)
        facts = {{"policy": name, "sha256": None, "sampler": None, "machine": {{}}, "versions": {{}}}}
        say({{"loaded": request["key"], "facts": facts}})
    else:
        say({{"seconds": [taking, 1.01 * taking]}})
"""


def script(text: str) -> tuple[str, ...]:
    """The command that runs some Python."""
    return (sys.executable, "-c", text)


def made(call: PolicyCall) -> Any:
    """Prepare a call and make it."""
    call.prepare()
    return call.call()
