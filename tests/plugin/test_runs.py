"""Whole runs, of tests that only report rows and of the suite: what is written and said, and the status."""

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from il_bench.files import reserved
from tests.conftest import Run

pytestmark = pytest.mark.usefixtures("clean_environment")
CHOICE = ("--il-policy", "policy", "--il-baselines", "none.json", "--il-update-baselines")

ROW: dict[str, Any] = {
    "track": "keypoints",
    "data": "none",
    "checkpoint": "none",
    "sha256": None,
    "parameters": 1,
    "baseline": None,
    "n_episodes": 1,
    "success_rate": {"estimate": 1.0, "low": 0.1, "high": 1.0},
    "mean_max_reward": {"estimate": 1.0, "low": 0.1, "high": 1.0},
    "metrics": {},
    "interval": "confidence sequence",
    "share_outside": 0.0,
    "seconds": 1.0,
    "episodes": [
        {
            **{"seed": 200_000, "success": True, "max_reward": 1.0, "n_steps": 9, "outside": 0},
            **{"final_coverage": 0.97, "best_coverage": 0.97, "last_reward": 1.0, "sum_reward": 9.0},
            "ending": "success",
        }
    ],
}


def row(policy: str, decision: str, *, required: bool) -> dict[str, Any]:
    target = {"metric": "success_rate", "value": 0.85, "margin": 0.05, "required": required, "evidence": {}}
    target |= {"decision": decision, "told": "", "source": None}
    return {**ROW, "policy": policy, "decision": decision, "target": target}


RECORDS = """
    import pytest

    @pytest.mark.parametrize("row", {rows!r}, ids=lambda row: row["policy"])
    def test_row(row, il_bench_record, pytestconfig):
        reports = pytestconfig.pluginmanager.has_plugin("il_bench_reporter")
        assert reports is not hasattr(pytestconfig, "workerinput")
        il_bench_record({{"section": "success", "row": row, "fingerprint": {{}}}})
"""


def row_tests(pytester: pytest.Pytester, *rows: dict[str, Any], more: str = "") -> tuple[str, ...]:
    """Arguments that run tests which report these rows."""
    (pytester.path / "policy").mkdir()
    path = pytester.makepyfile(RECORDS.format(rows=list(rows)) + more)
    return ("--benchmark", *CHOICE, path.name)


def test_one_of_several_processes_writes_the_report_and_says_what_is_undecided(
    pytester: pytest.Pytester, light: Run
) -> None:
    rows = [
        row("undecided", "INCONCLUSIVE", required=True),
        row("good", "PASS", required=True),
        row("not-yet", "BELOW TARGET", required=False),
    ]
    workers = ("-p", "xdist", "-p", "xdist.looponfail", "-n", "2", "--junit-xml=junit.xml")
    result = light(*workers, "--il-report", "out", *row_tests(pytester, *rows))
    result.assert_outcomes(passed=3)
    assert result.ret == 6
    result.stdout.fnmatch_lines(["il_bench *: device cpu, track keypoints, test seeds 200000-200999, *"])
    shown = ("good * PASS (> 0.80", "not-yet * BELOW TARGET (< 0.85", "undecided * INCONCLUSIVE (target 0.85")
    result.stdout.fnmatch_lines_random([f"{line}*" for line in shown])
    assert result.stdout.str().count("report: ") == 1
    report = json.loads((pytester.path / "out" / "report.json").read_text())
    assert [each["policy"] for each in report["success"]] == ["good", "not-yet", "undecided"]
    assert rows[1].items() <= report["success"][0].items()
    written = sorted(path.name for path in (pytester.path / "out").iterdir())
    assert written == [".lock", "lerobot", "report.html", "report.json"]
    tests = ElementTree.parse(pytester.path / "junit.xml").iter("testcase")
    properties = {
        each.get("name"): {p.get("name"): p.get("value") for p in each.iter("property")} for each in tests
    }
    assert {
        "il_bench.policy": "undecided",
        "il_bench.target.decision": "INCONCLUSIVE",
        "il_bench.target.value": "0.85",
        "il_bench.success_rate": "1.0",
        "il_bench.success_rate.low": "0.1",
        "il_bench.seeds": "200000-200000",
    }.items() <= properties["test_row[undecided]"].items()


def test_without_a_terminal_plugin_the_report_is_written_and_the_gates_decide(
    pytester: pytest.Pytester, light: Run
) -> None:
    tests = row_tests(pytester, row("undecided", "INCONCLUSIVE", required=True))
    result = light("-p", "no:terminal", "--il-report", "out", *tests)
    assert result.ret == 6 and (pytester.path / "out" / "report.json").exists()
    result.stderr.fnmatch_lines(["0 of 1 required gates PASS; undecided INCONCLUSIVE; *", "exit status 6: *"])


def test_a_second_run_in_one_report_folder_is_refused_before_it_starts(
    pytester: pytest.Pytester, light: Run
) -> None:
    tests = row_tests(pytester, row("mine", "PASS", required=True))
    with reserved(pytester.path / "out", ""):
        result = light("--il-report", "out", *tests)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: *out: another run is writing to this folder; * --il-report"])
    assert [path.name for path in (pytester.path / "out").iterdir()] == [".lock"]


