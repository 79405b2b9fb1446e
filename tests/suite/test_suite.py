"""What the suite measures beside success, which test_plugin.py and test_report.py cover."""

import json
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import pytest

from il_bench.policies.checkpoint import LoadedPolicy, wrap_object
from il_bench.suite import throughput
from tests.latency.fakes import PixelPolicy


def test_acting_is_one_prediction_and_all_its_actions(
    policy: LoadedPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = throughput.acting(policy, batch=3)
    assert work.n == 3 * policy.policy.config.n_action_steps
    predict = Mock(side_effect=policy.policy.predict_action_chunk)
    monkeypatch.setattr(policy.policy, "predict_action_chunk", predict)
    for _ in range(4):
        work.call()
    assert predict.call_count == 4


def test_a_policy_on_images_acts_on_images() -> None:
    work = throughput.acting(wrap_object(PixelPolicy(), name="eye", checkpoint="memory"), batch=3)
    work.call()
    assert work.n == 3


@pytest.mark.slow
def test_speed_is_reported(
    suite: Callable[..., pytest.RunResult], pytester: pytest.Pytester, checkpoint: Path
) -> None:
    result = suite(
        *("-p", "benchmark", "--il-policy", f"mine={checkpoint}", "--pyargs", "il_bench.suite"),
        *("--il-baselines", "none.json", "--il-update-baselines", "-m", "throughput or latency"),
        *("-k", "not fresh and not 64] and not 64-", "--benchmark-json", "times.json"),
        *("--il-thorough", "--il-latency", "short", "-v"),
    )
    assert result.ret == 0
    report = json.loads((pytester.path / "il-bench-report" / "report.json").read_text())
    timed = {(row["what"], row["batch"], row["processed"]): row for row in report["latency"]}
    assert len(timed) == len(report["latency"]) == 8
    assert all(row["policy"] == "mine" and row["n"] >= 6 and row["p50_ms"] > 0 for row in timed.values())
    assert timed["new chunk", 1, True]["p50_ms"] > timed["queued action", 1, True]["p50_ms"]
    result.stdout.fnmatch_lines(["latency", "policy *new chunk*"])
    stored = json.loads((pytester.path / "times.json").read_text())["benchmarks"]
    kept = {
        tuple(each["extra_info"][name] for name in ("what", "batch", "processed")): each["stats"]
        for each in stored
        if each["group"] and each["group"].startswith("latency: ")
    }
    for call, row in timed.items():  # pytest-benchmark's own file holds the samples that rows were made of
        assert kept[call]["rounds"] == row["n"]
        assert row["p50_ms"] * row["steps"] == pytest.approx(1e3 * kept[call]["median"])
    rows = [(row["what"], row["batch"]) for row in report["throughput"]]
    assert rows == [("mine: select_action", 1), ("mine: select_action", 50)]
    assert all(row["per_second"] > 0 for row in report["throughput"])
    assert not (pytester.path / "none.json").exists(), "speed alone makes no baseline"
