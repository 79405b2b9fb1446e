"""What a result depends on besides the policy: the machine, the versions, the arithmetic and the commit.

Names of people, hosts and folders stay out: reports are published.
"""

import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import il_bench
from il_bench.errors import IlBenchError
from il_bench.protocol import KEYPOINTS, MAX_STEPS, SIMULATOR, SUCCESS_COVERAGE, Scalar, block_size

_SYSTEM = f"{platform.system()} {platform.machine()}"
_PACKAGES = ("lerobot", "numpy", "scipy", "pymunk", "gymnasium", "gym-pusht", "diffusers", "pytest")
_GPU_FIELDS = ("gpu", "compute_capability", "driver", "cuda", "cudnn", "tf32", "cudnn_tf32", "autocast")
_SMI_FIELDS = ("driver_version", "clocks.sm", "clocks.mem", "clocks.max.sm", "temperature.gpu", "power.draw")
# One name since driver 535, the other before.
_SMI_REASONS = ("clocks_event_reasons.active", "clocks_throttle_reasons.active")


@dataclass(frozen=True)
class Numerics:
    """How a policy's networks compute: by default as they were saved, in torch's own operators.

    autocast: the type of their matrix products, such as ``bfloat16``. compiled: by torch.compile, with fixed
    shapes. Either makes other episodes.
    """

    autocast: str | None = None
    compiled: bool = False

    def conditions(self) -> dict[str, Scalar]:
        """What a fingerprint and a report say of it: nothing where it is as saved."""
        found: dict[str, Scalar] = {} if self.autocast is None else {"autocast": self.autocast}
        if self.compiled:
            found["compiled"] = (_run(*_compiler(), "--version") or "unknown").partition("\n")[0]
        return found

    def check(self, option: str) -> None:
        """Raise IlBenchError, which names the option, where torch.compile finds no C++ compiler."""
        if self.compiled and _run(*_compiler(), "--version") is None:
            raise IlBenchError(
                f"{option}: torch.compile needs a C++ compiler, and {_compiler()[0]} does not run here; "
                "install one, name yours in CXX, or leave the option out"
            )


AS_SAVED = Numerics()


def describe() -> dict[str, Any]:
    """The machine and the versions as a report shows them, plain JSON values.

    With a GPU there are all its fields of `fingerprint`; without one, `gpu` and `cuda` are None.
    """
    import torch

    commit, dirty = _commit(Path(__file__).parent.parent)
    return {
        "packages": _versions("il-bench", "torch", *_PACKAGES),
        "python": platform.python_version(),
        "system": _SYSTEM,
        "cpu": _cpu()["model name"],
        "cores": os.cpu_count(),
        **_kernels(),
        **(_gpu_and_arithmetic("cuda") if torch.cuda.is_available() else {"gpu": None, "cuda": None}),
        "threads": torch.get_num_threads(),
        "commit": commit,
        "dirty": dirty,
    }


def fingerprint(
    device: str = "cpu", track: str = KEYPOINTS, numerics: Numerics = AS_SAVED
) -> dict[str, Scalar]:
    """What changes episodes: EPISODE_FIELDS first, then what changes the arithmetic on `device`.

    track: gives the block size. Threads are left out: every rollout runs torch on one.
    """
    import torch

    kind, cpu = torch.device(device).type, _cpu()
    return {
        "task": "PushT",
        "simulator": SIMULATOR,
        "max_steps": MAX_STEPS,
        "success_coverage": SUCCESS_COVERAGE,
        "block_size": block_size(track),
        "il_bench": il_bench.__version__,
        **_versions("torch", "lerobot", "numpy", "pymunk", "diffusers"),  # no other package changes episodes
        "system": _SYSTEM,
        "libc": " ".join(platform.libc_ver()),
        # Libraries choose their kernels by maker and model as well, not by instruction set alone.
        "cpu": " ".join((cpu["vendor_id"], cpu["cpu family"], cpu["model"])),
        **_kernels(),
        "device": kind,
        **(_gpu_and_arithmetic(device) if kind == "cuda" else {}),
        **numerics.conditions(),
    }


def hardware() -> dict[str, Any]:
    """What decides how long a call takes, except versions: a slower new version is a slowdown."""
    return {
        "system": _SYSTEM,
        "cpu": _cpu()["model name"],
        "cores": os.cpu_count(),
        "instruction_set": _kernels()["instruction_set"],
        "usable_cores": usable_cores(),
    }


def versions() -> dict[str, str]:
    """Versions of what a call runs through, by name. They may differ between two runs that are compared."""
    return {
        "python": platform.python_version(),
        **_versions("il-bench", "torch", "lerobot", "diffusers"),
        "blas": _kernels()["blas"],
    }


def differences(then: Mapping[str, Any], now: Mapping[str, Any], *, within: str = "") -> list[str]:
    """One phrase for each field that is not equal, in the order of `now`; a missing field differs."""
    found = []
    for name in {**now, **then}:
        was, is_now = then.get(name), now.get(name)
        if isinstance(was, dict) and isinstance(is_now, dict):
            found += differences(was, is_now, within=f"{within}{name}.")
        elif was != is_now:
            found.append(f"{within}{name} was {was!r}, is {is_now!r}")
    return found


# ---- processor


def usable_cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_device_name(device: str, option: str = "--device") -> None:
    """Raise IlBenchError for what is no device of torch's, as a typo; this imports nothing."""
    if not re.fullmatch(r"(cpu|cuda|mps|xpu|hpu|mtia|xla)(:\d+)?", device):
        raise IlBenchError(f"{option}: unknown device {device!r}; use cpu, cuda, cuda:N or mps")


