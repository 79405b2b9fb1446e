"""The script for a GPU, on the CPU: the rows that it makes, and that one failure costs its own row only."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmarks import latency_gpu


def test_every_row_is_there_or_says_why_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency_gpu, "rolled_out", lambda name, device: {"episodes_per_second": 1.0})
    output, app = tmp_path / "rows.json", latency_gpu.typer.Typer()
    app.command()(latency_gpu.main)
    arguments = ["--device", "cpu", "--policy", "bc", "--mode", "eager", "--mode", "cuda graph"]
    done = CliRunner().invoke(app, [*arguments, "--seconds", "4", "--output", str(output)])
    assert done.exit_code == 0, done.output
    found = json.loads(output.read_text())
    rows = {(row["mode"], row["batch"]): row for row in found["calls"]}
    assert set(rows) == {(mode, batch) for mode in ("eager", "cuda graph") for batch in (1, 64)}
    eager = rows["eager", 1]
    assert eager["n"] >= 6 and eager["p50_ms"] > 0 and eager["first_call_ms"] > 0
    assert 0 <= eager["late_10_hz"] <= eager["late_30_hz"] <= eager["late_50_hz"] <= 1
    assert "has no graphs" in rows["cuda graph", 64]["not_run"]
    assert "not run: bc, 64, cuda graph: cuda graph: cpu has no graphs" in done.output
    assert found["rollouts"][0]["episodes_per_second"] == 1.0
