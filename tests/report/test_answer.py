"""What a terminal ends with: a sentence, a line a policy, what needs attention."""

from typing import Any

import pytest

from il_bench.gate.baselines import Target
from il_bench.protocol import EXPERT, UNTRAINED
from il_bench.report import answer, page, schema, views
from tests.gate.made import OTHER_SHA, declared, measured, spread
from tests.report.made import report
from tests.report.test_latency import row as latency_row
from tests.report.test_success import success
from tests.report.test_tokenizers import tokenizer

REQUIRED = Target(value=0.8, required=True)
WAS = measured(spread(0.9), OTHER_SHA)


def row(
    rate: float, target: Target | None = None, *, name: str = "act", worse: bool = False
) -> schema.Success:
    found = success(spread(rate), declared(target, WAS if worse or rate >= 0.9 else None))
    return found.model_copy(update={"policy": name})


@pytest.mark.parametrize(
    ("rows", "tone", "said"),
    [
        (
            [row(0.95, REQUIRED)],
            "green",
            "1 of 1 required gates PASS; nothing got worse; 200 episodes in 12 s",
        ),
        ([row(0.3, REQUIRED)], "red", "0 of 1 required gates PASS; act FAIL; 200 episodes in 12 s"),
        (
            [row(0.95, REQUIRED), row(0.775, REQUIRED, name="bc")],
            "yellow",
            "1 of 2 required gates PASS; bc INCONCLUSIVE; nothing got worse; 400 episodes in 25 s",
        ),
        (
            [row(0.5, worse=True), row(0.2, Target(value=0.8), name="bc")],
            "red",
            "no target is required; act got worse; 400 episodes in 25 s",
        ),
        ([row(0.2), row(1.0, name=EXPERT)], "", "no target is required; 400 episodes in 25 s"),
    ],
)
def test_the_verdict_is_one_sentence(rows: list[schema.Success], tone: str, said: str) -> None:
    assert answer.verdict(rows) == (said, tone)


def test_where_targets_come_from_is_said_once() -> None:
    course = "what a course expects"
    rows = [row(0.95, Target(value=value, source=course), name=f"p{value}") for value in (0.85, 0.65, 0.851)]
    made = report(success=[*rows, row(0.95, Target(value=0.5), name="mine")])
    for shown in (answer.terminal(made), views.terminal(made), page.render(made, views.sections(made))):
        assert shown.count("targets 0.65, 0.85, 0.85: what a course expects") == 1
    assert course not in answer.terminal(report(success=[row(0.95, Target(value=0.5))]))


def whole() -> schema.Report:
    names = ("vqbet", "bet", "act", "bc", "diffusion")
    rows = [row(0.95, REQUIRED, name=name) for name in names]
    rows += [row(1.0, name=EXPERT), row(0.0, name=UNTRAINED), row(0.775, REQUIRED, name="mine")]
    return report(success=rows, tokenizers=[tokenizer()], latency=[latency_row(), latency_row(batch=64)])


def test_a_run_of_all_shipped_policies_ends_with_at_most_fifteen_lines() -> None:
    """The line with il_bench's name, what is left out and where the report is are three more."""
    lines = answer.terminal(whole()).splitlines()
    assert len(lines) <= 12
    assert lines[0].startswith("5 of 6 required gates PASS; mine INCONCLUSIVE; nothing got worse")
    assert lines[1].split() == [
        "policy",
        "success_rate",
        *(["against", "target", "against", "baseline"]),
        "episodes",
        "seconds",
    ]
    assert [line.split()[0] for line in lines[2:]] == [
        *("act", "bc", "bet", "diffusion", "vqbet", "mine", EXPERT, UNTRAINED, "mine:")
    ]
    assert "more episodes would decide" in lines[-1]
    assert answer.left_out(whole()) == "1 tokenizers, 2 latencies"
    assert answer.terminal(report(latency=[latency_row()])) == "", "no policy was rolled out"


@pytest.mark.parametrize("width", [40, 60, 80, 100, 200])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    text = answer.terminal(whole(), width=width)
    assert max(map(len, text.splitlines())) <= width
    assert "0.775" in text and "INCONCLUSIVE" in text.replace("\n", "")
    assert ("seconds" in text) == (width >= 100)


def test_colour_is_for_terminals_that_want_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def shown(**terminal: Any) -> str:
        return answer.terminal(whole(), width=100, **terminal)

    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[32mPASS" in shown(color=True) and "\x1b" not in shown()
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[32m" not in shown(color=True)


def test_names_are_text_and_short() -> None:
    rows = [row(0.5, name=name) for name in ("l\xe4ufe", r"\x1b[31m", "b" * 500)]
    text = answer.terminal(report(success=rows), encoding="ascii")
    assert "l?ufe " in text and f"{'b' * 16}...{'b' * 15} " in text and text.isascii()
