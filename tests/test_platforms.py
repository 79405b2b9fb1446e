"""il_bench imports where Python lacks what only Unix or only Linux has."""

import subprocess
import sys
from pathlib import Path

import pytest

import il_bench

PACKAGE = Path(il_bench.__file__).parent
#: Imports every module. What is hidden is hidden from il_bench alone: its libraries may do without, or not.
PROGRAM = """
import builtins, ctypes, importlib, os, sys
import lerobot.policies, lerobot.datasets.lerobot_dataset, gymnasium, matplotlib.pyplot, pytest, scipy.stats

MISSING = {"resource", "fcntl", "pwd", "grp", "termios", "pty"}
real_import, RealCDLL = builtins.__import__, ctypes.CDLL


def asked_by_il_bench(frame):
    return frame.f_globals["__name__"].partition(".")[0] == "il_bench"


def import_without(name, *arguments, **keywords):
    if name in MISSING and asked_by_il_bench(sys._getframe(1)):
        raise ModuleNotFoundError(f"No module named {name!r}")
    return real_import(name, *arguments, **keywords)


class WindowsCDLL(RealCDLL):
    def __init__(self, name, *arguments, **keywords):
        if name is None and asked_by_il_bench(sys._getframe(1)):
            raise TypeError("bad argument type for built-in operation")
        super().__init__(name, *arguments, **keywords)


builtins.__import__, ctypes.CDLL = import_without, WindowsCDLL
for name in ("sched_getaffinity", "sched_setaffinity", "fork"):
    delattr(os, name)
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
    except Exception as error:
        print(f"{name}: {type(error).__name__}: {error}")
from il_bench.machine import usable_cores
from il_bench.tokenizers import residual_tables
assert usable_cores() >= 1 and residual_tables._memcmp is None
"""


@pytest.mark.slow
def test_every_module_imports_without_what_only_unix_has() -> None:
    paths = (path.relative_to(PACKAGE.parent).with_suffix("") for path in sorted(PACKAGE.rglob("*.py")))
    modules = [".".join(path.parts).removesuffix(".__init__") for path in paths]
    assert "il_bench.tokenizers.residual_tables" in modules
    command = [sys.executable, "-W", "ignore", "-c", PROGRAM, *modules]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
