"""Is the merge of eight shards the run that one process makes? Both are made here, and compared byte by byte.

Compared are report.json, without the fields of time; every recording; and the episodes in every journal.

    python benchmarks/shards_beside_one.py [--of 8] [--episodes 200] [--at-once 2] [--policy bc]
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from multiprocessing import get_context
from multiprocessing.connection import wait
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer

import il_bench.suite.success  # noqa: F401
from il_bench.machine import differences
from il_bench.policies.checkpoint import load_policy

SUITE = ["--benchmark", "--pyargs", "il_bench.suite.test_success", "-q", "-p", "no:cacheprovider"]


def run(of: dict[Path, list[str]], at_once: int) -> None:
    """Run parts of the suite, or all of it, each in a process of its own; exit 1 and 6 are about gates."""
    waiting, running = dict(of), dict[Path, Any]()
    while waiting or running:
        while waiting and len(running) < at_once:
            folder = next(iter(waiting))
            words = [*SUITE, "--il-workers", "1", "--il-report", str(folder), *waiting.pop(folder)]
            running[folder] = get_context("fork").Process(target=session, args=(words, log_of(folder)))
            running[folder].start()
        wait([child.sentinel for child in running.values()])
        for folder in [folder for folder, child in running.items() if child.exitcode is not None]:
            status = running.pop(folder).exitcode
            if status not in (0, 1, 6) or not any(folder.glob("*.json")):
                sys.exit(f"{folder.name}: exit status {status}\n{log_of(folder).read_text()}")


def log_of(folder: Path) -> Path:
    """Where a run's words go."""
    return folder.with_suffix(".log")


def session(words: list[str], log: Path) -> None:
    """A pytest run, as the command makes it; what it imports is here already."""
    os.dup2(os.open(log, os.O_CREAT | os.O_WRONLY), 1)
    sys.exit(int(pytest.main(words)))


def without_time(report: Path) -> dict[str, Any]:
    """The fields of a report.json but when it was made, and how long everything took."""
    found: dict[str, Any] = json.loads(report.read_text())
    del found["created"]
    found["environment"].pop("seconds", None)
    for row in found["success"]:
        del row["seconds"]
    return found


def recordings(folder: Path) -> dict[str, bytes]:
    """The recordings of a report folder by their place in it."""
    files = sorted((folder / "recordings").rglob("*.npz"))
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def episodes(folder: Path) -> dict[str, list[Any]]:
    """The episodes in the journals of a report folder."""
    found = {}
    for path in sorted((folder / "journal").glob("*.jsonl")):
        lines = [json.loads(line) for line in path.read_text().splitlines()[1:]]
        found[path.name] = sorted((line["episodes"] for line in lines), key=lambda block: block[0]["seed"])
    return found


def main(
    of: int = 8,
    episodes_each: Annotated[int, typer.Option("--episodes")] = 200,
    at_once: int = 2,
    policy: Annotated[list[str] | None, typer.Option()] = None,
) -> None:
    """Run both and print what is equal; exit 1 if anything is not."""
    for name in ("act", "diffusion"):
        load_policy(name)  # imports what policies need, once for all runs: each is a fork
    chosen = [word for name in policy or () for word in ("--il-policy", name)]
    chosen += ["--il-episodes", str(episodes_each)]
    with tempfile.TemporaryDirectory() as folder:
        one, merged = Path(folder, "one"), Path(folder, "merged")
        parts = [Path(folder, f"shard-{number}") for number in range(1, of + 1)]
        start = time.monotonic()
        run({one: chosen}, 1)
        middle = time.monotonic()
        run({part: ["--il-shard", f"{n}/{of}", *chosen] for n, part in enumerate(parts, 1)}, at_once)
        end = time.monotonic()
        command = [sys.executable, "-c", "from il_bench.cli import main; main()", "merge"]
        subprocess.run([*command, *map(str, parts), "--output", str(merged)], stdout=subprocess.DEVNULL)
        rows = without_time(one / "report.json")["success"]
        print(f"one run: {middle - start:.0f} s; {of} shards, {at_once} at once: {end - middle:.0f} s")
        for row in rows:
            print(f"  {row['policy']:10} {row['n_episodes']} episodes, {row['decision']}")
        kept = episodes(one)
        pairs = {
            "report.json but for time": [without_time(each / "report.json") for each in (one, merged)],
            f"{len(recordings(one))} recordings": [recordings(each) for each in (one, merged)],
            f"{len(kept)} journals": [kept, {name: episodes(merged).get(name) for name in kept}],
        }
        for what, (ours, theirs) in pairs.items():
            differing = [] if ours == theirs else differences({"it": ours}, {"it": theirs})
            print(f"{what}: {'equal' if ours == theirs else f'DIFFERENT, {differing[0]:.500}'}")
        if any(ours != theirs for ours, theirs in pairs.values()):
            sys.exit(1)


if __name__ == "__main__":
    typer.run(main)
