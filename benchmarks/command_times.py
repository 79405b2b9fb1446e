"""Where do the seconds of whole commands go? Wall and processor time, imports and process starts apart.

Each command runs as a user starts it, in a session of its own. Its processes are watched from outside, in
/proc, workers included, so the same script also profiles another checkout (--before DIR), command by command
in turns. Imports are timed inside: every Python process of the command loads a small `sitecustomize`. On a
busy machine only processor seconds compare.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

HERE = Path(__file__).parents[1]
INTERVAL = 0.02  # s between looks at the processes
TICKS = os.sysconf("SC_CLK_TCK")
#: What every process of a command loads: it notes the processor seconds of each import, outermost only.
INSIDE = """
import builtins, os, time
_import, _depth, _log = builtins.__import__, 0, os.environ["COMMAND_TIMES"]
def timed(*arguments, **named):
    global _depth
    start, _depth = time.process_time(), _depth + 1
    try:
        return _import(*arguments, **named)
    finally:
        _depth -= 1
        taken = time.process_time() - start
        if _depth == 0 and taken > 0.002:
            with open(_log, "a") as file:
                file.write(f"{os.getpid()} {taken:.4f}\\n")
builtins.__import__ = timed
"""
#: A plugin of pytest that notes when each test begins and ends.
TESTS = """
import os, time
def note(word, nodeid):
    with open(os.environ["COMMAND_TIMES"] + ".tests", "a") as file:
        file.write(f"{time.monotonic():.3f}\\t{word}\\t{nodeid}\\n")
