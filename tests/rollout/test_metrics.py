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
from tests.report.made import report

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


COVERED = replace(
    EPISODES,
    best_coverage=np.array([0.96, 0.90, 0.97, 0.5]),
    final_coverage=np.array([0.96, 0.85, 0.97, np.nan]),
    last_reward=np.array([1.0, 0.95, 1.0, -3.0]),
)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("best_coverage_90_rate", [1, 1, 1]),
        ("last_reward_95_rate", [1, 1, 1]),
        ("mean_last_reward", [1, 0.95, 1]),
        ("mean_final_coverage", [0.96, 0.85, 0.97]),
    ],
)
def test_what_others_publish_is_of_the_episodes_whose_coverage_is_known(name: str, values: list) -> None:
    assert METRICS[name].values(COVERED).tolist() == values
    assert METRICS[name].values(EPISODES).size == 0
    assert not METRICS[name].gated


@pytest.mark.parametrize(
    ("name", "below", "at"),
    [("best_coverage_90_rate", 0.8999, 0.9), ("last_reward_95_rate", 0.9499, 0.95)],
)
def test_thresholds_are_what_they_are_called(name: str, below: float, at: float) -> None:
    ends = np.array([below, at, below, below])
    found = replace(EPISODES, best_coverage=ends, last_reward=ends, final_coverage=ends)
    assert METRICS[name].values(found).tolist() == [0, 1, 0, 0]


def test_a_report_tells_each_metric_with_its_publisher_beside_what_is_published(tmp_path: Path) -> None:
    of = spread(0.5, n=50)
    ends = np.where(of.success, 0.97, 0.91)
    of = replace(of, best_coverage=ends, final_coverage=ends, last_reward=np.minimum(ends / 0.95, 1))
    row = row_of(load_policy("expert"), of, PolicyGates("mine").verdict(of))
    older = row.model_copy(update={"policy": "older", "metrics": {}})  # its episodes say them all
    schema.save(tmp_path / "report.json", report(success=[row, older]))
    done = CliRunner().invoke(app, ["metrics", str(tmp_path)])
    assert done.exit_code == 0, done.output
    parts = dict(part.split(": ", 1) for part in done.output.split("\n\n") if ": " in part)
    assert list(parts)[: len(METRICS)] == list(METRICS)
    assert "published by LeRobot, as pc_success in percent" in parts["success_rate"]
    for name, rate in (("success_rate", "0.500 ["), ("last_reward_95_rate", "1.000 [")):
        lines = parts[name].splitlines()
        assert sum(line.startswith(("  expert ", "  older ")) and rate in line for line in lines) == 2
    strict = [float(found) for found in re.findall(r"published: .*?  (0\.\d+)", parts["success_rate"])]
    assert strict == sorted(strict, reverse=True) and len(strict) >= 5
    assert "0.816" in parts["last_reward_95_rate"] and "Embodimetry" in parts["last_reward_95_rate"]
    tables = views.terminal(report(success=[row]))
    assert "mean_final_coverage" in tables.split("last_reward_95_rate")[1]


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
    made = report(success=[row])
    assert [path.exists() for path in views.write(made, tmp_path)[0]] == [True] * 2
    shown = re.escape(shortest.text(*row.metrics["mean_fewest"].model_dump().values()))
    page = (tmp_path / "report.html").read_text()
    for text in (views.terminal(made), views.terminal(made, width=200), page):
        assert "mean_fewest" in text and re.search(shown, text)
    assert "mean_fewest" not in views.terminal(made, width=116), "there is no room"
    done = CliRunner().invoke(app, ["evaluate", "expert", "--episodes", "1"])
    assert re.search(r"^mean_fewest \d+\.0 \[\d+\.\d, \d+\.\d\]$", done.output, re.MULTILINE)
