"""The `il-bench compare` command."""

import json
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from il_bench import machine, zoo
from il_bench.errors import IlBenchError, fail
from il_bench.files import given_path, write_whole, writing
from il_bench.protocol import Mode, TimedCall, check_sampler

if TYPE_CHECKING:
    from il_bench.latency.compare import Comparison
    from il_bench.latency.contenders import ComparedPolicies

STATUS = {"slower": 1, "inconclusive": 6}  # exit status by verdict; 0 for all others
SECONDS_BETWEEN_UPDATES, SECONDS_BETWEEN_LINES = 0.5, 10.0  # on a terminal, in a log


class Clock(StrEnum):
    """The clock that times a call."""

    AUTO = "auto"
    PROCESSOR = "processor"
    WALL = "wall"


def compare(
    a: Annotated[str, typer.Argument(help="A shipped policy by name, a checkpoint folder, or a Hub id.")],
    b: Annotated[str | None, typer.Argument(help="The policy to compare with A. Default: A.")] = None,
    what: Annotated[TimedCall, typer.Option(help="The call to time.")] = TimedCall.NEW_CHUNK,
    batch: Annotated[int, typer.Option(min=1, help="How many robots ask at once.")] = 1,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps.")] = "cpu",
    device_b: Annotated[str | None, typer.Option(help="B's device. Default: A's.")] = None,
    python: Annotated[
        Path | None, typer.Option(help="Python or venv that runs A. Default: this one.")
    ] = None,
    python_b: Annotated[
        Path | None, typer.Option(help="Python or venv that runs B. Default: this one.")
    ] = None,
    mode: Annotated[Mode, typer.Option(help="How to run A's networks.")] = Mode.EAGER,
    mode_b: Annotated[Mode | None, typer.Option(help="B's mode. Default: A's.")] = None,
    sampler: Annotated[
        str | None, typer.Option(help="Sampler of a diffusion policy, such as DDIM-10 or DDPM-100.")
    ] = None,
    sampler_b: Annotated[str | None, typer.Option(help="B's sampler. Default: A's.")] = None,
    processed: Annotated[
        bool,
        typer.Option("--processed/--bare", help="Time the call with or without the policy's processing."),
    ] = True,
    threads: Annotated[int, typer.Option(min=1, help="Threads of torch on the CPU.")] = 1,
    margin: Annotated[float, typer.Option(help="Relative difference that does not matter.")] = 0.05,
    processes: Annotated[int, typer.Option(min=2, max=64, help="Processes for each of A and B.")] = 6,
    budget: Annotated[
        float, typer.Option(min=1.0, help="Time limit of the whole command, in seconds.")
    ] = 120.0,
    clock: Annotated[Clock, typer.Option(help="auto: processor on one CPU thread, else wall.")] = Clock.AUTO,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed for the order of the blocks.")] = None,
    output: Annotated[Path | None, typer.Option(help="Also write the result to this JSON file.")] = None,
) -> None:
    """Is B slower than A? Time both alternately, in several processes each, until the answer is clear.

    B is another checkpoint, or A on another device (--device-b), in another Python environment (--python-b),
    in another mode or with another sampler.

    Exit status: 0 equivalent or faster, 1 slower, 6 inconclusive, 2 for unusable input.
    """
    try:
        for spec, elsewhere in ((a, python), (b or a, python_b)):
            if elsewhere is None:  # before twelve processes import LeRobot to say the same
                zoo.find(spec)
        machine.check_device_name(device)
        machine.check_device_name(device_b or device, "--device-b")
        for chosen_sampler in filter(None, (sampler, sampler_b)):
            check_sampler(chosen_sampler)

        from il_bench.latency.compare import Rule
        from il_bench.latency.contenders import Contender, compare_policies

        runs_a = _python(python, "--python")
        first = Contender(a, device, what, batch, processed, mode, sampler, threads, runs_a)
        of_b = {"policy": b, "device": device_b, "mode": mode_b, "sampler": sampler_b}
        given: dict[str, Any] = {name: value for name, value in of_b.items() if value is not None}
        second = replace(first, **given, python=_python(python_b, "--python-b"))
        rule = Rule(margin=margin)
        chosen = None if clock is Clock.AUTO else clock.value
        options: dict[str, Any] = {"processes": processes, "seconds": budget, "clock": chosen, "seed": seed}
        with _live() as line:
            options |= {"on_start": line.starting, "on_round": line.timing}
            result = compare_policies(first, second, rule, **options)
        _show(result)
        if output is not None:
            with writing(output, "give another --output"):
                write_whole(output, (json.dumps(result.to_dict(), indent=2) + "\n").encode())
    except IlBenchError as error:
        fail(error)
    raise typer.Exit(STATUS.get(result.comparison.verdict, 0))


