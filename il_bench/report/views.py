"""What is made of a report beside the terminal's table: report.json, pictures and a page."""

from pathlib import Path

from il_bench.files import write_whole
from il_bench.report import moves, page, plot, schema


def write(report: schema.Report, folder: Path) -> list[Path]:
    """Write report.json and what is made from it, each whole or not at all; return the paths.

    Made are report.png, with tokenizers tokenizers.png, with latencies latency.png, and report.html, which
    holds these pictures and one of each tokenizer's moves.
    """
    schema.save(folder / "report.json", report)
    rows = report.tokenizers
    pictures = {"report.png": plot.render(report)}
    if rows:
        pictures["tokenizers.png"] = plot.render_tokenizers(rows)
    if report.latency:
        pictures["latency.png"] = plot.render_latency(report.latency)
    drawn = [(moves.title(row), moves.render(row)) for row in rows if row.vocabulary is not None]
    single = [pictures.get(name) for name in ("tokenizers.png", "latency.png")]
    html = page.render(report, pictures["report.png"], single[0], drawn, single[1])
    for name, content in (pictures | {"report.html": html.encode()}).items():
        write_whole(folder / name, content)
    return [folder / name for name in ("report.json", *pictures, "report.html")]