def check_device(device: str, option: str = "--device") -> None:
    """Raise IlBenchError unless torch can use ``device`` here; the CPU needs no check, and no torch."""
    if device == "cpu":
        return
    check_device_name(device, option)
    import torch

    try:
        index, module = torch.device(device).index or 0, torch.get_device_module(device)
    except RuntimeError:  # torch was built without it
        raise IlBenchError(f"{option}: this torch has no {device}; use cpu, cuda, cuda:N or mps") from None
    if not module.is_available() or index >= module.device_count():
        raise IlBenchError(f"{option}: torch finds no {device} here; leave it out to run on the CPU")


@contextmanager
def one_thread() -> Iterator[None]:
    """Run torch on one thread of the CPU: sums split over another number of threads round differently."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _compiler() -> list[str]:
    """The C++ compiler that torch.compile calls."""
    usual = {"darwin": "clang++", "win32": "cl"}.get(sys.platform, "g++")
    return shlex.split(os.environ.get("CXX", "")) or [usual]


def _cpu() -> dict[str, str]:
    """vendor_id, cpu family, model and model name of the first processor, as Linux calls them."""
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


def _kernels() -> dict[str, str]:
    import torch

    instruction_set = torch.backends.cpu.get_cpu_capability()
    return {"instruction_set": instruction_set, "blas": _blas(torch.__config__.show())}


def _blas(config: str) -> str:
    """'mkl 2024.2, oneDNN 3.10.2', say, from torch's build text."""
    kind = re.search(r"BLAS_INFO=(\w+)", config)
    version = re.search(r"Math Kernel Library Version ([\d.]+)", config)
    onednn = re.search(r"MKL-DNN v([\d.]+)", config)
    parts = [" ".join([kind[1] if kind else "unknown", *([version[1]] if version else [])])]
    return ", ".join(parts + ([f"oneDNN {onednn[1]}"] if onednn else []))


# ---- GPU


def gpu(index: int) -> dict[str, Any]:
    """What tells one CUDA device from another: hardware and versions."""
    import torch

    properties = torch.cuda.get_device_properties(index)
    return {
        "gpu": properties.name,
        "gpu_memory_mb": round(properties.total_memory / 1e6),
        "compute_capability": f"{properties.major}.{properties.minor}",
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "driver": nvidia_smi(index).get("driver_version"),
    }


def arithmetic(kind: str) -> dict[str, Any]:
    """Torch's settings that trade exactness for speed on devices of this kind."""
    import torch

    is_cuda = kind == "cuda"
    return {
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
        "tf32": torch.backends.cuda.matmul.allow_tf32 if is_cuda else None,
        "cudnn_tf32": torch.backends.cudnn.allow_tf32 if is_cuda else None,
        "autocast": str(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else None,
    }


def nvidia_smi(index: int) -> dict[str, str]:
    """What nvidia-smi says of a GPU, by field; empty if nvidia-smi is missing or fails."""
    import torch

    uuid = getattr(torch.cuda.get_device_properties(index), "uuid", None)
    which = str(index) if uuid is None else f"GPU-{uuid}"
    for reasons in _SMI_REASONS:
        query = f"--query-gpu={','.join((*_SMI_FIELDS, reasons))}"
        text = _run("nvidia-smi", "-i", which, "--format=csv,noheader,nounits", query)
        if text is not None:
            return parse_smi(text)
    return {}


def parse_smi(text: str) -> dict[str, str]:
    """The one line of nvidia-smi's CSV, by field, without those that the GPU does not report (`[N/A]`)."""
    values = [value.strip() for value in text.split(",")]
    pairs = zip((*_SMI_FIELDS, "reasons"), values, strict=False)
    return {name: value for name, value in pairs if value and not value.startswith("[")}


def _gpu_and_arithmetic(device: str) -> dict[str, Any]:
    import torch

    found = gpu(torch.device(device).index or 0) | arithmetic("cuda")
    return {name: found[name] for name in _GPU_FIELDS}


# ---- versions and commit


def _versions(*packages: str) -> dict[str, str]:
    """Versions of the installed ones among these; il_bench and torch state their own."""
    import torch

    own = {"il-bench": il_bench.__version__, "torch": str(torch.__version__)}
    found = {}
    for name in packages:
        with suppress(metadata.PackageNotFoundError):
            found[name] = own.get(name) or metadata.version(name)
    return found


def unmet_requirements() -> list[str]:
    """Phrases for what il_bench requires and finds in another version or not at all; extras are left out."""
    from packaging.requirements import Requirement  # pytest requires it

    found = []
    for requirement in map(Requirement, metadata.requires("il-bench") or ()):
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            found.append(f"{requirement.name} is not installed; il_bench needs {requirement}")
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            found.append(f"{requirement.name} is {version}; il_bench needs {requirement}")
    return found


def _commit(root: Path) -> tuple[str | None, bool | None]:
    """The commit checked out at root and whether tracked files differ from it; None twice elsewhere."""
    if not (root / ".git").exists():
        return None, None
    head = _run("git", "-C", str(root), "rev-parse", "HEAD")
    changes = _run("git", "-C", str(root), "status", "--porcelain", "--untracked-files=no")
    # None without git, before the first commit, and in another user's checkout.
    return (None, None) if head is None or changes is None else (head, bool(changes))


def _run(*command: str) -> str | None:
    """What a command prints; None if it is missing or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
