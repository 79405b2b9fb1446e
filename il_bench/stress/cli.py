"""The command `il-bench stress`."""

from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from il_bench import machine, zoo
from il_bench.errors import IlBenchError, fail
from il_bench.files import given_path, locked, writing
from il_bench.protocol import (
    EXPERT,
    IMAGE_BLOCK_SIZE,
    KEYPOINTS,
    MAX_EPISODES,
    SEED_STARTS,
    SeedRange,
)
from il_bench.rollout.options import AddressOption, DeviceOption, ExecutorOption, Place, WorkersOption

if TYPE_CHECKING:
    from il_bench.policies.checkpoint import LoadedPolicy
    from il_bench.report.schema import Report, Stress
    from il_bench.rollout import Outcomes, RunBlock
    from il_bench.stress.arms import Arm

_ANOTHER = "give another --output"


def stress(
    policies: Annotated[
        list[str] | None,
        typer.Argument(
            help="Shipped policies by name, 'expert', folders, or Hub ids. Default: all shipped on "
            "keypoints, and the expert."
        ),
    ] = None,
    arm: Annotated[
        list[str] | None, typer.Option(help="What to change; repeat it for several. Default: every arm.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Write the rows to this file, a report.json, as each arm ends.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Keep the rows of --output that this run would measure again.")
    ] = False,
    hz: Annotated[
        list[float] | None,
        typer.Option(help="Instead of arms: success at this control frequency; repeat it for several."),
    ] = None,
    latency_ms: Annotated[
        float | None,
        typer.Option(help="With --hz: how long a prediction takes. Default: its median, measured now."),
    ] = None,
    seeds: Annotated[SeedRange, typer.Option(help="Which start states.")] = SeedRange.VALIDATION,
    episodes: Annotated[int, typer.Option(min=1, max=MAX_EPISODES, help="How many start states.")] = 200,
    workers: WorkersOption = None,
    executor: ExecutorOption = None,
    address: AddressOption = None,
    device: DeviceOption = "cpu",
) -> None:
    """Roll policies out on the same start states with one thing changed, and print what that costs.

    Every arm changes one thing at several levels: delays, noise, lost actions, a push, the physics, the
    start, the camera's image. Differences to the undisturbed episodes are paired by seed.
    `pytest --benchmark --il-stress` does the same as part of a run.
    """
    try:
        if resume and output is None:
            raise IlBenchError("--resume: there is nothing to continue without --output; add it")
        if latency_ms is not None and not hz:
            raise IlBenchError("--latency-ms: needs a control frequency; add --hz")
        for name, value in (("--latency-ms", latency_ms), *(("--hz", each) for each in hz or ())):
            if value is not None and not 0.0 < value < 1e6:
                raise IlBenchError(f"{name}: {value:g} is not a number above 0")
        if hz and arm:
            raise IlBenchError("--hz: runs the arms wait and overlap; leave --arm out")
        path = None if output is None else given_path(output)
        specs = policies or [*zoo.shipped(KEYPOINTS), EXPERT]
        for spec in specs:
            zoo.find(spec)  # what names nothing is refused before anything heavy is imported
        from il_bench.stress.arms import arms_for, check_names

        names = check_names(arm or ())
        place = Place.of(workers, executor, address, device)
        chosen = range(SEED_STARTS[seeds], SEED_STARTS[seeds] + episodes)
        with _alone(path):
            run = _Run(path, chosen, place, resume=resume)
            for spec in specs:
                loaded = run.load(spec)
                if hz:
                    run.at_frequencies(loaded, hz, latency_ms)
                else:
                    run.measure(loaded, arms_for(loaded, names))
    except IlBenchError as error:
        fail(error)
    _print(run.report)


def _alone(output: Path | None) -> AbstractContextManager[None]:
    """Hold the file that the rows go to: a second command would put its own in their place."""
    if output is None:
        return nullcontext()
    busy = f"another process is writing this file; let it finish, or {_ANOTHER}"
    with writing(output, _ANOTHER):
        output.parent.mkdir(parents=True, exist_ok=True)
    return locked(output.with_name(f".{output.name}.lock"), output, busy, _ANOTHER)


