"""How worker processes start: forked from one that has imported what they need, or spawned.

A spawned worker imports torch and LeRobot anew, which takes a core some five seconds. On Linux, Python's own
fork server does it once a run. It has imported libraries, and done nothing else: it ran no policy, no code of
a user's and nothing on a GPU. So each worker begins as fresh as a spawned one.

Elsewhere workers are spawned: macOS has libraries that do not survive a fork, and Windows has no fork.
"""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import forkserver, get_all_start_methods, get_context
from multiprocessing.context import ForkServerContext, SpawnContext

import il_bench

#: What the server imports, of what this process has imported. The first two are the main modules of commands,
#: which every worker imports.
WORTH_IT = (
    *("il_bench.cli", "_pytest.config"),
    *("il_bench.rollout.blocks", "il_bench.demos.recording", "il_bench.policies.checkpoint"),
    *("lerobot.policies.act.modeling_act", "lerobot.policies.diffusion.modeling_diffusion"),
)
#: Holds, while the server starts, what `preloading` reads.
ORDERS = "IL_BENCH_PRELOAD"
_PRELOADING = "il_bench.rollout.executors.preloading"

Context = ForkServerContext | SpawnContext


def context() -> Context:
    """Where a worker process is to come from."""
    if sys.platform != "linux" or "forkserver" not in get_all_start_methods():
        return get_context("spawn")
    import_ahead(*(name for name in WORTH_IT if name in sys.modules))
    return get_context("forkserver")


def import_ahead(*modules: str) -> None:
    """Start the server, unless it runs, and let it import these while this process does something else."""
    if sys.platform == "linux" and "forkserver" in get_all_start_methods():
        # A server that the project runs already imports what the project told it to.
        forkserver.set_forkserver_preload([_PRELOADING])
        with _ordered(modules):
            forkserver.ensure_running()


@contextmanager
def _ordered(modules: tuple[str, ...]) -> Iterator[None]:
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
