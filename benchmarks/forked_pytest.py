"""Forks pytest runs of one benchmark, for latency_trials.py: `forked_pytest.py POLICY SECONDS`.

The policy is loaded once. Each line read, {"stretch": 1.1, "storage": folder, "options": [..]}, is a fork: a
whole pytest run with pytest-benchmark and nothing else. Its one test calls the policy for SECONDS; each call
is held until it has taken `stretch` times its time. The answer is {"regressed": whether
--benchmark-compare-fail failed the run}.
"""

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # what else is installed would only take time

import cpuinfo  # type: ignore[import-untyped]
import pytest

from il_bench.latency.contenders import Contender
from il_bench.latency.worker import PROTOCOL, LoadedCall, load, once

PLUGINS = ("-p", "pytest_benchmark.plugin", "-p", "no:cacheprovider")
TEST = """
import sys

def test_call(benchmark):
    benchmark(sys.modules["__main__"].TIMED)
"""
TIMED: Callable[[], object]  # what the test of a fork times


def run(loaded: LoadedCall, request: dict[str, Any], folder: Path, seconds: str) -> None:
    """The fork: a pytest run whose output goes into a file. Does not return."""
    global TIMED

    TIMED = partial(once, loaded, time.perf_counter, request["stretch"])
    try:
        said = os.open(folder / "said", os.O_CREAT | os.O_WRONLY)
        os.dup2(said, 1)
        os.dup2(said, 2)
        os.chdir(folder)
        Path("test_trial.py").write_text(TEST, encoding="utf-8")
        storage = f"--benchmark-storage=file://{request['storage']}"
        options = [storage, f"--benchmark-max-time={seconds}", *request["options"]]
        pytest.main([*PLUGINS, "--rootdir", str(folder), *options, "test_trial.py"])
        sys.stdout.flush()
    finally:
        os._exit(0)


def main(policy: str, seconds: str) -> None:
    """Serve until the input ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    loaded = load(Contender(policy).request)
    found = cpuinfo.get_cpu_info()  # takes a second each time, and times nothing
    cpuinfo.get_cpu_info = lambda: found
    with tempfile.TemporaryDirectory() as empty:
        pytest.main([*PLUGINS, "--collect-only", "-qq", empty])  # imports what the forks need

    def say(message: dict[str, Any]) -> None:
        answers.write(json.dumps(message) + "\n")
        answers.flush()

    say({"protocol": PROTOCOL})
    for line in sys.stdin:
        request = json.loads(line)
        with tempfile.TemporaryDirectory() as folder:
            child = os.fork()
            if child == 0:
                run(loaded, request, Path(folder), seconds)
            os.waitpid(child, 0)
            said = (Path(folder) / "said").read_text(encoding="utf-8")
        regressed = "Performance has regressed" in said  # an error, which takes the place of "1 passed"
        if not regressed and "1 passed" not in said:
            sys.exit(f"pytest-benchmark did not run: {said}")
        say({"regressed": regressed})


if __name__ == "__main__":
    main(*sys.argv[1:])