class _Run:
    """The rows so far, kept in a file as each arm ends."""

    def __init__(self, output: Path | None, seeds: range, place: Place, *, resume: bool) -> None:
        from il_bench.report import schema

        self._output, self._seeds, self._place = output, seeds, place
        place.import_ahead(-(-len(seeds) // IMAGE_BLOCK_SIZE))
        fingerprint = machine.fingerprint(place.device)
        facts = {**machine.describe(), "fingerprint": fingerprint}
        self.report = schema.Report(created=datetime.now(UTC), environment=facts)
        self._known: tuple[Stress, ...] = ()
        if resume and output is not None and output.exists():
            before = schema.load(output)
            if differing := machine.differences(before.environment.get("fingerprint") or {}, fingerprint):
                raise IlBenchError(
                    f"{output}: its rows are of other conditions ({differing[0]}); {_ANOTHER}, or leave "
                    "--resume out"
                )
            self.report = self.report.model_copy(update={"stress": before.stress})
            self._known = before.stress

    def load(self, spec: str) -> "LoadedPolicy":
        from il_bench.policies.checkpoint import load_policy

        return load_policy(spec, device=self._place.device)

    def measure(self, policy: "LoadedPolicy", arms: "tuple[Arm, ...]") -> "list[Stress]":
        """Measure the arms that are not known, tell each as it ends, and return all rows."""
        from il_bench.stress import curves

        rows = {arm.name: self._kept(policy, arm) for arm in arms}
        missing = tuple(arm for arm in arms if rows[arm.name] is None)
        for row in curves.measure(policy, missing, partial(self._roll, policy)):
            rows[row.arm] = row
            self._keep(row)
            levels = ", ".join(
                f"{level:g}: {rate.estimate:.3f}"
                for level, rate in zip(row.levels, row.success_rate[1:], strict=True)
            )
            typer.echo(f"{policy.name}: {row.arm} {levels}; undisturbed {row.success_rate[0].estimate:.3f}")
        return [row for row in rows.values() if row is not None]

    def at_frequencies(self, policy: "LoadedPolicy", hz: list[float], latency_ms: float | None) -> None:
        """Print success at each control frequency, and how many deadlines are missed."""
        from il_bench.stress import realtime

        times = (latency_ms,) if latency_ms is not None else realtime.measured_ms(policy, self._place.device)
        median = sorted(times)[len(times) // 2]
        steps = {each: realtime.latency_steps(median, each) for each in sorted(hz)}
        rows = self.measure(policy, realtime.latency_arms(policy, list(steps.values())))
        how = "given" if latency_ms is not None else f"median of {len(times)} calls"
        for each, level in steps.items():
            rates = ", ".join(
                f"{row.arm} {row.success_rate[1 + row.levels.index(level)].estimate:.3f}" for row in rows
            )
            late = realtime.deadline_misses(times, each)
            typer.echo(
                f"{policy.name} at {each:g} Hz: {median:.3g} ms ({how}) is {level} control step"
                f"{'s' if level > 1 else ''}, {late:.1%} of the calls miss one; success_rate {rates}"
            )

    def _roll(self, policy: "LoadedPolicy", title: str, block: "RunBlock | None") -> "Outcomes":
        return self._place.roll_out(policy, self._seeds, f"{policy.name}, {title}", block)

    def _kept(self, policy: "LoadedPolicy", arm: "Arm") -> "Stress | None":
        """The row that this run would measure again."""
        wanted = (policy.name, policy.track, policy.sha256, (self._seeds[0], self._seeds[-1]))
        for row in self._known:
            same_arm = (row.arm, row.about, row.unit, row.levels) == (
                arm.name,
                arm.about,
                arm.unit,
                arm.levels,
            )
            if same_arm and (row.policy, row.track, row.sha256, row.seeds) == wanted:
                return row
        return None

    def _keep(self, row: "Stress") -> None:
        from il_bench.report import schema

        others = [each for each in self.report.stress if _place(each) != _place(row)]
        self.report = self.report.model_copy(update={"stress": (*others, row)})
        if self._output is not None:
            schema.save(self._output, self.report)


def _place(row: "Stress") -> tuple[str, str, str]:
    return row.policy, row.track, row.arm


def _print(report: "Report") -> None:
    from il_bench.report.cli import print_tables

    print_tables(report)
