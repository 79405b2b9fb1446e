"""The report as one HTML file that needs no other."""

import base64
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from il_bench.report import latency, lines
from il_bench.report.schema import Report


def render(
    report: Report,
    picture: bytes,
    tokenizers: bytes | None = None,
    moves: Sequence[tuple[str, bytes]] = (),
    waits: bytes | None = None,
) -> str:
    """Return the page with PNGs embedded.

    picture: of the success rows; tokenizers: of all tokenizers; moves: of single ones, with a title each;
    waits: of the latency rows.
    """
    loader = FileSystemLoader(Path(__file__).parent)
    jinja = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    around, notes = lines.context(report)
    return jinja.get_template("page.html.j2").render(
        report=report,
        columns=lines.COLUMNS,
        measured=lines.measured(report),
        context=around,
        notes=notes,
        picture=_embedded(picture),
        tokenizers=None if tokenizers is None else _embedded(tokenizers),
        moves=[(title, _embedded(png)) for title, png in moves],
        latency=[
            (latency.COLUMNS, latency.lines(report.latency)),
            (latency.FLOOR_COLUMNS, latency.floor_lines(report.latency)),
            (latency.FRESH_COLUMNS, latency.fresh_lines(report.latency)),
        ],
        latency_notes=latency.notes(report.latency),
        waits=None if waits is None else _embedded(waits),
        sections={
            name: (lines.plain(report, name), lines.notes(report, name)) for name in lines.PLAIN_SECTIONS
        },
    )


def _embedded(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
