"""The commands that measure without pytest: `il-bench evaluate` and `il-bench report vocabulary`."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from il_bench import machine, zoo
from il_bench.errors import IlBenchError, fail
from il_bench.files import given_path
from il_bench.machine import Numerics
from il_bench.protocol import (
    DATA_HELP,
    KEYPOINTS,
    MAX_EPISODES,
    MAX_RATE_EPISODES,
    PIXELS,
    REPORT_FOLDER,
    SEED_STARTS,
    Autocast,
    SeedRange,
    block_size,
    data_name,
)
from il_bench.rollout.options import AddressOption, DeviceOption, ExecutorOption, Place, WorkersOption

if TYPE_CHECKING:
    from il_bench.gate.baselines import Target
    from il_bench.report.rows import TokenizerRow
    from il_bench.report.schema import Success

_AUTOCAST_HELP = (
    "Compute its networks' matrix products in this type. This changes the episodes. Default: as saved."
)
_COMPILE_HELP = (
    "Compile its networks with torch.compile, which needs a C++ compiler. This changes the episodes."
)
_TARGET_HELP = "The target to reach. Exit status 1 if it is missed, 6 if the episodes cannot decide."


class Track(StrEnum):
    """What policies see."""

    KEYPOINTS = KEYPOINTS
    PIXELS = PIXELS


class Form(StrEnum):
    """The form of the file of `il-bench evaluate`."""

    OURS = "il_bench"
    LEROBOT = "lerobot"


def evaluate(
    policy: Annotated[str, typer.Argument(help="A shipped policy by name, a folder, or a Hub id.")],
    track: Annotated[Track, typer.Option(help="What a shipped POLICY sees.")] = Track.KEYPOINTS,
    output: Annotated[Path | None, typer.Option(help="Also write the numbers to this JSON file.")] = None,
    form: Annotated[
        Form,
        typer.Option(
            "--format",
            help="Format of the file: il_bench's own, or eval_info.json as lerobot-eval writes it.",
        ),
    ] = Form.OURS,
    seeds: Annotated[SeedRange, typer.Option(help="Which start states.")] = SeedRange.VALIDATION,
    episodes: Annotated[
        int,
        typer.Option(
            min=1,
            max=MAX_RATE_EPISODES,
            help=f"How many start states: up to {MAX_EPISODES} of validation, up to {MAX_RATE_EPISODES} "
            "of test."
            f" Gates look at the first {MAX_EPISODES} only.",
        ),
    ] = 200,
    workers: WorkersOption = None,
    executor: ExecutorOption = None,
    address: AddressOption = None,
    device: DeviceOption = "cpu",
    autocast: Annotated[Autocast | None, typer.Option(help=_AUTOCAST_HELP)] = None,
    compiled: Annotated[bool, typer.Option("--compile", help=_COMPILE_HELP)] = False,
    target: Annotated[str | None, typer.Option(metavar="METRIC=VALUE", help=_TARGET_HELP)] = None,
) -> None:
    """Roll POLICY out and print its metrics with 95 % intervals; `pytest --benchmark` also gates them."""
    try:
        output = None if output is None else given_path(output)
        if output is None and form is not Form.OURS:
            raise IlBenchError(f"--format: {form} is the form of a file; name it with --output")
        # What names nothing is refused before anything heavy is imported.
        spec = zoo.find(policy, track).spec
        if seeds is not SeedRange.TEST and episodes > MAX_EPISODES:
            raise IlBenchError(f"--episodes: {episodes}; --seeds {seeds} has {MAX_EPISODES}")
        asked = None if target is None else _target(target)
        numerics = Numerics(None if autocast is None else str(autocast), compiled)
        numerics.check("--compile")
        place = Place.of(workers, executor, address, device, track, numerics)
        place.import_ahead(-(-episodes // block_size(track)))

        from il_bench.gate import exit_status
        from il_bench.gate.verdict import PolicyGates
        from il_bench.policies.checkpoint import load_policy
        from il_bench.report.success import row_of
        from il_bench.rollout.metrics import METRICS

        loaded = load_policy(spec, device=device, numerics=numerics)
        first = SEED_STARTS[seeds]
        chosen = range(first, first + episodes)
        outcomes = place.roll_out(loaded, chosen, loaded.name)
        verdict = PolicyGates(loaded.name, asked).verdict(outcomes)
        for name, found in verdict.estimates.items():
            typer.echo(f"{name} {METRICS[name].text(*found, digits=METRICS[name].digits)}")
        if asked is not None:
            typer.echo(f"target {target}: {verdict.against_target}")
        row = row_of(loaded, outcomes, verdict)
        if output is not None:
            _write(output, row, chosen, form, numerics)
    except IlBenchError as error:
        fail(error)
    if status := exit_status([row.model_dump(include={"target", "baseline"})]):
        raise typer.Exit(status)


def _target(given: str) -> "Target":
    from il_bench.gate.baselines import Target
    from il_bench.rollout.metrics import target_of

    metric, value = target_of(given, "--target")
    return Target(metric=metric, value=value, required=True)


def _write(output: Path, row: "Success", seeds: range, form: Form, numerics: Numerics) -> None:
    """Write a row without its episodes, and what its numbers depend on; or as LeRobot does."""
    from il_bench.files import write_whole, writing
    from il_bench.report import lerobot

    ungated = {"decision", "target"} if row.target is None else set()
    facts = row.model_dump(mode="json", exclude={"baseline", "episodes"} | ungated)
    facts |= {"seeds": [seeds[0], seeds[-1]], "environment": machine.describe() | numerics.conditions()}
    with writing(output, "give another --output"):
        ours = (json.dumps(facts, indent=2) + "\n").encode()
        write_whole(output, ours if form is Form.OURS else lerobot.content(row))


def vocabulary(
    policy: Annotated[str, typer.Argument(help="bet, vqbet, or a folder or Hub id of a BeT or VQ-BeT.")],
    data: Annotated[str, typer.Option(help=DATA_HELP)] = "expert",
    output: Annotated[Path, typer.Option(help="Folder for the picture.")] = REPORT_FOLDER,
) -> None:
    """Draw the moves that POLICY's action tokenizer knows, and how often each is used.

    A move is the path of actions that one token decodes to (with a residual VQ, one token of each stage).
    Use is counted on every fifth episode of DATA, which tokenizers do not train on. The picture also shows
    one of these episodes beside what its tokens decode to. `pytest --benchmark` draws the same for all
    tokenizers that it measures, in report.html.
    """
    try:
        name = Path(policy).name
        if name in ("", ".."):  # of a path such as `.`
            name = Path(policy).resolve().name
        row = _measured(policy, name, data)
        from il_bench.files import write_whole, writing
        from il_bench.report import schema
        from il_bench.report import vocabulary as pictures
        from il_bench.report.cli import print_tables

        picture = pictures.render(row)
        file = output / f"vocabulary-{re.sub(r'[^\w.-]+', '-', name)[:100]}.png"
        with writing(output, "give another --output"):
            write_whole(file, picture)
    except IlBenchError as error:
        fail(error)
    print_tables(schema.Report(created=datetime.now(UTC), environment={}, tokenizers=(row,)))
    typer.echo(f"picture: {file}")


def _measured(policy: str, name: str, data: str) -> "TokenizerRow":
    """The row of the tokenizer inside a policy that the report calls `name`."""
    from il_bench.data.names import resolve_data

    source, own_name = resolve_data(data)  # before the slow imports: a wrong name fails at once
    from il_bench.data import chunks, open_dataset
    from il_bench.policies.tokenizers import find_with_tokenizer, load_tokenizer
    from il_bench.suite.reconstruction import measure, of_policy

    checkpoint = find_with_tokenizer(policy)
    tokenizer = load_tokenizer(checkpoint)
    chunk_size, n_dimensions = tokenizer.chunk_shape
    if n_dimensions != 2:
        raise IlBenchError(f"{policy}: its actions have {n_dimensions} dimensions, PushT's have 2.")
    with _reading(policy, "the folder of a checkpoint"):
        fitted = of_policy(checkpoint, tokenizer, name)
    with _reading(source, "other --data"):
        seen = chunks.cut(open_dataset(source), chunk_size, held_out=True)
    return measure(fitted, seen, own_name or data_name(source))[0]


@contextmanager
def _reading(what: str, way_out: str) -> Iterator[None]:
    """Turn an OSError into one sentence that names what was read."""
    try:
        yield
    except OSError as error:
        raise IlBenchError(f"{what}: cannot be read ({error.strerror or error}); give {way_out}.") from None
