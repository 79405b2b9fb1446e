"""What a pytest run was asked to do: the values of its options, checked.

Read by every pytest run of everybody who has il_bench installed: standard library only.
"""

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from il_bench.errors import IlBenchError
from il_bench.machine import usable_cores
from il_bench.protocol import CONTEXT, DEFAULT_EPISODES, EXPERT, MARGIN, MAX_EPISODES, METRICS, SEED_STARTS

ZOO = Path(__file__).parents[1] / "zoo"
SUITE = Path(__file__).parents[1] / "suite"


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
class Settings:
    """The checked options of one run."""

    benchmark: bool
    chosen: tuple[PolicyChoice, ...]  # with --il-policy; empty without it
    track: str
    device: str
    seeds: str
    episodes: int | None  # None: as many as the gates need
    target: tuple[str, float] | None
    workers: int
    baselines: Path | None
    update_baselines: bool
    report: Path
    resume: bool
    latency: str = "short"
    samplers: tuple[str, ...] = ()  # beside the usual ones
    compare: Path | None = None  # the report.json of another run
    keep_blocks: bool = False
    registered: tuple[PolicyChoice, ...] = ()  # by `pytest_il_bench_register`

    @property
    def policies(self) -> tuple[PolicyChoice, ...]:
        """What is evaluated: the chosen policies, else every embedded one of the track and all registered."""
        if self.chosen:
            return self.chosen
        return (*(PolicyChoice(name, name) for name in zoo_names(self.track)), *self.registered)

    @property
    def seed_range(self) -> range:
        """The seeds of a policy that no gate ends, in order."""
        return self.first_seeds(self.episodes or DEFAULT_EPISODES)

    def first_seeds(self, n: int) -> range:
        """The first `n` seeds of the selected range; IlBenchError unless 1 <= n <= 1000."""
        _check_episodes(n, "n")
        start = SEED_STARTS[self.seeds]
        return range(start, start + n)

    @property
    def header(self) -> str:
        """One line for the head of the run."""
        first, last = self.seed_range[0], self.seed_range[-1]
        workers = "1 worker" if self.workers == 1 else f"{self.workers} workers"
        if self.episodes is None and self.seeds == "test":
            episodes = f"seeds from {first}, episodes until a policy's gates are decided"
        else:
            episodes = f"seeds {first}-{last}, {len(self.seed_range)} episodes a policy"
        return f"device {self.device}, track {self.track}, {self.seeds} {episodes}, {workers}"


def read(
    option: Callable[[str], Any],
    *,
    folder: Path,
    one_of_many: bool = False,
    registered: Sequence[PolicyChoice] = (),
) -> Settings:
    """Check every option and return the settings.

    Args:
        option: value of an option by its name without dashes, such as pytest's `config.getoption`.
        folder: what relative paths are relative to.
        one_of_many: whether the tests run in several processes already, so that each rolls out alone.
        registered: policies of the project, which --il-policy may name.

    Raises:
        IlBenchError: names the option, its value and what to write instead.
    """
    track = option("il_track")
    added = tuple(_located(each, folder) for each in registered)
    settings = Settings(
        benchmark=bool(option("il_benchmark")),
        chosen=_policies(option("il_policy") or (), track, folder, added),
        track=track,
        device=_check_device(option("il_device")),
        seeds=option("il_seeds"),
        episodes=_episodes(option("il_episodes"), bool(option("il_update_baselines"))),
        target=_target(option("il_target")),
        workers=_workers(option("il_workers"), one_of_many),
        baselines=_baselines(option("il_baselines"), folder, bool(option("il_update_baselines"))),
        update_baselines=bool(option("il_update_baselines")),
        report=_report(option("il_report"), folder),
        resume=bool(option("il_resume")),
        latency=option("il_latency"),
        samplers=_samplers(option("il_sampler") or ()),
        compare=_compare(option("il_compare"), folder, bool(option("il_benchmark"))),
        keep_blocks=bool(option("il_keep_blocks")),
        registered=added,
    )
    if settings.benchmark and not settings.policies:
        raise IlBenchError(
            f"--il-track {track}: il_bench embeds no policy for it; name yours with --il-policy PATH|HUB_ID"
        )
    if settings.update_baselines:
        _check_update(settings)
    return settings


def zoo_names(track: str) -> tuple[str, ...]:
    """Names of the embedded policies of a track, told by whether their config asks for an image."""
    import json  # not every run needs to know the zoo

    names = []
    for weights in sorted(ZOO.glob("*/model.safetensors")):
        config = json.loads((weights.parent / "config.json").read_text(encoding="utf-8"))
        pixels = any(name.startswith("observation.image") for name in config.get("input_features") or {})
        if pixels == (track == "pixels"):
            names.append(weights.parent.name)
    return tuple(names)


def _policies(
    labels: Sequence[str], track: str, folder: Path, registered: Sequence[PolicyChoice]
) -> tuple[PolicyChoice, ...]:
    zoo = zoo_names(track) if labels else ()
    known = {each.label: each for each in registered}
    choices: dict[str, PolicyChoice] = {}
    for label in dict.fromkeys(labels):
        choice = known.get(label) or _policy(label, zoo, folder, list(known))
        other = choices.setdefault(choice.gate_name, choice)
        if other is not choice:
            raise IlBenchError(
                f"--il-policy: {other.label} and {label} would both be called {choice.gate_name}; give one "
                "another name (NAME=PATH)"
            )
    return tuple(choices.values())


