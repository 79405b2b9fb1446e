"""`il-bench sweep`: every checkpoint of a run on the same validation seeds, and the curve of its success."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from il_bench import machine
from il_bench.errors import IlBenchError, fail
from il_bench.files import given_path, reserved
from il_bench.protocol import IMAGE_BLOCK_SIZE, MAX_EPISODES, SEED_STARTS
from il_bench.rollout.options import AddressOption, DeviceOption, ExecutorOption, Place, WorkersOption

if TYPE_CHECKING:
    from il_bench.policies.checkpoint import LoadedPolicy
    from il_bench.report.schema import Success

_CHECKPOINT = Path("pretrained_model", "config.json")
_WIDTH = 40  # characters of a rate's line, from 0 to 1
_ANOTHER = "give another --output"


def sweep(
    run: Annotated[Path, typer.Argument(help="A run's folder, or the `checkpoints` folder in it.")],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Folder for report.json, curve.html and curve.svg. Default: `sweep` in the run.",
        ),
    ] = None,
    episodes: Annotated[
        int,
        typer.Option(
            min=1,
            max=MAX_EPISODES,
            help="How many validation seeds to roll out for each checkpoint, from the first on.",
        ),
    ] = 200,
    workers: WorkersOption = None,
    executor: ExecutorOption = None,
    address: AddressOption = None,
    device: DeviceOption = "cpu",
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Keep the results in --output of checkpoints that have not changed."),
    ] = False,
) -> None:
    """Roll every checkpoint of RUN out on the same start states, and draw success over steps.

    RUN may come from `lerobot-train` or `il-bench train`, and may still be training. Exit status 1: a
    checkpoint cannot be loaded or run; the others are measured.
    """
    try:
        run = given_path(run)
        folder = run if run.name == "checkpoints" else run / "checkpoints"
        checkpoints = found_in(folder)
        kept = (folder.absolute().parent / "sweep") if output is None else given_path(output)
        chosen = range(SEED_STARTS["validation"], SEED_STARTS["validation"] + episodes)
        place = Place.of(workers, executor, address, device)
        with reserved(kept, _ANOTHER):
            swept = _Sweep(kept, chosen, place, resume=resume)
            problems = []
            for step, path in checkpoints.items():
                try:
                    row = swept.measure(path)
                except IlBenchError as error:
                    problems.append(f"step {step:,}: {error}")
                    continue
                typer.echo(line(row))
            if not swept.report.success:
                raise IlBenchError(problems[0])
            for sentence in told(swept.report.success, folder):
                typer.echo(sentence)
            typer.echo(f"made: {', '.join(map(str, swept.draw(folder)))}")
    except IlBenchError as error:
        fail(error)
    for problem in problems:
        typer.secho(f"il-bench: {problem}", fg="red", err=True)
    if problems:
        raise typer.Exit(1)


def found_in(folder: Path) -> dict[int, Path]:
    """Return the checkpoints in a folder by their steps, in order. Raises IlBenchError if there are none."""
    steps = {
        int(place.name): place / _CHECKPOINT.parent
        for place in (folder.iterdir() if folder.is_dir() else ())
        if place.name.isdecimal() and (place / _CHECKPOINT).is_file()
    }
    if not steps:
        raise IlBenchError(
            f"{folder}: holds no checkpoints, as lerobot-train and il-bench train write them"
            f" (STEP/{_CHECKPOINT}); give a run's folder, or `il-bench evaluate` a single policy"
        )
    return dict(sorted(steps.items()))


def line(row: "Success") -> str:
    """Return for example 'step  4,000  0.860 [0.80, 0.90]  |      --o-|'."""
    rate = row.success_rate
    at = [round(_WIDTH * x) for x in (rate.low, rate.estimate, rate.high)]
    drawn = "".join("o" if x == at[1] else "-" if at[0] <= x <= at[2] else " " for x in range(_WIDTH + 1))
    return f"step {int(row.policy):>9,}  {rate.estimate:.3f} [{rate.low:.2f}, {rate.high:.2f}]  |{drawn}|"


def told(rows: "tuple[Success, ...]", folder: Path) -> list[str]:
    """Say which checkpoint is best, which are not shown to be worse, and how to measure the chosen one."""
    from il_bench.gate.paired import difference
    from il_bench.report.success import ranked

    best = ranked(rows)[0]
    solved = [each.success for each in best.episodes]
    level = []
    for row in rows:
        pairs = list(zip((each.success for each in row.episodes), solved, strict=True))
        lost, won = sum(b and not a for a, b in pairs), sum(a and not b for a, b in pairs)
        if row is not best and not difference(lost, won, len(pairs)).is_shown(0.05):
            level.append(f"{int(row.policy):,}")
    like_it = f"; not shown to be worse: {', '.join(level)}" if level else ""
    path = folder / best.policy
    return [
        f"best: step {int(best.policy):,}, success_rate {best.success_rate.estimate:.3f}{like_it}",
        "The best of several looks better than it is, so measure the one you choose on other seeds:"
        f" il-bench evaluate {path} --seeds test --episodes 1000",
    ]


class _Sweep:
    """The rows so far, kept in report.json as each checkpoint ends."""

    def __init__(self, output: Path, seeds: range, place: Place, *, resume: bool) -> None:
        from il_bench.report import schema

        self._path, self._seeds, self._place = output / "report.json", seeds, place
        # One process, of which the workers of every checkpoint are forks.
        place.import_ahead(-(-len(seeds) // IMAGE_BLOCK_SIZE))
        fingerprint = machine.fingerprint(place.device)
        facts = {**machine.describe(), "fingerprint": fingerprint}
        self.report = schema.Report(created=datetime.now(UTC), environment=facts)
        self._known: dict[str, Success] = {}  # of checkpoints whose turn is still to come
        if resume and self._path.exists():
            before = schema.load(self._path)
            if differing := machine.differences(before.environment.get("fingerprint") or {}, fingerprint):
                raise IlBenchError(
                    f"{self._path}: its episodes are of other conditions ({differing[0]}); {_ANOTHER}, or"
                    " leave --resume out"
                )
            self._known = {row.policy: row for row in before.success}

    def measure(self, path: Path) -> "Success":
        """Return the row of a checkpoint, rolled out unless it is known, and keep it."""
        from il_bench.policies.checkpoint import load_policy

        loaded = replace(load_policy(path, device=self._place.device), name=path.parent.name)
        row = self._known.pop(loaded.name, None)
        if (
            row is None
            or (row.track, row.sha256) != (loaded.track, loaded.sha256)
            or [episode.seed for episode in row.episodes] != list(self._seeds)
        ):
            row = self._rolled_out(loaded)
        self.report = self.report.model_copy(update={"success": (*self.report.success, row)})
        self._save(*self._known.values())
        return row

    def _rolled_out(self, loaded: "LoadedPolicy") -> "Success":
        from il_bench.gate.verdict import PolicyGates
        from il_bench.report.success import row_of

        outcomes = self._place.roll_out(loaded, self._seeds, f"step {int(loaded.name):,}")
        return row_of(loaded, outcomes, PolicyGates(loaded.name).verdict(outcomes))

    def _save(self, *more: "Success") -> None:
        """Write the rows, and more: those to come, or an interruption would lose them."""
        from il_bench.report import schema

        whole = self.report.model_copy(update={"success": (*self.report.success, *more)})
        schema.save(self._path, whole)

    def draw(self, folder: Path) -> list[Path]:
        """Write the curve as a page and as a picture, of the rows alone; return the paths of all files."""
        from il_bench.files import write_whole, writing
        from il_bench.report import curves

        self._save()
        curve = curves.of_sweep(self.report, folder.absolute().parent)
        paths = [self._path.with_name(name) for name in ("curve.html", "curve.svg")]
        with writing(paths[0].parent, _ANOTHER):
            write_whole(paths[0], curves.render([curve]).encode())
            write_whole(paths[1], curves.picture(curve))
        return [self._path, *paths]
