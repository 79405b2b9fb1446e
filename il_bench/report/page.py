"""The report as one HTML file that needs no other."""

import base64
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from il_bench.report import lines
from il_bench.report.schema import Report


def render(report: Report, picture: bytes) -> str:
    """Return the page; `picture` is the PNG to embed."""
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
        picture=base64.b64encode(picture).decode(),
        sections={name: lines.plain(report, name) for name in lines.PLAIN_SECTIONS},
    )