def _python(given: Path | None, option: str) -> Path:
    """The interpreter, given as such or as its environment's folder. A venv's is a link, left unresolved."""
    if given is None:
        return Path(sys.executable)
    path = given_path(given).absolute()
    found = path / "bin" / "python" if path.is_dir() else path
    if not found.is_file():
        raise IlBenchError(
            f"{option}: no such Python interpreter: {found}; give for example ../other/.venv/bin/python"
        )
    return found


class _Line:
    """What the comparison does, and for how long: one line on a terminal, now and then one in a log."""

    def __init__(self) -> None:
        self._is_terminal = sys.stderr.isatty()
        self._start = time.monotonic()
        self._due, self._widest = self._start, 0

    def starting(self, ready: int, of: int) -> None:
        self._say(f"{ready} of {of} processes have started")

    def timing(self, last: "Comparison | None") -> None:
        so_far = "" if last is None else f": {last.ratio:.3f} [{last.low:.3f}, {last.high:.3f}] so far"
        self._say(f"timing{so_far}")

    def _say(self, text: str) -> None:
        now = time.monotonic()
        if now < self._due:
            return
        self._due = now + (SECONDS_BETWEEN_UPDATES if self._is_terminal else SECONDS_BETWEEN_LINES)
        text = f"{text}, {now - self._start:.0f} s"
        self._widest = max(self._widest, len(text))
        sys.stderr.write(f"\r{text:{self._widest}}" if self._is_terminal else f"{text}\n")
        sys.stderr.flush()

    def clear(self) -> None:
        """Leave nothing on the terminal."""
        if self._is_terminal:
            sys.stderr.write(f"\r{'':{self._widest}}\r")


@contextmanager
def _live() -> Iterator[_Line]:
    line = _Line()
    try:
        yield line
    finally:
        line.clear()


def _show(result: "ComparedPolicies") -> None:
    from rich.console import Console
    from rich.table import Table

    from il_bench.latency.compare import Rule

    found, first = result.comparison, result.contenders[0]
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 100
    table = Table("", "policy", "device", "mode", "ms", "between processes", "versions")
    for place, name in enumerate("AB"):
        contender, facts = result.contenders[place], result.facts[place]
        others = result.facts[1 - place]["versions"]
        own = [
            f"{what} {version}" for what, version in facts["versions"].items() if others.get(what) != version
        ]
        threads = "1 thread" if contender.threads == 1 else f"{contender.threads} threads"
        table.add_row(
            name,
            str(facts["policy"]),
            contender.device,
            ", ".join(filter(None, (contender.mode, facts["sampler"], threads))),
            f"{1e3 * found.seconds[place]:.3f}",
            f"{found.process_sd[place]:.1%}",
            ", ".join(own) or "the same",  # versions in which the two differ
        )
    console = Console(width=width, highlight=False)
    console.print(table)
    console.print(
        f"{first.what}, batch {first.batch}, {'processed' if first.processed else 'bare'}, "
        f"{result.clock} time; {found.processes[0]} and {found.processes[1]} processes, "
        f"{found.rounds} blocks each"
    )
    is_last = found.rounds == Rule().looks[-1]
    console.print(verdict_line(found, is_last=is_last), style="bold")


def verdict_line(found: "Comparison", *, is_last: bool) -> str:
    """One sentence: the verdict, the ratio and its interval, and what to do if it is inconclusive.

    `is_last`: whether the last round ended the timing, and not the budget.
    """
    ratio = f"B's time is {found.ratio:.3f} [{found.low:.3f}, {found.high:.3f}] of A's"
    said = f"{found.verdict}: {ratio} ({found.confidence:.0%} interval, margin {found.margin:.0%})"
    if found.verdict != "inconclusive":
        return said
    more = "a larger --budget" if found.noise > 0.5 and not is_last else "more --processes"
    return f"{said}; {more}, a quieter machine or a larger --margin would tell"
