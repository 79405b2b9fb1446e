import json
from functools import partial
from pathlib import Path

import pytest

from tests.conftest import Run


@pytest.mark.slow
@pytest.mark.usefixtures("short")
def test_a_target_under_stress_fails_the_run_and_one_of_no_level_is_refused(
    light: Run, pytester: pytest.Pytester, checkpoint: Path
) -> None:
    path = pytester.path / "mine.json"
    given = ("--il-policy", f"tiny={checkpoint}", "--il-baselines", path)
    run = partial(light, "--benchmark", "--il-stress", "-m", "success", "--il-episodes", "2", *given)
    target = {"value": 0.9, "margin": 0.5, "alpha": 0.5, "required": True}
    for cell, status, said in (
        ("delay 1", 1, "*tiny under delay 1: required success_rate of 0.9: FAIL*"),
        (
            "delay 3",
            2,
            "*gates.tiny.keypoints.arms: 'delay 3' is not an arm and level of this policy; use one of*",
        ),
    ):
        path.write_text(json.dumps({"schema": 2, "gates": {"tiny": {"keypoints": {"arms": {cell: target}}}}}))
        found = run("-k", "test_stress", "--il-workers", "1")
        assert found.ret in (1, status)
        found.stdout.fnmatch_lines([said])


@pytest.mark.slow
@pytest.mark.usefixtures("short")
def test_il_stress_adds_a_row_an_arm_and_a_resumed_run_repeats_none(
    light: Run, pytester: pytest.Pytester, checkpoint: Path
) -> None:
    run = partial(light, "--benchmark", "-m", "success", "--il-episodes", "2")
    run = partial(run, "--il-policy", f"tiny={checkpoint}")
    path = pytester.path / "il-bench-report" / "report.json"
    assert run().ret == 0
    assert json.loads(path.read_text())["stress"] == []
    assert run("--il-stress", "--il-workers", "1").ret == 0
    report = json.loads(path.read_text())
    assert {row["policy"] for row in report["stress"]} == {"tiny"}  # the expert's is a row of whole tables
    arms = [row["arm"] for row in report["stress"]]
    assert {"delay", "overlap", "noise", "friction", "start"} < set(arms)
    assert len(arms) == len(set(arms))
    journals = sorted((pytester.path / "il-bench-report" / "stress" / "journal").glob("*.jsonl"))
    assert len(journals) == 1 + sum(len(row["levels"]) for row in report["stress"])
    for journal in journals:
        cell = json.loads(journal.read_text().splitlines()[0])["fingerprint"]["stress"]
        assert cell == "undisturbed" or cell.split()[0] in arms
    before = [journal.read_bytes() for journal in journals]
    assert run("--il-stress", "--il-workers", "2", "--il-resume").ret == 0
    assert [journal.read_bytes() for journal in journals] == before
    assert json.loads(path.read_text())["stress"] == report["stress"]
