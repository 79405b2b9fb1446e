"""What the suite measures beside success, which test_plugin.py and test_report.py cover."""

import json
import math
import os
from pathlib import Path

import pytest
import torch

from il_bench.fixtures import DATA_VARIABLE
from il_bench.policies.loading import load_policy
from il_bench.suite import timing
from il_bench.suite.tokenizers import described, measure
from il_bench.tokenizers import KMeansTokenizer


def test_a_tokenizers_row_by_hand() -> None:
    """Codes 0, 0, 1 and 3 of four: three are used, and shares 1/2, 1/4, 1/4 have entropy 1.5 ln 2."""
    tokenizer = KMeansTokenizer(4, (1, 2))
    error = torch.tensor([[[1.0, -1.0]], [[3.0, 0.0]], [[0.0, 0.0]], [[0.0, -3.0]]])
    row = described("bet", tokenizer, torch.tensor([[0], [0], [1], [3]]), error)
    assert row.tokenizer == "bet: KMeans"
    assert (row.codebook_size, row.num_quantizers, row.bits_per_chunk) == (4, 1, 2.0)
    assert (row.l1_px, row.usage) == (1.0, 0.75)
    assert math.isclose(row.perplexity, 2**1.5, rel_tol=1e-6)


@pytest.mark.skipif(DATA_VARIABLE not in os.environ, reason=f"{DATA_VARIABLE} names no human data")
@pytest.mark.parametrize("name", ["bet", "vqbet"])
def test_an_embedded_tokenizer_keeps_the_demonstrations(name: str) -> None:
    from il_bench.dataset import open_dataset

    policy = load_policy(name)
    row, mean_px = measure(policy, policy.policy.tokenizer, open_dataset(os.environ[DATA_VARIABLE]))
    assert row.l1_px < mean_px / 2
    assert 1.0 <= row.perplexity <= row.codebook_size


def test_acting_is_one_prediction_and_all_its_actions(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = load_policy(checkpoint)
    act, n = timing.acting(policy, batch=3)
    assert n == 3 * policy.policy.config.n_action_steps
    calls = []
    predict = policy.policy.predict_action_chunk
    monkeypatch.setattr(
        policy.policy,
        "predict_action_chunk",
        lambda *args, **kwargs: calls.append(0) or predict(*args, **kwargs),
    )
    for _ in range(4):
        act()
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
