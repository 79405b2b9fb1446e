"""How worker processes start: forked from one that has imported what they need, or spawned.

A spawned worker imports torch and LeRobot anew, which takes a core some five seconds. On Linux, Python's own
fork server does it once a run. It has imported libraries, and done nothing else: it ran no policy, no code of
a user's and nothing on a GPU. So each worker begins as fresh as a spawned one.

Elsewhere workers are spawned: macOS has libraries that do not survive a fork, and Windows has no fork.

The server imports this module first, which lets it import the rest. Nothing in here may fail there, or no
worker would start. A worker imports by itself whatever is missing.
"""

import gc
import importlib
import json
import os
import signal
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import forkserver, get_all_start_methods, get_context
from multiprocessing.context import ForkServerContext, SpawnContext

import il_bench
from il_bench import lerobot_imports

#: The main modules of commands: every worker imports that of its command.
_COMMANDS = ("il_bench.cli", "_pytest.config")
#: What rollouts need. Nothing in it starts a thread, which a fork would leave behind; pyarrow does.
_NEEDED = (
    *("il_bench.rollout.blocks", "il_bench.policies.checkpoint"),
    *("lerobot.policies.act.modeling_act", "lerobot.policies.diffusion.modeling_diffusion"),
)
#: Holds, in the server, what it is to import, and as whom.
ORDERS = "IL_BENCH_PRELOAD"

Context = ForkServerContext | SpawnContext


def context() -> Context:
    """Where a worker process is to come from. The server has imported what this process has."""
    if not _can_fork():
        return get_context("spawn")
    _start(name for name in (*_COMMANDS, *_NEEDED) if name in sys.modules)
    return get_context("forkserver")


def import_ahead() -> None:
    """Start the server, and let it import what a policy needs while this process does the same."""
    if _can_fork():
        _start((*(name for name in _COMMANDS if name in sys.modules), *_NEEDED))


def _can_fork() -> bool:
    return sys.platform == "linux" and "forkserver" in get_all_start_methods()


def _start(modules: Iterable[str]) -> None:
    """Start the server unless it runs. One that a project has started imports what the project wants."""
    forkserver.set_forkserver_preload([__name__])
    with _ordered([*modules]):
        forkserver.ensure_running()


@contextmanager
def _ordered(modules: list[str]) -> Iterator[None]:
    """Put into the environment what the server needs to import as this process would."""
    path = [os.getcwd() if entry == "" else entry for entry in sys.path]
    orders = {"il_bench": il_bench.__file__, "path": path, "modules": modules}
    # Safe path: nothing is imported from the current folder before the server knows our sys.path.
    new = {ORDERS: json.dumps(orders), "PYTHONSAFEPATH": "1"}
    before = {name: os.environ.get(name) for name in new}
    os.environ.update(new)
    try:
        yield
    finally:
        for name, value in before.items():
            del os.environ[name]
            if value is not None:
                os.environ[name] = value


def _preload(orders: str) -> None:
    """In the server, import what was ordered, under its process's sys.path, if il_bench is the same."""
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


if ORDERS in os.environ:
    _preload(os.environ[ORDERS])