def test_a_history_grows_by_a_line_a_run_and_is_drawn(pytester: pytest.Pytester, light: Run) -> None:
    for tests in (row_tests(pytester, row("mine", "PASS", required=True)), None):
        if tests is None:
            (pytester.path / "policy").rmdir()
            tests = row_tests(pytester, row("mine", "FAIL", required=True))
        result = light("--il-history", "runs/all.jsonl", *tests)
    assert result.ret == 1
    lines = [json.loads(line) for line in (pytester.path / "runs/all.jsonl").read_text().splitlines()]
    assert [line["policies"][0]["target"] for line in lines] == ["PASS", "FAIL"]
    page = (pytester.path / "il-bench-report" / "report.html").read_text()
    assert "2 runs. A ring marks a run" in page and '"changed":true' in page


def test_the_tables_come_with_v_and_before_the_answer(pytester: pytest.Pytester, light: Run) -> None:
    result = light("-v", *row_tests(pytester, row("good", "PASS", required=True)))
    result.stdout.fnmatch_lines(["policy * mean_max_reward *", "1 of 1 required gates PASS; *", "report: *"])


def test_an_undecided_gate_hides_no_failure(pytester: pytest.Pytester, light: Run) -> None:
    undecided = row("undecided", "INCONCLUSIVE", required=True)
    assert light(*row_tests(pytester, undecided, more="\n    def test_wrong(): assert False\n")).ret == 1


def test_the_suite_from_first_baseline_to_missed_target(
    pytester: pytest.Pytester, short: None, checkpoint: Path
) -> None:
    """Through the entry point, without the plugins that il_bench can do without."""

    def suite(*arguments: str) -> pytest.RunResult:
        return pytester.runpytest_subprocess(
            *("-p", "no:xdist", "-p", "no:benchmark", "-p", "no:zarr", "-p", "no:anyio", "-rs"),
            *("--benchmark", "--pyargs", "il_bench.suite", "-m", "success or throughput"),
            *("--il-policy", f"mine={checkpoint}", "--il-workers", "1", "--il-baselines", "mine.json"),
            *("--il-episodes", "50"),
            *arguments,
        )

    first = suite("--il-update-baselines")
    assert first.ret == 0
    first.stdout.fnmatch_lines_random(
        [
            "*mine: 50 of 50 episodes*",
            "mine * NOT GATED *none *50*",
            "  mine (keypoints): new, success_rate 0.000 *",
            "SKIPPED*timed by pytest-benchmark, which is switched off",
        ]
    )
    report = json.loads((pytester.path / "il-bench-report" / "report.json").read_text())
    sections = {"success", "stress", "tokenizers", "throughput", "latency", "comparisons"}
    assert set(report) == {"schema", "created", "environment"} | sections
    described = {"packages", "cpu", "instruction_set", "blas", "gpu", "threads", "commit"}
    assert described <= set(report["environment"])
    assert report["tokenizers"] == [], "those without a policy belong to the whole table"
    (only,) = report["success"]
    assert (only["policy"], only["decision"], only["target"]) == ("mine", "NOT GATED", None)
    spent = report["environment"]["seconds"]["success"]
    assert (
        spent["tests"] == 1
        and spent["wall"] >= spent["wall, preparing"] > 0 < spent["processor, with workers"]
    )
    table = next(place for place, line in enumerate(first.outlines) if line.startswith("mine  "))
    assert any("= il_bench =" in line for line in first.outlines[table:]), "shown before the run ends"
    assert [episode["seed"] for episode in only["episodes"]] == list(range(200_000, 200_050))

    pytester.makeconftest(
        "import il_bench.rollout.blocks\n\nil_bench.rollout.blocks.run_block = None  # nothing runs again\n"
    )
    second = suite("--il-target", "success_rate=0.8", "--il-resume")
    second.stdout.fnmatch_lines(["mine: required success_rate of 0.8: FAIL (< 0.80 shown, * episodes)"])
    second.stdout.fnmatch_lines(["mine * FAIL (< 0.80 shown) *UNCHANGED *50 *"])
    assert second.ret == 1
    assert "in_one_line" not in second.stdout.str(), "a traceback through il_bench"


def test_a_missing_checkpoint_fails_in_one_line(
    pytester: pytest.Pytester, light: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    pytester.makepyfile("def test_asks(policy): pass")
    result = light("--il-policy", "no/such-policy")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(
        ["no/such-policy: not a local folder, and it could not be fetched from the Hub*"]
    )
    assert "load_policy(" not in result.stdout.str()


@pytest.mark.slow
def test_a_good_policy_stops_early_at_the_same_episode_whatever_the_workers(
    pytester: pytest.Pytester, light: Run, checkpoint: Path
) -> None:
    """Good enough for its target: its mean_max_reward is about 0.1."""
    (pytester.path / "none.json").write_text('{"schema": 1, "gates": {}}')

    def row(workers: str) -> dict[str, Any]:
        result = light(
            *("--benchmark", "--pyargs", "il_bench.suite.test_success", "--il-policy", f"mine={checkpoint}"),
            *("--il-baselines", "none.json", "--il-target", "mean_max_reward=0.08", "--il-workers", workers),
            "-v",
        )
        assert result.ret == 0
        result.stdout.fnmatch_lines(["il_bench *, episodes until a policy's gates are decided, *"])
        result.stdout.fnmatch_lines(["mine: * of at most 1000 episodes, *target PASS, *"])
        result.stdout.fnmatch_lines(["95 % confidence sequences, since the episodes ended *: mine"])
        (only,) = json.loads((pytester.path / "il-bench-report" / "report.json").read_text())["success"]
        return {key: value for key, value in only.items() if key != "seconds"}

    alone = row("1")
    assert (alone["decision"], alone["interval"]) == ("PASS", "confidence sequence")
    assert alone["n_episodes"] == len(alone["episodes"]) < 1000
    assert row("2") == alone
