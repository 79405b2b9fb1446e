"""Times kept in report.json, and what a later run is told of them."""

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from il_bench.errors import IlBenchError
from il_bench.latency import regression
from il_bench.report import schema, views
from il_bench.report.rows import Stored

MACHINE = {"cpu": "one", "cores": 2, "device": "cpu", "threads": 1}


def row(factor: float = 1.0, *, speed: float = 1.0, seed: int = 0, **changed: Any) -> Stored:
    """A run whose calls take `factor` times as long as usual, on a machine `speed` times as slow."""
    rng = np.random.default_rng(seed)
    shape = (regression.PROCESSES, regression.ROUNDS)
    drift = speed * np.exp(rng.normal(0.0, 0.05, regression.ROUNDS))
    processes = np.exp(rng.normal(0.0, 0.01, (regression.PROCESSES, 1)))

    def times(seconds: float) -> tuple[tuple[float, ...], ...]:
        found = seconds * drift * np.exp(rng.normal(0.0, 0.01, shape))
        return tuple(map(tuple, found.tolist()))

    blocks = np.asarray(times(2e-3 * factor)) * processes
    values: dict[str, Any] = {
        "policy": "bc",
        "what": "new chunk",
        "batch": 1,
        "device": "cpu",
        "verdict": "kept",
        "clock": "processor",
        "sha256": None,
        "blocks": tuple(map(tuple, blocks.tolist())),
        "yardstick": times(5e-4),
        "machine": MACHINE,
        "versions": {"torch": "2"},
    }
    return Stored.model_validate(values | changed)


def against(then: Stored, now: Stored) -> Stored:
    return regression.against(then, now, Path("old.json"))


def test_a_slowdown_fails_the_run_on_the_same_machine() -> None:
    found = against(row(), row(1.25, seed=1))
    assert (found.verdict, found.gate, found.differs) == ("slower", True, ())
    assert found.ratio == pytest.approx(1.25, abs=0.03)
    assert "bc: slower than in old.json" in str(regression.problem(found))


def test_the_same_again_passes_and_is_never_called_slower() -> None:
    found = [against(row(), row(seed=seed)) for seed in range(1, 60)]
    assert all(regression.problem(each) is None for each in found)
    assert sum(each.verdict == "equivalent" for each in found) > 40


@pytest.mark.parametrize(
    ("changed", "differs"),
    [
        ({"cpu": "another", "threads": 4}, ("cpu was 'one', is 'another'", "threads was 1, is 4")),
        ({"driver": "5"}, ("driver was None, is '5'",)),
    ],
)
def test_another_machine_is_no_gate_and_the_field_is_named(
    changed: dict[str, Any], differs: tuple[str, ...]
) -> None:
    found = against(row(), row(1.5, seed=1, machine=MACHINE | changed))
    assert (found.verdict, found.gate, found.differs) == ("slower", False, differs)
    assert regression.problem(found) is None


def test_new_versions_on_the_same_machine_stay_a_gate() -> None:
    found = against(row(), row(1.3, seed=1, versions={"torch": "3"}))
    assert regression.problem(found) is not None


def test_a_machine_that_became_a_little_slower_is_not_the_policys_doing() -> None:
    found = against(row(), row(speed=1.08, seed=1))
    assert found.gate
    assert found.ratio == pytest.approx(1.0, abs=0.03)
    assert regression.problem(found) is None


def test_a_machine_in_another_state_gates_nothing_and_says_so() -> None:
    """Half as fast, and the policy suffers less than the yardstick: no verdict can be had from that."""
    found = against(row(), row(0.8, speed=2.0, seed=1))
    assert (found.verdict, found.gate) == ("inconclusive", False)
    said = re.search(r"the yardstick takes ([\d.]+) times as long", found.differs[0])
    assert said is not None and float(said[1]) == pytest.approx(2.0, abs=0.02)


def test_a_gpu_has_no_yardstick_and_is_compared_by_its_times() -> None:
    then, now = (row(f, seed=s, yardstick=None, clock="wall", device="cuda") for f, s in ((1.0, 0), (1.3, 1)))
    found = against(then, now)
    assert found.ratio == pytest.approx(1.3, abs=0.1)


def report(*rows: Stored) -> schema.Report:
    return schema.Report(created=datetime.now(UTC), environment={}, comparisons=rows)


def test_it_is_found_again_in_a_report(tmp_path: Path) -> None:
    kept = row()
    schema.save(tmp_path / "report.json", report(kept, row(policy="act")))
    assert regression.find(tmp_path / "report.json", row(seed=3)) == kept


@pytest.mark.parametrize("rows", [(), (row(policy="act"),)])
def test_a_report_without_it_is_refused_with_the_way_out(rows: tuple[Stored, ...], tmp_path: Path) -> None:
    schema.save(tmp_path / "report.json", report(*rows))
    said = r"no times of bc on cpu; make it with --benchmark --il-keep-blocks"
    with pytest.raises(IlBenchError, match=said):
        regression.find(tmp_path / "report.json", row())


def test_the_table_shows_the_verdict_and_leaves_the_blocks_out() -> None:
    found = against(row(), row(1.5, seed=1, machine={**MACHINE, "cpu": "another"}))
    text = views.terminal(report(found))
    for said in ("comparisons", "slower", "cpu was 'one', is 'another'"):
        assert said in text
    assert "yardstick" not in text
