"""A run as a comment on a pull request: the verdict, changed rows only, and nothing that breaks Markdown."""

import html
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from il_bench.cli import app
from il_bench.gate.baselines import Target
from il_bench.report import markdown, schema
from tests.gate.made import episodes, measured
from tests.report.made import report
from tests.report.recorded import row

SOLVED = np.arange(200) % 20 != 0
REQUIRED = Target(value=0.8, required=True)
GOOD = row("good", episodes(SOLVED), target=REQUIRED)
SHORT = row("short", episodes(SOLVED[::-1] & (np.arange(200) % 3 != 0)), target=REQUIRED)


def test_policies_that_pass_are_one_line() -> None:
    text = markdown.render(report(success=[GOOD]), page="https://ci.example/1/report.html")
    assert text.splitlines() == [
        markdown.MARKER,
        f"**il_bench ✓ {text.splitlines()[1].removeprefix('**il_bench ✓ ')}",
        "",
        "1 policy is as it was. [The page](https://ci.example/1/report.html) plays every episode.",
    ]
    assert "1 of 1 required gates PASS" in text.splitlines()[1]


def test_what_fails_is_a_row() -> None:
    text = markdown.render(report(success=[GOOD, SHORT]))
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert rows[0] == "| policy | success_rate | against target | against baseline | episodes |"
    assert len(rows) == 3
    assert rows[2].startswith("| short | 0.6") and "✗ FAIL (&#60; 0.80 shown)" in rows[2]
    assert "1 other policy is as it was." in text


def test_a_policy_that_changed_is_a_row_although_it_passes() -> None:
    before = episodes(SOLVED)
    after = episodes(SOLVED & (np.arange(200) != 7))
    changed = row("act", after, baseline=measured(before))
    assert changed.baseline is not None and changed.baseline.lost
    text = markdown.render(report(success=[changed]))
    assert "INCONCLUSIVE, lost 1, won 0" in text or "PASS, lost 1, won 0" in text


def test_two_runs_are_compared() -> None:
    old = report(success=[GOOD, row("act", episodes(SOLVED))])
    new = report(success=[GOOD, row("act", episodes(SOLVED & (np.arange(200) > 40)))])
    text = markdown.render(new, old)
    assert "| other run |" in text and "▼ worse: was 0.950, is 0.760 on 200 shared seeds" in text
    assert "act is worse than in the other run" in text.splitlines()[1]
    assert "| good" not in text and "1 other policy is as it was." in text


@pytest.mark.parametrize("name", ["a|b", "<img src=x>", "@everyone", "[x](http://evil)", "`rm`", "#1"])
def test_a_name_is_only_text(name: str) -> None:
    bad = SHORT.model_copy(update={"policy": name})
    text = markdown.render(report(success=[bad]))
    (line,) = (line for line in text.splitlines() if line.startswith("| &") or line.startswith("| a"))
    assert line.count("|") == 6
    assert not set("<>@[]`#") & set(line.replace("&#", ""))


@pytest.mark.parametrize(
    "name", ["@everyone", "owner/repo#1", "http://evil.example", "www.evil.example", "GH-1"]
)
def test_a_name_reads_as_it_is_and_mentions_nobody(name: str) -> None:
    """GitHub looks for people, issues and addresses in the text as it reads, entities or not."""
    text = html.unescape(markdown.render(report(success=[SHORT.model_copy(update={"policy": name})])))
    assert name not in text and name in text.replace("\u200b", "")


def test_a_table_has_no_more_rows_than_a_comment_has_room_for() -> None:
    rows = [SHORT.model_copy(update={"policy": f"{i:03}" + "@" * 70}) for i in range(300)]
    text = markdown.render(report(success=rows))
    assert len(text) < 65_000 and "\n250 more policies changed or did not pass." in text


def test_a_run_without_a_report_says_where_the_log_is(tmp_path: Path) -> None:
    arguments = ["report", "markdown", str(tmp_path), "--page", "https://ci.example/1"]
    assert CliRunner().invoke(app, arguments).exit_code == 2
    done = CliRunner().invoke(app, [*arguments, "--missing-ok"])
    assert done.exit_code == 0 and "**il_bench ✗ no report**" in done.stdout
    assert "the log of [the run](https://ci.example/1) says why" in done.stdout
    assert f"{tmp_path}/report.json: cannot be read" in done.stderr


def test_the_command_prints_and_writes_it(tmp_path: Path) -> None:
    schema.save(tmp_path / "report.json", report(success=[GOOD]))
    arguments = [str(tmp_path), "--against", str(tmp_path), "-o", str(tmp_path / "comment.md")]
    done = CliRunner().invoke(app, ["report", "markdown", *arguments])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "comment.md").read_text() == done.output
    assert done.output.startswith(markdown.MARKER)
