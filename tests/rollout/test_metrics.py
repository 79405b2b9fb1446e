"""What each metric makes of episodes, and that one definition shows in every view."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from il_bench.cli import app
from il_bench.errors import IlBenchError
from il_bench.gate import check_target
from il_bench.gate.verdict import PolicyGates
from il_bench.policies.checkpoint import load_policy
from il_bench.report import schema, views
from il_bench.report.success import row_of
from il_bench.rollout import Outcomes
from il_bench.rollout.metrics import METRICS, Metric, gated_metric
from tests.gate.made import spread

EPISODES = Outcomes([5, 6, 7, 8], [1, 0, 1, 0], [1.0, 0.25, 1.0, 0.0], [80, 300, 120, 300], [0] * 4)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "values", "estimate", "text"),
    [
        ("success_rate", [1, 0, 1, 0], 0.5, "0.500 [0.10, 0.90]"),
        ("mean_max_reward", [1, 0.25, 1, 0], 0.5625, "0.562 [0.10, 0.90]"),
        ("mean_steps_to_success", [80, 120], 100.0, "100.0 [0, 1] steps"),
    ],
)
def test_a_metric_is_the_mean_of_its_values(name: str, values: list, estimate: float, text: str) -> None:
    metric = METRICS[name]
    assert metric.values(EPISODES).tolist() == values
    assert metric.values(EPISODES).dtype == np.float64
    assert metric.estimate(EPISODES) == estimate
    assert metric.text(estimate, 0.1, 0.9) == text


def test_without_a_successful_episode_there_are_no_steps_to_success() -> None:
    failed = replace(EPISODES, success=np.zeros(4, bool))
    assert np.isnan(METRICS["mean_steps_to_success"].estimate(failed))
    assert METRICS["success_rate"].estimate(failed) == 0.0


def test_only_gated_metrics_take_a_target() -> None:
    assert gated_metric("mean_max_reward") is METRICS["mean_max_reward"]
    for name in ("mean_steps_to_success", "reward"):
        with pytest.raises(IlBenchError, match=f"metric = '{name}': need 'success_rate' or 'mean_max"):
            check_target([1.0], target=0.8, metric=name)


def test_one_definition_shows_in_the_report_the_terminal_the_page_and_il_bench_evaluate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a metric that no other file knows."""
    shortest = Metric(
        name="mean_fewest",
        about="as few steps as that",
        publishers="nobody",
        values=lambda outcomes: outcomes.n_steps[:1].astype("float64"),
        low=1.0,
        high=None,
        digits=1,
    )
    monkeypatch.setitem(METRICS, shortest.name, shortest)
    of = spread(0.5, n=50)
    row = row_of(load_policy("expert"), of, PolicyGates("mine").verdict(of))
    assert row.metrics["mean_fewest"].estimate == 100.0
    report = schema.Report.model_validate(
        {"created": "2026-01-02T03:04:05Z", "environment": {}, "success": [row]}
    )
    assert [path.exists() for path in views.write(report, tmp_path)[0]] == [True] * 2
    shown = re.escape(shortest.text(*row.metrics["mean_fewest"].model_dump().values()))
    page = (tmp_path / "report.html").read_text()
    for text in (views.terminal(report), views.terminal(report, width=200), page):
        assert "mean_fewest" in text and re.search(shown, text)
    assert "mean_fewest" not in views.terminal(report, width=116), "there is no room"
    done = CliRunner().invoke(app, ["evaluate", "expert", "--episodes", "1"])
    assert re.search(r"^mean_fewest \d+\.0 \[\d+\.\d, \d+\.\d\]$", done.output, re.MULTILINE)
