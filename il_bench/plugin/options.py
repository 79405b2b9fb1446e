"""How an option of pytest is declared, and the checks of the options' values.

Every pytest run loads this module where il_bench is installed: standard library only. What is defined here
and in `choices` are named tuples, since Python takes seven times as long to define a data class.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from il_bench import machine
from il_bench.errors import IlBenchError
from il_bench.plugin.choices import PolicyChoice
from il_bench.protocol import MAX_EPISODES, MAX_RATE_EPISODES


class Invocation(NamedTuple):
    """How pytest was called: what a check may need besides its own option's value."""

    option: Callable[[str], Any]  # pytest's `config.getoption`: unchecked values by name
    folder: Path  # where relative paths begin
    one_of_many: bool = False  # the tests run in several processes already
    project_policies: Mapping[str, PolicyChoice] = MappingProxyType({})  # by label

    def path(self, given: str) -> Path:
        """The path that an option's value names."""
        return self.folder / Path(given).expanduser()


class Option(NamedTuple):
    """One option: its flag, the keywords for pytest's parser, and the check that gives a setting's value."""

    flag: str
    parser: dict[str, Any]
    check: "Check"

    @property
    def dest(self) -> str:
        """Its name for pytest's `config.getoption`, such as `il_keep_blocks`."""
        return self.flag.lstrip("-").replace("-", "_")


Check = Callable[[Any, Invocation], Any]


def option(flag: str, explained: str, check: Check = lambda given, _: given, **parser: Any) -> Any:
    """Declare a field of the settings as an option; `parser`: keywords of pytest's `addoption`."""
    defaults: dict[str | None, Any] = {None: None, "append": [], "store_true": False}
    parser = {"default": defaults[parser.get("action")], "help": " ".join(explained.split()), **parser}
    return field(metadata={"option": Option(flag, parser, check)})


def check_device(device: str, _: Invocation) -> str:
    """`device`, if torch can use it here. The CPU needs no check, so that torch is not imported."""
    machine.check_device(device, "--il-device")
    return device


def check_compile(given: bool, _: Invocation) -> bool:
    """Whether to compile, where there is a compiler."""
    machine.Numerics(compiled=given).check("--il-compile")
    return given


def check_episodes(given: int | None, run: Invocation) -> int | None:
    """A number of episodes; None: as many as the gates need. A new baseline takes every test seed."""
    if given is None:
        return MAX_EPISODES if run.option("il_update_baselines") else None
    if run.option("il_update_baselines") and given > MAX_EPISODES:
        raise IlBenchError(
            f"--il-episodes: a baseline takes {MAX_EPISODES} test seeds, not {given}; leave it out"
        )
    return at_most_all(given, "--il-episodes", run.option("il_seeds"))


def at_most_all(n: int, name: str, seeds: str) -> int:
    """`n`, if it is a number of episodes that there are; rates may run on past the test seeds."""
    most = MAX_RATE_EPISODES if seeds == "test" else MAX_EPISODES
    if isinstance(n, bool) or not isinstance(n, int) or not 1 <= n <= most:
        there = f"{name}: {n!r} is not a number of episodes; use 1 to {most}"
        raise IlBenchError(there if seeds == "test" else f"{there} with --il-seeds {seeds}")
    return n


def check_target(given: Sequence[str], _: Invocation) -> tuple[str, float] | None:
    """The metric and the value of METRIC=VALUE."""
    if not given:
        return None
    if len(given) > 1:
        raise IlBenchError(f"--il-target: give one target, not {len(given)}: {', '.join(given)}")
    from il_bench.rollout.metrics import target_of

    return target_of(given[0], "--il-target")


def check_samplers(given: Sequence[str], _: Invocation) -> tuple[str, ...]:
    """The samplers, each once."""
    for sampler in given:
        if not re.fullmatch(r"(DDPM|DDIM)-[1-9]\d*", sampler):
            raise IlBenchError(
                f"--il-sampler: {sampler!r} is unknown; use DDPM-N or DDIM-N with N steps, such as DDIM-10"
            )
    return tuple(dict.fromkeys(given))


def check_compare(given: str | None, run: Invocation) -> Path | None:
    """The report.json of another run."""
    if given is None:
        return None
    path = run.path(given)
    if not run.option("il_benchmark"):
        raise IlBenchError("--il-compare: nothing is timed without --benchmark; add it")
    if not path.is_file():
        raise IlBenchError(
            f"--il-compare: no such file: {path}; give the report.json of a run with --il-keep-blocks"
        )
    from il_bench.report import schema

    schema.load(path)  # a broken file is told now, not after the rollouts
    return path


def check_executor(given: str | None, run: Invocation) -> str | None:
    """An executor that can be had."""
    address = run.option("il_address")
    if given is not None or address is not None:
        from il_bench.rollout import executors

        executors.check(given, address, run.option("il_device"), prefix="--il-")
    return given


def check_workers(given: int | None, run: Invocation) -> int:
    """A number of processes; by default one for each core, or 1 if tests run side by side already.

    0: as many as a cluster has room for.
    """
    if given is None and run.option("il_address") is not None:
        return 0
    if given is None:
        return 1 if run.one_of_many else machine.usable_cores()
    if given < 1:
        raise IlBenchError(f"--il-workers: {given} is not a number of processes; use 1 or more")
    return given


def check_shard(given: str | None, run: Invocation) -> tuple[int, int] | None:
    """I/N: which of how many parts."""
    if given is None:
        return None
    found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", given)
    number, of = map(int, found.groups()) if found else (0, 0)
    if not 1 <= number <= of:
        raise IlBenchError(
            f"--il-shard: {given!r} is not a shard; write, for example, 3/8 for the third of eight"
        )
    if run.option("il_stress"):
        raise IlBenchError(
            "--il-shard: a shard measures success alone, not --il-stress; leave one of them out "
            "(--il-executor ray spreads stress over many machines)"
        )
    for flag, dest in (("--il-update-baselines", "il_update_baselines"), ("--il-history", "il_history")):
        if run.option(dest):
            raise IlBenchError(
                f"--il-shard: a shard decides nothing, so {flag} has nothing to write; leave it out"
            )
    return number, of


def check_timeout(given: float, _: Invocation) -> float:
    """A number of seconds."""
    if not 0.0 < given < math.inf:
        raise IlBenchError(f"--il-timeout: {given:g} is not a number of seconds; use one above 0")
    return given


def check_baselines(given: str | None, run: Invocation) -> Path | None:
    """A baselines file that exists, or that this run is to make."""
    if given is None:
        return None
    path, update = run.path(given), run.option("il_update_baselines")
    if path.is_file() or (update and not path.exists() and path.parent.is_dir()):
        return path
    raise IlBenchError(f"--il-baselines: no such file: {path}; --il-update-baselines makes a new one")


def check_history(given: str | None, run: Invocation) -> Path | None:
    """The file of earlier runs, which need not exist yet."""
    if given is None:
        return None
    path = run.path(given)
    if path.is_dir():
        raise IlBenchError(f"--il-history: {path} is a folder; name a file")
    return path


def check_report(given: str, run: Invocation) -> Path:
    """The folder of the report, which need not exist yet."""
    path = run.path(given)
    if path.exists() and not path.is_dir():
        raise IlBenchError(f"--il-report: {path} is a file; name a folder")
    return path
