"""What the suite measures beside success, which test_plugin.py and test_report.py cover."""

import json
from pathlib import Path

import pytest
import torch

from il_bench.policies.loading import load_policy
from il_bench.suite import timing


def test_acting_is_one_prediction_and_all_its_actions(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = load_policy(checkpoint)
    work = timing.acting(policy, batch=3)
    assert work.n == 3 * policy.policy.config.n_action_steps
    calls = []
    predict = policy.policy.predict_action_chunk
    monkeypatch.setattr(
        policy.policy,
        "predict_action_chunk",
        lambda *args, **kwargs: calls.append(0) or predict(*args, **kwargs),
    )
    for _ in range(4):
        work.call()
    assert len(calls) == 4


def test_latency_is_of_fresh_predictions_on_one_thread(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = load_policy(checkpoint)
    calls, predict = [], policy.policy.predict_action_chunk

    def counted(*args: object, **kwargs: object) -> object:
        calls.append(torch.get_num_threads())
        return predict(*args, **kwargs)

    monkeypatch.setattr(policy.policy, "predict_action_chunk", counted)
    before = torch.get_num_threads()
    row = timing.latency(policy, 1, "cpu")
    assert torch.get_num_threads() == before
    assert calls == [1] * (row.n + timing.WARM_UP)
    assert timing.FEWEST_CALLS <= row.n <= timing.MOST_CALLS
    assert 0.0 < row.p50_ms <= row.p90_ms <= row.p99_ms
    assert row.peak_memory_mb is None


def test_speed_is_reported(
    pytester: pytest.Pytester, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)  # it would be taken for a run with -n
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    result = pytester.runpytest_subprocess(
        *("-p", "il_bench", "-p", "benchmark", "--benchmark", "--il-policy", f"mine={checkpoint}"),
        *("--il-baselines", "none.json", "--il-update-baselines", "-m", "throughput or latency"),
        *("--pyargs", "il_bench.suite"),
    )
    assert result.ret == 0
    report = json.loads((pytester.path / "il-bench-report" / "report.json").read_text())
    assert [row["policy"] for row in report["latency"]] == ["mine"]
    rows = [(row["what"], row["batch"]) for row in report["throughput"]]
    assert rows == [("mine: select_action", 1), ("mine: select_action", 50)]
    assert all(row["per_second"] > 0 for row in report["throughput"])
    assert not (pytester.path / "none.json").exists(), "speed alone makes no baseline"
