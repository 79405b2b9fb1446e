"""Where workers come from. The server imports LeRobot, which takes seconds: one process for all of these."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from il_bench.rollout.executors import Job, starting
from il_bench.rollout.executors.processes import ProcessExecutor

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="workers are spawned there")


def changed_later() -> str:
    return os.environ["CHANGED_LATER"]


def facts(changed: str, task: int) -> dict[str, Any]:
    """What a worker finds that has imported nothing itself."""
    import torch

    server = Path(f"/proc/{os.getppid()}")
    imported = "il_bench.policies.checkpoint" in sys.modules
    networks = "lerobot.policies.fastwam.modeling_fastwam" in sys.modules
    from lerobot.policies.factory import get_policy_class

    sys.modules["left by a worker"] = sys
    return {
        "imported": imported,
        "networks": networks,
        "later": get_policy_class("fastwam").__name__,
        "threads": len(list((server / "task").iterdir())),
        "cuda": torch.cuda.is_initialized() or torch.cuda._is_in_bad_fork(),
        "ours": [name for name in sys.modules if name.partition(".")[0] in ("test_starting", "__main__")],
        "changed": changed,
        "orders": starting.ORDERS in os.environ,
        "pid": os.getpid(),
        "server": os.getppid(),
    }


SCRIPT = """
import json, os, sys
from il_bench.rollout.executors import Job, starting
from il_bench.rollout.executors.processes import ProcessExecutor
import test_starting as this
starting._NEEDED += ("module_that_nobody_has",)
starting.import_ahead()
found = []
for run in ("first", "second"):
    os.environ["CHANGED_LATER"] = run
    found += ProcessExecutor(1).run(Job(this.changed_later, this.facts, [0]))
print(json.dumps(found))
"""


def test_workers_are_forked_from_a_process_that_only_imported() -> None:
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}  # whose threads survive a fork by themselves
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SCRIPT],
        cwd=Path(__file__).parent,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    first, second = json.loads(done.stdout)
    assert first["imported"]
    assert not first["networks"], "no shipped policy uses them"
    assert first["later"] == "FastWAMPolicy", "but they load when they are asked for"
    assert first["threads"] == 1
    assert not first["cuda"]
    assert (first["changed"], second["changed"]) == ("first", "second"), "the environment of the moment"
    assert not first["orders"]
    assert first["server"] == second["server"]
    assert first["pid"] != second["pid"], "each rollout has workers of its own"


def test_without_a_fork_workers_are_spawned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert starting.context().get_start_method() == "spawn"
    found = list(ProcessExecutor(2).run(Job(os.getpid, pair, [0, 1])))
    assert {parent for _, parent in found} == {os.getpid()}


def pair(pid: int, task: int) -> tuple[int, int]:
    return pid, os.getppid()


@pytest.mark.parametrize("ordered", ["another", "the same"])
def test_another_il_bench_is_not_imported_ahead(ordered: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkout beside an installed il_bench: its workers must not get the installed one."""
    modules, path = dict(sys.modules), [*sys.path]
    place = starting.il_bench.__file__ if ordered == "the same" else "/elsewhere/il_bench/__init__.py"
    monkeypatch.setattr(starting.gc, "freeze", lambda: None)
    monkeypatch.setattr(starting.lerobot_imports, "defer", lambda: None)
    monkeypatch.setenv("PYTORCH_NVML_BASED_CUDA_CHECK", "0")
    try:
        starting._preload(json.dumps({"il_bench": place, "path": path, "modules": ["tabnanny"]}))
        assert ("il_bench" in sys.modules) == ("tabnanny" in sys.modules) == (ordered == "the same")
    finally:
        sys.modules.clear()
        sys.modules.update(modules)
