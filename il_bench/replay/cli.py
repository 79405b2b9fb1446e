"""The command `il-bench replay`.

`il-bench --help` loads this module, so what is heavy is imported inside the function.
"""

import re
from pathlib import Path
from typing import Annotated

import typer

from il_bench.errors import IlBenchError, fail
from il_bench.protocol import REPORT_FOLDER

_MOST = 8  # side by side
_ADDRESS = re.compile(r"(?P<spec>.+):(?P<seed>\d+)")


def replay(
    specs: Annotated[
        list[str],
        typer.Argument(
            metavar="SPEC...",
            help="Policies to show side by side: shipped names, folders, Hub ids, or rows of the report;"
            " act:200024 gives the seed too.",
        ),
    ],
    seed: Annotated[int | None, typer.Option(min=0, help="Which start state.")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="FILE.mp4, .gif, or .png, a film strip.")
    ] = None,
    report: Annotated[Path, typer.Option(help="Folder of a report that has recordings.")] = REPORT_FOLDER,
    anew: Annotated[bool, typer.Option("--anew", help="Roll it out even if there is a recording.")] = False,
    size: Annotated[int, typer.Option(min=64, max=2048, help="Width and height of the arena, in px.")] = 512,
    speed: Annotated[
        float, typer.Option(min=0.1, max=100, help="Playback speed; 1 is the robot's own.")
    ] = 2.0,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps; only to roll out anew.")] = "cpu",
) -> None:
    """Replay an episode: from its recording, or rolled out again and compared with the report."""
    try:
        if len(specs) > _MOST:
            raise IlBenchError(f"replay shows up to {_MOST} policies side by side, not {len(specs)}")
        asked = [_asked(spec, seed) for spec in specs]
        if report.name == "report.json" and report.is_file():
            report = report.parent
        if report != REPORT_FOLDER and not report.is_dir():
            raise IlBenchError(
                f"--report: {report}: no such folder; give the folder of a report, or leave it out"
            )
        if output is not None and output.suffix.lower() not in (".mp4", ".gif", ".png"):
            raise IlBenchError(f"--output: {output.name} must end in .mp4, .gif or .png")
        from il_bench.replay.again import episode

        shown = [episode(spec, one, report, anew=anew, device=device) for spec, one in asked]
        for each in shown:
            typer.echo(_told(each.counted.model_dump(), each.name, each.source))
        if output is not None:
            from il_bench.files import write_whole, writing
            from il_bench.replay.film import encode

            content = encode(shown, output.suffix.lower(), size=size, speed=speed)
            with writing(output, "give another --output"):
                write_whole(output, content)
            typer.echo(f"written: {output}")
        for each in shown:
            if each.differs:
                raise IlBenchError(
                    f"{each.name}:{each.seed} differs from the report: {'; '.join(each.differs)}"
                )
    except IlBenchError as error:
        fail(error)


def _asked(text: str, seed: int | None) -> tuple[str, int]:
    """The policy and the seed of `act:200024`, or of `act` and --seed."""
    found = None if Path(text).exists() else _ADDRESS.fullmatch(text)
    if found is None and seed is None:
        raise IlBenchError(f"{text}: which seed? Give --seed N, or {text}:200024")
    if found is None:
        assert seed is not None
        return text, seed
    if seed is not None and seed != int(found["seed"]):
        raise IlBenchError(f"{text} and --seed {seed} name two seeds; give one of them")
    return found["spec"], int(found["seed"])


def _told(counted: dict[str, object], name: str, source: str) -> str:
    numbers = {
        key: value for key, value in counted.items() if key not in ("seed", "success") and value is not None
    }
    outcome = "solved" if counted["success"] else "failed"
    said = ", ".join(
        f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}"
        for key, value in numbers.items()
    )
    return f"{name}, seed {counted['seed']}: {outcome} ({said}); {source}"
