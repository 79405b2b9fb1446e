"""What a policy finds when it runs, and must not leave changed for the next one: random numbers and settings.

Torch, numpy and `random` are seeded for every block and put back, as LeRobot seeds all three. Settings of the
whole process, such as torch's default dtype, hold until a policy's rollout ends and are put back then.
"""

import os
import random
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import torch

from il_bench.errors import printable
from il_bench.machine import one_thread


def seed_all(seed: int) -> None:
    """Seed the global generators of torch (on every device), numpy and `random`."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the global generators, and put them back at the end."""
    of_numpy, of_python = np.random.get_state(), random.getstate()
    of_mps = torch.mps.get_rng_state() if torch.backends.mps.is_available() else None
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        seed_all(seed)
        try:
            yield
        finally:
            if of_mps is not None:
                torch.mps.set_rng_state(of_mps)
            np.random.set_state(of_numpy)
            random.setstate(of_python)


@contextmanager
def of_block(seed: int, who: str) -> Iterator[None]:
    """Run a block: everything random seeded with `seed`, torch on one thread. `who` changes that is told."""
    with one_thread(), seeded(seed):
        yield
        n_threads = torch.get_num_threads()
    if n_threads != 1:
        _tell(who, {"torch's number of threads": (1, n_threads)})


@contextmanager
def undisturbed(who: str) -> Iterator[dict[str, Any]]:
    """Put back the settings of the process that change in this context; a warning names them, and `who`.

    Its value is a dictionary that holds, afterwards, what they were changed to; see `holding`.
    """
    before, found = settings(), dict[str, Any]()
    changed: dict[str, tuple[Any, Any]] = {}
    try:
        yield found
    finally:
        changed = put_back(before)
        found |= {name: after for name, (_, after) in changed.items()}
    if changed:
        _tell(who, changed)


@contextmanager
def holding(changed: dict[str, Any]) -> Iterator[None]:
    """Let these settings hold in this context."""
    before = settings()
    for name, value in changed.items():
        _SETTINGS[name][1](value)
    try:
        yield
    finally:
        put_back(before)


def settings() -> dict[str, Any]:
    """The settings of the process that a policy could change, by what people call them."""
    return {name: get() for name, (get, _) in _SETTINGS.items()}


def put_back(before: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Make the settings those of `before`; return what each that differed had to be, and what it was."""
    changed = {}
    for name, (get, put) in _SETTINGS.items():
        if (now := get()) != before[name]:
            put(before[name])
            changed[name] = before[name], now
    return changed


def _tell(who: str, changed: dict[str, tuple[Any, Any]]) -> None:
    words = []
    for name, (before, after) in changed.items():
        if isinstance(before, dict):  # their values may be secrets
            differing = sorted(key for key in {*before, *after} if before.get(key) != after.get(key))
            words.append(f"{name} {', '.join(differing)}")
        else:
            words.append(f"{name} ({before} -> {after})")
    text = f"{who} changed {', '.join(words)}; put back, so that other policies are not disturbed"
    warnings.warn(printable(text), stacklevel=3)


def _folder() -> str:
    try:
        return os.getcwd()
    except OSError:  # it was removed
        return ""


def _go_to(folder: str) -> None:
    with suppress(OSError):
        os.chdir(folder)


def _device() -> torch.device:
    return torch.empty(0).device  # torch.get_default_device fails in older versions once a device was set


def _set_device(device: torch.device) -> None:
    torch.set_default_device(None)  # the CPU
    if device != _device():
        torch.set_default_device(device)


def _set_environment(variables: dict[str, str]) -> None:
    for name in {*os.environ} - {*variables}:
        del os.environ[name]
    os.environ.update(variables)


def _cudnn() -> tuple[bool, bool, bool]:
    cudnn = torch.backends.cudnn
    return cudnn.enabled, cudnn.benchmark, cudnn.deterministic


def _set_cudnn(flags: tuple[bool, bool, bool]) -> None:
    cudnn = torch.backends.cudnn
    cudnn.enabled, cudnn.benchmark, cudnn.deterministic = flags


def _set_autocast(enabled: dict[str, bool]) -> None:
    for kind, value in enabled.items():
        torch.set_autocast_enabled(kind, value)


#: How to read and to set each, by its name.
_SETTINGS: dict[str, tuple[Callable[[], Any], Callable[[Any], object]]] = {
    "torch's default dtype": (torch.get_default_dtype, torch.set_default_dtype),
    "torch's default device": (_device, _set_device),
    "torch's number of threads": (torch.get_num_threads, torch.set_num_threads),
    "torch's gradient mode": (torch.is_grad_enabled, torch.set_grad_enabled),
    "torch's autocast on": (
        lambda: {kind: torch.is_autocast_enabled(kind) for kind in ("cpu", "cuda")},
        _set_autocast,
    ),
    "torch's deterministic algorithms": (
        lambda: (
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
        ),
        lambda flags: torch.use_deterministic_algorithms(flags[0], warn_only=flags[1]),
    ),
    "torch's precision of float32 products": (
        torch.get_float32_matmul_precision,
        torch.set_float32_matmul_precision,
    ),
    "cuDNN's flags (enabled, benchmark, deterministic)": (_cudnn, _set_cudnn),
    "numpy's floating-point errors": (np.geterr, lambda kinds: np.seterr(**kinds)),
    "the working directory": (_folder, _go_to),
    "the environment variables": (lambda: dict(os.environ), _set_environment),
}
