"""`il-bench card`: the results of a run in the model card of its checkpoint."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from il_bench import zoo
from il_bench.errors import IlBenchError, fail
from il_bench.protocol import REPORT_FOLDER

if TYPE_CHECKING:
    from il_bench.report.schema import Report, Success


def card(
    checkpoint: Annotated[
        Path, typer.Argument(help="A `pretrained_model` folder, or the checkpoint or run that holds it.")
    ],
    report: Annotated[
        Path, typer.Option(help="A report.json, or its folder, with the rollout of these weights.")
    ] = REPORT_FOLDER,
) -> None:
    """Write results into the model card of CHECKPOINT, its README.md: a table, and metadata for the Hub.

    The rest of the card stays as it is, and the same results again change nothing. Push the folder with
    `hf upload USER/NAME FOLDER`.
    """
    try:
        source = zoo.resolve(str(checkpoint))
        if source.path is None or source.is_shipped:
            raise IlBenchError(f"{checkpoint}: a card belongs to a checkpoint; give the checkpoint's folder")
        from il_bench.files import read_whole, write_whole, writing
        from il_bench.policies.checkpoint import Checkpoint
        from il_bench.report import card as cards
        from il_bench.report import schema

        found = Checkpoint.find(source.path)
        whole = schema.load(report / "report.json" if report.is_dir() else report)
        row = _row_of(found.sha256, whole, report, checkpoint)
        path = found.folder / "README.md"
        way_out = "write it in UTF-8, or move it away"
        try:
            before = read_whole(path, way_out).decode("utf-8") if path.exists() else ""
        except UnicodeDecodeError:
            raise IlBenchError(f"{path}: not UTF-8 text; {way_out}") from None
        after = cards.filled(before, row, whole, name=_name(found.folder), where=str(path))
        if after != before:
            with writing(path, "make it writable"):
                write_whole(path, after.encode())
    except IlBenchError as error:
        fail(error)
    typer.echo(f"{path}: {'as it was' if after == before else 'written'}; hf upload USER/NAME {path.parent}")


def _row_of(sha256: str, report: "Report", where: Path, checkpoint: Path) -> "Success":
    """Return the row of these weights, that of the most episodes; IlBenchError if there is none."""
    rows = [row for row in report.success if row.sha256 == sha256]
    if not rows:
        names = ", ".join(row.policy for row in report.success) or "none"
        raise IlBenchError(
            f"{where}: holds no episodes of the weights in {checkpoint} (its policies: {names}); roll them"
            f" out: pytest --benchmark --pyargs il_bench.suite -m success --il-episodes 1000 --il-policy"
            f" {checkpoint}"
        )
    return max(rows, key=lambda row: row.n_episodes)


def _name(folder: Path) -> str:
    """Return what a person would call the model: the name of its run."""
    generic = {"pretrained_model", "checkpoints", "last"}
    names = [part for part in folder.absolute().parts if part not in generic and not part.isdecimal()]
    return names[-1]