def pytest_runtest_logstart(nodeid): note("begin", nodeid)
def pytest_runtest_logfinish(nodeid): note("end", nodeid)
"""
SUITE = ("pytest", "-p", "command_times_tests", "-p", "no:cacheprovider", "--benchmark", "il_bench/suite")
SHORT = (*SUITE, "-m", "success", "--il-episodes", "200", "--il-policy", "act", "--il-policy", "vqbet")
#: By name: the command, whose last word `{report}` is a folder of its own.
COMMANDS: dict[str, tuple[str, ...]] = {
    "help": ("il-bench", "--help"),
    "typo": ("il-bench", "evaluate", "atc"),
    "evaluate": ("il-bench", "evaluate", "act", "--episodes", "200"),
    "compare": ("il-bench", "compare", "act", "vqbet"),
    "two policies": (*SHORT, "--il-report", "{report}"),
    "bench": (*SUITE, "--il-report", "{report}"),
    "thorough": (*SUITE, "--il-thorough", "--il-latency", "short", "--il-report", "{report}"),
}
USUAL = ("help", "typo", "evaluate", "compare", "two policies", "bench")


@dataclass
class Profile:
    """What one run of a command took: seconds, and the processes it started. tests: by test."""

    wall: float = 0.0
    processor: float = 0.0
    imports: float = 0.0
    processes: int = 0
    status: int = 0
    tests: dict[str, tuple[float, float]] = field(default_factory=dict)  # (wall, processor)


def profiled(checkout: Path, words: tuple[str, ...]) -> Profile:
    """Run a command of a checkout and watch it."""
    with tempfile.TemporaryDirectory() as folder:
        inside, log = Path(folder, "inside"), Path(folder, "imports")
        inside.mkdir()
        (inside / "sitecustomize.py").write_text(INSIDE)
        (inside / "command_times_tests.py").write_text(TESTS)
        log.touch()
        command = [word.format(report=f"{folder}/report") for word in words]
        environment = os.environ | {
            "PYTHONPATH": str(inside),
            "COMMAND_TIMES": str(log),
            "HF_HUB_OFFLINE": "1",
            "SDL_VIDEODRIVER": "dummy",
            "OMP_NUM_THREADS": "1",
        }
        started = time.monotonic()
        process = subprocess.Popen(
            [str(checkout / ".venv" / "bin" / command[0]), *command[1:]],
            cwd=checkout,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        seen: dict[int, float] = {}
        looks: list[tuple[float, float]] = []
        while process.poll() is None:
            seen |= _used(process.pid)
            looks.append((time.monotonic(), sum(seen.values())))
            time.sleep(INTERVAL)
        found = Profile(time.monotonic() - started, sum(seen.values()), processes=len(seen))
        found.status = process.returncode
        found.imports = sum(float(line.split()[1]) for line in log.read_text().splitlines())
        found.tests = _tests(Path(f"{log}.tests"), looks)
    return found


def _used(session: int) -> dict[int, float]:
    """Processor seconds of every process of a session that lives, by its id."""
    found = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            fields = (folder / "stat").read_text().rpartition(") ")[2].split()
        except OSError:  # it has ended
            continue
        if int(fields[3]) == session:
            found[int(folder.name)] = (int(fields[11]) + int(fields[12])) / TICKS
    return found


def _tests(log: Path, looks: list[tuple[float, float]]) -> dict[str, tuple[float, float]]:
    """Wall and processor seconds of each test, from when it began and ended."""
    if not log.exists():
        return {}

    def used(at: float) -> float:
        return max((processor for moment, processor in looks if moment <= at), default=0.0)

    begun, found = {}, {}
    for line in log.read_text().splitlines():
        moment, word, name = line.split("\t")
        if word == "begin":
            begun[name] = float(moment)
        else:
            found[name] = (float(moment) - begun[name], used(float(moment)) - used(begun[name]))
    return found


def _stages(profile: Profile, *, rows: bool) -> dict[str, tuple[float, float]]:
    """Seconds by stage, and of each row of success."""
    found: dict[str, tuple[float, float]] = defaultdict(lambda: (0.0, 0.0))
    for name, (wall, processor) in profile.tests.items():
        module, _, test = name.partition("::")
        stage = Path(module).stem.removeprefix("test_")
        keys = [stage, f"{stage}: {test}"] if rows and stage == "success" else [stage]
        for key in keys:
            before = found[key]
            found[key] = (before[0] + wall, before[1] + processor)
    return dict(found)


def main(
    before: Annotated[
        Path | None, typer.Option(help="Another checkout with a .venv, to profile too.")
    ] = None,
    only: Annotated[list[str] | None, typer.Option(help=f"One of {', '.join(COMMANDS)}; repeatable.")] = None,
    output: Annotated[Path | None, typer.Option(help="Write the numbers to this JSON file too.")] = None,
) -> None:
    """Profile the commands that users start."""
    checkouts = {"now": HERE} if before is None else {"before": before.absolute(), "now": HERE}
    kept: dict[str, dict[str, Profile]] = {}
    console = Console(width=140)
    for name in only or USUAL:
        for which, checkout in checkouts.items():
            words = COMMANDS[name]
            if which == "before" and name == "thorough":
                words = COMMANDS["bench"]  # has all rows
            console.print(f"{which}: {' '.join(words)}", style="dim", highlight=False)
            kept.setdefault(name, {})[which] = profiled(checkout, words)
    table = Table("command", "", "wall s", "processor s", "of it imports", "processes", "exit status")
    for name, found in kept.items():
        for which, each in found.items():
            seconds = (f"{value:.1f}" for value in (each.wall, each.processor, each.imports))
            table.add_row(name, which, *seconds, str(each.processes), str(each.status))
    console.print(table)
    for name, found in kept.items():
        stages = {which: _stages(each, rows=True) for which, each in found.items()}
        names = list(dict.fromkeys(stage for each in stages.values() for stage in each))
        if not names:
            continue
        columns = [f"{which}: {what}" for which in found for what in ("wall s", "processor s")]
        table = Table(name, *columns)
        for stage in names:
            cells = [stages[which].get(stage) for which in found]
            table.add_row(
                escape(stage), *(f"{v:.1f}" if each else "" for each in cells for v in each or (0, 0))
            )
        console.print(table)
    if output is not None:
        content = {name: {which: vars(each) for which, each in found.items()} for name, found in kept.items()}
        output.write_text(json.dumps(content, indent=1))


if __name__ == "__main__":
    if sys.platform != "linux":
        raise SystemExit("it reads /proc, which only Linux has")
    typer.run(main)
