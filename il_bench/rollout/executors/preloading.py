"""What the fork server (see `starting`), and nobody else, imports first: this lets it import the rest.

Nothing in here may fail, or no worker would start. A worker imports by itself whatever is missing.
"""

import gc
import importlib
import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import il_bench
from il_bench import lerobot_imports


def preload(orders: str) -> None:
    """Import the modules that `starting` ordered, under its process's sys.path, if il_bench is the same."""
    ordered = json.loads(orders)
    sys.path[:] = ordered["path"]
    if il_bench.__file__ != ordered["il_bench"]:  # a checkout beside an installed one
        for name in [name for name in sys.modules if name.partition(".")[0] == "il_bench"]:
            del sys.modules[name]
        return
    lerobot_imports.defer()
    interrupted = signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the other process's to handle
    with _cuda_asleep():
        for name in ordered["modules"]:
            with suppress(Exception):
                importlib.import_module(name)
    signal.signal(signal.SIGINT, interrupted)
    gc.freeze()  # workers share this memory until somebody writes into it


@contextmanager
def _cuda_asleep() -> Iterator[None]:
    """Let libraries ask for GPUs, as diffusers does, without waking CUDA up: then no worker could use it."""
    import torch

    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"  # the driver is asked
    asks_cuda = getattr(torch._C, "_cuda_getDeviceCount", None)  # where the driver cannot say
    if asks_cuda is not None:
        vars(torch._C)["_cuda_getDeviceCount"] = lambda: 0
    yield
    if asks_cuda is not None:
        vars(torch._C)["_cuda_getDeviceCount"] = asks_cuda


if "IL_BENCH_PRELOAD" in os.environ:
    preload(os.environ["IL_BENCH_PRELOAD"])
