"""`il-bench plan`: what a run will show, before it runs."""

import re
from typing import Any

import pytest
from typer.testing import CliRunner

from il_bench import rollout
from il_bench.cli import app
from tests.gate.made import episodes


def planned(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["plan", *arguments])
    assert result.exit_code == 0, result.output
    return result.output


def test_a_plan_says_how_many_episodes_a_verdict_takes() -> None:
    output = planned("--target", "0.85", "--true-rate", "0.9", "--episodes", "500")
    (row,) = (line.split() for line in output.splitlines() if line.strip().startswith("0.900"))
    assert row[1].endswith("%") and 100 < int(row[4]) < 250
    assert "at most 500 episodes" in output
    assert re.search(r"^200 episodes find a rate of 0\.7\d\d \(FAIL in 80% of all runs\)$", output, re.M)
    assert re.search(r"^500 episodes find a rate of 0\.7\d\d \(FAIL", output, re.M)


def test_without_a_rate_it_shows_several() -> None:
    rows = re.findall(r"^ *(0\.\d{3}) ", planned("--target", "0.85"), re.M)
    assert rows == ["0.900", "0.850", "0.825", "0.800", "0.750"]


def test_few_episodes_find_nothing() -> None:
    assert "10 episodes find no drop, however large" in planned("--target", "0.85", "--episodes", "10")


def test_what_episodes_cost_is_measured_here(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    fifty = episodes([True] * 50, first=100_000)
    monkeypatch.setattr(rollout, "rollout", lambda source, *_, **__: asked.append(source) or fifty)
    output = planned("--target", "0.85", "--policy", "expert")
    assert "expert: 12.5 s for 50 episodes here" in output and "all 1,000 would take 4 min" in output
    assert asked[0].name == "expert", "loaded once, before the clock runs"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--target", "1.5"], "--target: 1.5, --margin: 0.05; need 0 < margin < target < 1"),
        (["--target", "0.5", "--margin", "0.5"], "need 0 < margin < target < 1"),
        (["--target", "0.5", "--true-rate", "85"], "--true-rate: 85; need a share from 0 to 1"),
    ],
)
def test_what_cannot_be_planned_is_one_sentence(arguments: list[str], said: str) -> None:
    result = CliRunner().invoke(app, ["plan", *arguments])
    assert result.exit_code == 2 and said in result.output