def _policy(label: str, zoo: Sequence[str], folder: Path, registered: Sequence[str]) -> PolicyChoice:
    name, equals, source = label.partition("=")
    if not equals or os.path.exists(folder / label):
        name, source = "", label
    elif not re.fullmatch(r"[\w.-]+", name):
        raise IlBenchError(
            f"--il-policy: {label!r}: no usable name before '='; write for example act=runs/mine"
        )
    if (name or label) in CONTEXT and label != EXPERT:
        raise IlBenchError(
            f"--il-policy: {label!r}: {name or label} is a row of il_bench's own; give the policy another "
            "name (NAME=PATH)"
        )
    if source in (*zoo, EXPERT):
        return PolicyChoice(label, source, name or None)
    # Unlike Path's methods, os.path's answer for names that no file and no user can have.
    path = folder / os.path.expanduser(source)
    if os.path.exists(path):
        return PolicyChoice(label, str(path), name or None)
    # One slash and plain characters could be a Hub id: only loading it tells.
    if re.fullmatch(r"\w[\w.-]*/\w[\w.-]*(@[\w./-]+)?", source):
        return PolicyChoice(label, source, name or None)
    raise IlBenchError(
        f"--il-policy: {source!r} is no embedded policy ({', '.join([*zoo, EXPERT, *registered])}), no "
        f"folder below {folder}, and no Hub id (USER/NAME or USER/NAME@REVISION)"
    )


def _located(choice: PolicyChoice, folder: Path) -> PolicyChoice:
    """A registered policy whose checkpoint, if it is one that exists, is found from everywhere."""
    path = folder / os.path.expanduser(choice.source)
    return replace(choice, source=str(path)) if os.path.exists(path) and not choice.in_process else choice


def _check_device(device: str) -> str:
    """`device`, if torch can use it here; torch is imported for anything but cpu only."""
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


def _episodes(given: int | None, update: bool) -> int | None:
    """A new baseline is not to end where the gates happened to be decided: it has every test seed."""
    if given is None:
        return MAX_EPISODES if update else None
    return _check_episodes(given, "--il-episodes")


def _check_episodes(value: int, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_EPISODES:
        raise IlBenchError(f"{name}: {value!r} is not a number of episodes; use 1 to {MAX_EPISODES}")
    return value


def _target(given: Sequence[str] | None) -> tuple[str, float] | None:
    if not given:
        return None
    if len(given) > 1:
        raise IlBenchError(f"--il-target: one target a run, not {len(given)}: {', '.join(given)}")
    metric, _, text = given[0].partition("=")
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if metric not in METRICS or not MARGIN < value < 1.0:
        raise IlBenchError(
            f"--il-target: {given[0]!r} is not METRIC=VALUE; METRIC is {' or '.join(METRICS)}, VALUE between "
            f"{MARGIN} and 1, for example success_rate=0.8"
        )
    return metric, value


def _samplers(given: Sequence[str]) -> tuple[str, ...]:
    for sampler in given:
        if not re.fullmatch(r"(DDPM|DDIM)-[1-9]\d*", sampler):
            raise IlBenchError(
                f"--il-sampler: {sampler!r} is none; use DDPM-N or DDIM-N with N steps, such as DDIM-10"
            )
    return tuple(dict.fromkeys(given))


def _compare(given: str | None, folder: Path, benchmark: bool) -> Path | None:
    if given is None:
        return None
    path = folder / Path(given).expanduser()
    if not benchmark:
        raise IlBenchError("--il-compare: nothing is timed without --benchmark; add it")
    if not path.is_file():
        raise IlBenchError(
            f"--il-compare: no such file: {path}; give the report.json of a run with --il-keep-blocks"
        )
    return path


def _workers(given: int | None, one_of_many: bool) -> int:
    if given is None:
        return 1 if one_of_many else usable_cores()
    if given < 1:
        raise IlBenchError(f"--il-workers: {given} is not a number of processes; use 1 or more")
    return given


def _baselines(given: str | None, folder: Path, update: bool) -> Path | None:
    if given is None:
        return None
    path = folder / Path(given).expanduser()
    if path.is_file() or (update and not path.exists() and path.parent.is_dir()):
        return path
    raise IlBenchError(f"--il-baselines: no such file: {path}; --il-update-baselines makes a new one")


def _report(given: str, folder: Path) -> Path:
    path = folder / Path(given).expanduser()
    if path.exists() and not path.is_dir():
        raise IlBenchError(f"--il-report: {path} is a file; name a folder")
    return path


def _check_update(settings: Settings) -> None:
    if not settings.benchmark:
        raise IlBenchError("--il-update-baselines: nothing is measured without --benchmark; add it")
    if settings.seeds != "test":
        raise IlBenchError(
            f"--il-update-baselines: baselines are measured on test seeds, not on --il-seeds {settings.seeds}"
            "; leave --il-seeds out"
        )
    if settings.baselines is not None:
        return
    zoo = zoo_names(settings.track)
    for choice in settings.policies:
        if choice.gate_name not in zoo:
            raise IlBenchError(
                f"--il-update-baselines: il_bench's own baselines are of its own policies, not {choice.label}"
                "; keep yours in a file of your own with --il-baselines FILE"
            )
