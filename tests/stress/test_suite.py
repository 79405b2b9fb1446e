import json
from functools import partial
from pathlib import Path

import pytest

from tests.conftest import Run


@pytest.mark.slow
@pytest.mark.usefixtures("short")
def test_il_stress_adds_a_row_an_arm_and_a_resumed_run_repeats_none(
    light: Run, pytester: pytest.Pytester, checkpoint: Path
) -> None:
    run = partial(
        light, "--benchmark", "-k", "stress", "--il-policy", f"tiny={checkpoint}", "--il-episodes", "2"
    )
    without = run()
    without.assert_outcomes()
    first = run("--il-stress", "--il-workers", "1")
    first.assert_outcomes(passed=1, skipped=1)  # the expert is a row of whole tables only
    report = json.loads((pytester.path / "il-bench-report" / "report.json").read_text())
    arms = [row["arm"] for row in report["stress"]]
    assert {"delay", "overlap", "noise", "friction", "start"} < set(arms)
    assert len(arms) == len(set(arms))
    journals = sorted((pytester.path / "il-bench-report" / "stress" / "journal").glob("*.jsonl"))
    assert len(journals) == 1 + sum(len(row["levels"]) for row in report["stress"])
    for journal in journals:
        cell = json.loads(journal.read_text().splitlines()[0])["fingerprint"]["stress"]
        assert cell == "undisturbed" or cell.split()[0] in arms
    before = [journal.read_bytes() for journal in journals]
    again = run("--il-stress", "--il-workers", "2", "--il-resume")
    again.assert_outcomes(passed=1, skipped=1)
    assert [journal.read_bytes() for journal in journals] == before
    assert (
        json.loads((pytester.path / "il-bench-report" / "report.json").read_text())["stress"]
        == report["stress"]
    )
