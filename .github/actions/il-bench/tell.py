"""Tell the verdict: in the summary, as annotations, in the text of a comment, and as the output `verdict`."""

import os
from pathlib import Path

from il_bench.errors import IlBenchError
from il_bench.gate import Decision
from il_bench.report import answer, markdown, schema, success

LEVELS = {Decision.FAIL: "error", Decision.INCONCLUSIVE: "warning", Decision.BELOW_TARGET: "notice"}


def main() -> None:
    """Everything comes from report.json; without one, that is said."""
    path = Path(os.environ["IL_REPORT"], "report.json")
    page, status = os.environ.get("IL_PAGE", ""), os.environ.get("IL_STATUS", "")
    try:
        report = schema.load(path)
    except IlBenchError as error:
        annotate("error", f"no report: {error}")
        text, verdict = markdown.without_report(page or None), "no report; the log says why"
    else:
        text, verdict = markdown.render(report, page=page or None), answer.verdict(report.success)[0]
        for level, told in findings(report):
            annotate(level, told)
    Path(os.environ["IL_COMMENT"]).write_text(text, encoding="utf-8")
    append("GITHUB_STEP_SUMMARY", text)
    append("GITHUB_OUTPUT", f"verdict={verdict}\n")
    print(f"il_bench: {verdict} (exit status {status or 'unknown'})")


def findings(report: schema.Report) -> list[tuple[str, str]]:
    """A level and a sentence for each gate that is not passed; one line if all are."""
    found = success.open_gates(success.ranked(report.success))
    said = [(LEVELS.get(decision, "notice"), sentence) for decision, sentence in found]
    return said or [("notice", answer.verdict(report.success)[0])]


def annotate(level: str, text: str) -> None:
    """As GitHub reads them from a step's output; it has characters of its own for what ends a line."""
    for special, code in (("%", "%25"), ("\r", "%0D"), ("\n", "%0A")):
        text = text.replace(special, code)
    print(f"::{level} title=il_bench::{text}")


def append(variable: str, text: str) -> None:
    """Add to one of the files that GitHub reads after the step."""
    with Path(os.environ[variable]).open("a", encoding="utf-8") as file:
        file.write(text)


if __name__ == "__main__":
    main()
