"""What must be equal for times of two runs to be compared, and what the run was made with."""

import os
from typing import Any

from il_bench import environment
from il_bench.latency.device import Device

#: Of `environment.describe`: the hardware and the system. Versions are not among them: a slowdown by a new
#: version is one.
_MACHINE = ("system", "cpu", "cores", "instruction_set")


def fingerprint(device: Device) -> dict[str, Any]:
    """The machine as far as it decides how long a call takes on `device`: plain JSON values by field."""
    found = environment.describe()
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {**{name: found[name] for name in _MACHINE}, "usable_cores": usable, **device.identity()}


def versions() -> dict[str, str]:
    """Versions of what a call runs through, by name; the two sides of a comparison may differ in them."""
    found = environment.describe()
    names = ("il-bench", "torch", "lerobot", "diffusers")
    kept = {name: str(found["packages"][name]) for name in names if name in found["packages"]}
    return {"python": str(found["python"]), **kept, "blas": str(found["blas"])}


def differences(then: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """One phrase for each field that is not equal, in the order of `now`; a missing field differs."""
    names = [*now, *(name for name in then if name not in now)]
    return [
        f"{name} was {then.get(name)!r}, is {now.get(name)!r}"
        for name in names
        if then.get(name) != now.get(name)
    ]
