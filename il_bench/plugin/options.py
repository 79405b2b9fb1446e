"""How an option of pytest is declared, and the checks of their values.

Read by every pytest run of everybody who has il_bench installed: standard library only.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from il_bench.errors import IlBenchError
from il_bench.machine import usable_cores
from il_bench.protocol import MARGIN, MAX_EPISODES
from il_bench.rollout.metrics import GATED_METRICS


@dataclass(frozen=True)
class PolicyChoice:
    """One `--il-policy`: `label` as written, `source` for `load_policy`, `name` if given as NAME=PATH.

    `environment`: where it is rolled out if not in PushT. `in_process`: `source` is only the name of a call
    that a project has registered, so no other process can load it.
    """

    label: str
    source: str
    name: str | None = None
    environment: str | None = None
    in_process: bool = False

    @property
    def gate_name(self) -> str:
        """What its row is called and whose gates it meets: act's only as act, or as act=PATH."""
        return self.name or self.label


@dataclass(frozen=True)
class Invocation:
    """How pytest was called: what a check may need to know besides its own option's value."""

    option: Callable[[str], Any]  # unchecked values by name, such as pytest's `config.getoption`
    folder: Path  # what relative paths are relative to
    one_of_many: bool = False  # the tests run in several processes already, so that each rolls out alone
    registered: Mapping[str, PolicyChoice] = field(default_factory=dict)  # the project's, by label

    def path(self, given: str) -> Path:
        """The path that somebody wrote as the value of an option."""
        return self.folder / Path(given).expanduser()


@dataclass(frozen=True)
class Option:
    """One option: its flag, what pytest's parser is told of it, and what makes a setting of its value."""

    flag: str
    parser: dict[str, Any]
    check: "Check"

    @property
    def dest(self) -> str:
        """The name by which pytest's `config.getoption` knows it: `il_keep_blocks`."""
        return self.flag.lstrip("-").replace("-", "_")


Check = Callable[[Any, Invocation], Any]


def option(flag: str, explained: str, check: Check = lambda given, _: given, **parser: Any) -> Any:
    """Declare a field of the settings as an option; `parser`: keywords of pytest's `addoption`."""
    defaults: dict[str | None, Any] = {None: None, "append": [], "store_true": False}
    parser = {"default": defaults[parser.get("action")], "help": " ".join(explained.split()), **parser}
    return field(metadata={"option": Option(flag, parser, check)})


def check_device(device: str, _: Invocation) -> str:
    """`device`, if torch can use it here; only for other devices than the CPU is torch imported."""
    if device == "cpu":
        return device
    if not re.fullmatch(r"cuda(:\d+)?|mps", device):
        raise IlBenchError(f"--il-device: unknown device {device!r}; use cpu, cuda, cuda:N or mps")
    import torch

    if device == "mps":
        found = torch.backends.mps.is_available()
    else:
        found = int(device.partition(":")[2] or 0) < torch.cuda.device_count()
    if not found:
        raise IlBenchError(f"--il-device: torch finds no {device} here; leave it out to run on the CPU")
    return device


def check_episodes(given: int | None, run: Invocation) -> int | None:
    """A number of episodes; a new baseline has every test seed, whenever its gates would be decided."""
    if given is None:
        return MAX_EPISODES if run.option("il_update_baselines") else None
    return at_most_all(given, "--il-episodes")


def at_most_all(n: int, name: str) -> int:
    """`n`, if there are so many episodes."""
    if isinstance(n, bool) or not isinstance(n, int) or not 1 <= n <= MAX_EPISODES:
        raise IlBenchError(f"{name}: {n!r} is not a number of episodes; use 1 to {MAX_EPISODES}")
    return n


def check_target(given: Sequence[str], _: Invocation) -> tuple[str, float] | None:
    """The metric and the value of METRIC=VALUE."""
    if not given:
        return None
    if len(given) > 1:
        raise IlBenchError(f"--il-target: one target a run, not {len(given)}: {', '.join(given)}")
    metric, _equals, text = given[0].partition("=")
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if metric not in GATED_METRICS or not MARGIN < value < 1.0:
        raise IlBenchError(
            f"--il-target: {given[0]!r} is not METRIC=VALUE; METRIC is {' or '.join(GATED_METRICS)}, VALUE "
            f"between {MARGIN} and 1, for example success_rate=0.8"
        )
    return metric, value


def check_samplers(given: Sequence[str], _: Invocation) -> tuple[str, ...]:
    """Samplers with their numbers of steps, each once."""
    for sampler in given:
        if not re.fullmatch(r"(DDPM|DDIM)-[1-9]\d*", sampler):
            raise IlBenchError(
                f"--il-sampler: {sampler!r} is none; use DDPM-N or DDIM-N with N steps, such as DDIM-10"
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
    return path


def check_workers(given: int | None, run: Invocation) -> int:
    """A number of processes, by default one a core; tests that run side by side use one each."""
    if given is None:
        return 1 if run.one_of_many else usable_cores()
    if given < 1:
        raise IlBenchError(f"--il-workers: {given} is not a number of processes; use 1 or more")
    return given


def check_baselines(given: str | None, run: Invocation) -> Path | None:
    """A baselines file that is there, or that this run is to make."""
    if given is None:
        return None
    path, update = run.path(given), run.option("il_update_baselines")
    if path.is_file() or (update and not path.exists() and path.parent.is_dir()):
        return path
    raise IlBenchError(f"--il-baselines: no such file: {path}; --il-update-baselines makes a new one")


def check_report(given: str, run: Invocation) -> Path:
    """The folder of the report, which need not be there yet."""
    path = run.path(given)
    if path.exists() and not path.is_dir():
        raise IlBenchError(f"--il-report: {path} is a file; name a folder")
    return path
