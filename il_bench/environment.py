"""What a result depends on beside the policy: versions, processor, arithmetic, commit.

Names of people, hosts and folders stay out: reports are published.
"""

import os
import platform
import re
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import il_bench

#: The dynamics that the simulator repeats to the bit.
SIMULATOR = "gym-pusht 0.1.8"
#: Fields of a fingerprint that say which task the episodes are of. The others say whose arithmetic ran it.
EPISODE_FIELDS = ("task", "simulator", "max_steps", "success_coverage", "block_size")

_PACKAGES = (
    "torch",
    "lerobot",
    "numpy",
    "scipy",
    "pymunk",
    "gymnasium",
    "gym-pusht",
    "diffusers",
    "pytest",
)
_GPU_FIELDS = ("gpu", "compute_capability", "driver", "cuda", "cudnn", "tf32", "cudnn_tf32", "autocast")
# Their arithmetic is part of an episode; the others only watch.
_PACKAGES_IN_EPISODES = ("lerobot", "numpy", "pymunk", "diffusers")


def describe() -> dict[str, Any]:
    """Return what a reader of a report wants to know of the machine and the versions, as plain JSON values.

    Keys: packages, python, system, cpu, cores, instruction_set, blas, gpu (None without one), cuda, threads,
    commit (None outside a checkout), dirty; with a GPU also what `gpu` returns of it.
    """
    import torch

    commit, dirty = _commit(Path(__file__).parent.parent)
    has_gpu = torch.cuda.is_available()
    return {
        "packages": {
            "il-bench": il_bench.__version__,
            **_versions(_PACKAGES),
            "torch": str(torch.__version__),
        },
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu()["model name"],
        "cores": os.cpu_count(),
        "instruction_set": torch.backends.cpu.get_cpu_capability(),
        "blas": _blas(torch.__config__.show()),
        **(gpu("cuda") if has_gpu else {"gpu": None, "cuda": None}),
        "threads": torch.get_num_threads(),
        "commit": commit,
        "dirty": dirty,
    }


def fingerprint(device: str = "cpu") -> dict[str, str | int | float | bool | None]:
    """Return what changes episodes: EPISODE_FIELDS first, then what changes the arithmetic on `device`.

    Threads are not in it, because every rollout runs torch on one.
    """
    import torch

    from il_bench.pusht.simulator import MAX_STEPS, SUCCESS_COVERAGE
    from il_bench.rollout import BLOCK_SIZE

    kind = torch.device(device).type
    cpu = _cpu()
    found: dict[str, str | int | float | bool | None] = {
        "task": "PushT",
        "simulator": SIMULATOR,
        "max_steps": MAX_STEPS,
        "success_coverage": SUCCESS_COVERAGE,
        "block_size": BLOCK_SIZE,
        "il_bench": il_bench.__version__,
        "torch": str(torch.__version__),
        **_versions(_PACKAGES_IN_EPISODES),
        "system": f"{platform.system()} {platform.machine()}",
        "libc": " ".join(platform.libc_ver()),
        # Libraries choose their kernels by maker and model as well, not by instruction set alone.
        "cpu": " ".join((cpu["vendor_id"], cpu["cpu family"], cpu["model"])),
        "instruction_set": torch.backends.cpu.get_cpu_capability(),
        "blas": _blas(torch.__config__.show()),
        "device": kind,
    }
    if kind == "cuda":
        found |= gpu(device)
    return found


def gpu(device: str) -> dict[str, str | int | float | bool | None]:
    """Return what tells one CUDA device from another: name, driver, versions, arithmetic."""
    from il_bench.latency.device import device_for

    found = device_for(device).identity()
    return {name: found[name] for name in _GPU_FIELDS}


def _versions(packages: tuple[str, ...]) -> dict[str, str]:
    """Return the versions of those that are installed."""
    found = {}
    for name in packages:
        try:
            found[name] = metadata.distribution(name).version
        except metadata.PackageNotFoundError:
            continue
    return found


def _cpu() -> dict[str, str]:
    """Return vendor_id, cpu family, model and model name of the first processor, as Linux calls them."""
    other = platform.processor() or platform.machine()
    found = {"vendor_id": other, "cpu family": "", "model": "", "model name": other}
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:  # not Linux
        return found
    for line in text.split("\n\n")[0].splitlines():
        name, _, value = line.partition(":")
        if name.strip() in found:
            found[name.strip()] = value.strip()
    return found


def _blas(config: str) -> str:
    """Return for example 'mkl 2024.2, oneDNN 3.10.2' from torch's build text."""
    kind = re.search(r"BLAS_INFO=(\w+)", config)
    version = re.search(r"Math Kernel Library Version ([\d.]+)", config)
    onednn = re.search(r"MKL-DNN v([\d.]+)", config)
    parts = [" ".join([kind[1] if kind else "unknown", *([version[1]] if version else [])])]
    return ", ".join(parts + ([f"oneDNN {onednn[1]}"] if onednn else []))


def _commit(root: Path) -> tuple[str | None, bool | None]:
    """Return the commit checked out at root and whether tracked files differ from it, or None twice."""
    if not (root / ".git").exists():
        return None, None
    try:
        head = _git(root, "rev-parse", "HEAD")
        return head, bool(_git(root, "status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.SubprocessError):  # no git, no commit yet, or somebody else's checkout
        return None, None


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True, timeout=10
    )
    return done.stdout.strip()
