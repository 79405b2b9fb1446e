"""Real pytest runs, each in a process of its own."""

import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from il_bench.files import reserved
from il_bench.plugin.settings import OPTIONS
from tests.conftest import Run

REPOSITORY = Path(__file__).parents[2]
SUITE = REPOSITORY / "il_bench" / "suite"
pytestmark = pytest.mark.usefixtures("clean_environment")


def collected(result: pytest.RunResult) -> list[str]:
    return [line for line in result.outlines if "::" in line]


def until_closed(terminal: int) -> Iterator[bytes]:
    """What programs write to a terminal, until the last of them has ended."""
    with suppress(OSError):  # Linux calls that an input/output error
        while piece := os.read(terminal, 4096):
            yield piece


# ---- options


@pytest.mark.parametrize("plugins", [(), ("-p", "benchmark"), ("-p", "benchmark", "-p", "xdist")])
def test_help_explains_every_option_in_one_group(light: Run, plugins: tuple[str, ...]) -> None:
    result = light(*plugins, "--help")
    assert result.ret == 0
    start = next(i for i, line in enumerate(result.outlines) if line.startswith("il_bench"))
    end = next(i for i in range(start + 1, len(result.outlines)) if result.outlines[i] == "")
    ours = [line.split()[0].split("=")[0] for line in result.outlines[start:end] if line.startswith("  --")]
    assert ours == [option.flag for option in OPTIONS.values()]
    assert "--benchmark is short for it" in " ".join(result.stdout.str().split())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--il-episodes", "many"), "argument --il-episodes: invalid int value: 'many'"),
        (("--il-seeds", "train"), "argument --il-seeds: invalid choice: 'train'"),
        (("--il-target", "0.8"), "--il-target: '0.8' is not METRIC=VALUE"),
        (("--benchmark", "--il-policy", "nowhere"), "--il-policy: nowhere: no such policy"),
        (("--benchmark", "--il-policy", ".", "--il-baselines", "broken.json"), "broken JSON at line 1"),
    ],
)
def test_malformed_options_are_usage_errors_in_one_line(
    pytester: pytest.Pytester, light: Run, arguments: tuple[str, ...], said: str
) -> None:
    pytester.makefile(".json", broken="{")
    result = light(*arguments)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"*ERROR: *{said}*" if "argument" not in said else f"*error: {said}*"])
    assert "Traceback" not in result.stderr.str()


def test_benchmark_is_an_alias_unless_switched_off(light: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IL_BENCH_NO_ALIAS", "1")
    result = light("--benchmark")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*unrecognized arguments: --benchmark*"])


def test_options_of_a_project_and_of_pytest_benchmark_are_not_mistaken_for_ours(
    pytester: pytest.Pytester, light: Run
) -> None:
    pytester.makepyfile("def test_asks(pytestconfig): assert not pytestconfig.getoption('il_benchmark')")
    light("-p", "benchmark", "--benchmark-skip", "--benchmark-min-rounds=2").assert_outcomes(passed=1)
    pytester.makeconftest("def pytest_addoption(parser): parser.addoption('--benchmark', metavar='FILE')")
    light("--benchmark", "mine.json").assert_outcomes(passed=1)


# ---- what is collected, and what runs


@pytest.fixture
def project(pytester: pytest.Pytester) -> pytest.Pytester:
    """Somebody's repository with a test file of its own, named like one of ours."""
    (pytester.path / "policy").mkdir()
    pytester.makepyfile(test_success="def test_mine(): pass")
    return pytester


CHOICE = ("--il-policy", "policy", "--il-baselines", "none.json", "--il-update-baselines")
LIST = ("--collect-only", "-q", "--benchmark", *CHOICE)
OURS = [
    f"il_bench/suite/test_success.py::{name}"
    for name in ("test_success[policy]", "test_untrained", "test_expert")
]


def test_the_suite_is_collected_with_benchmark_only(project: pytest.Pytester, light: Run) -> None:
    assert collected(light("--collect-only", "-q")) == ["test_success.py::test_mine"]
    found = collected(light(*LIST))
    assert found[0] == "test_success.py::test_mine"
    assert [name for name in found if name.startswith("il_bench/suite/test_success.py")] == OURS
    assert all(name.startswith("il_bench/suite/") for name in found[1:])


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--pyargs", "il_bench.suite.test_success"), OURS),
        (("--pyargs", "il_bench.suite.test_success", "il_bench.suite.test_success"), OURS),
        (("--keep-duplicates", "--pyargs", *["il_bench.suite.test_success"] * 2), OURS),
        (("--pyargs", "il_bench.suite.test_success::test_untrained"), OURS[1:2]),
        (("test_success.py",), ["test_success.py::test_mine"]),
    ],
)
def test_files_that_are_named_are_all_that_runs_and_once(
    project: pytest.Pytester, light: Run, arguments: tuple[str, ...], expected: list[str]
) -> None:
    assert collected(light(*LIST, *arguments)) == expected


@pytest.mark.parametrize(
    ("ini", "suite"),
    [
        ("python_files = check_*.py\npython_functions = check_*", ("--pyargs", "il_bench.suite")),
        ("", ("linked/il_bench/suite",)),
    ],
)
def test_from_an_unrelated_folder_the_whole_suite_is_one_argument(
    project: pytest.Pytester, light: Run, ini: str, suite: tuple[str, ...]
) -> None:
    """Also where the project's own tests are called differently, and through a link."""
    project.makeini(f"[pytest]\n{ini}")
    (project.path / "linked").mkdir()
    (project.path / "linked" / "il_bench").symlink_to(SUITE.parent)
    found = collected(light(*LIST, *suite))
    files = {f"il_bench/suite/{path.name}" for path in SUITE.glob("test_*.py")}
    files.remove("il_bench/suite/test_stress.py")  # runs with --il-stress only
    assert {name.partition("::")[0] for name in found} == files
    assert len(set(found)) == len(found)


def test_success_comes_first_and_what_takes_long_is_asked_for(project: pytest.Pytester, light: Run) -> None:
    whole = ("-p", "benchmark", "--collect-only", "-q", "--benchmark", "--pyargs", "il_bench.suite")
    quick, thorough = collected(light(*whole)), collected(light(*whole, "--il-thorough"))
    for found in (quick, thorough):
        files = [name.partition("::")[0] for name in found]
        in_turn = [
            file.removeprefix("il_bench/suite/test_").removesuffix(".py") for file in dict.fromkeys(files)
        ]
        assert in_turn == ["success", "tokenizers", "throughput", "latency", "comparison"]
        assert len(set(found)) == len(found)
    assert set(quick) < set(thorough), "every row of a quick run, and more"
    for row in ("test_fitted[FSQ 8x8x8-", "[act-new chunk-64-bare]", "16384"):
        assert any(row in name for name in thorough), row
        assert not any(row in name for name in quick), row


@pytest.mark.parametrize(
    "testpaths", ["tests/test_architecture.py", "il_bench/suite tests/test_architecture.py"]
)
def test_in_a_checkout_benchmark_means_tests_and_suite(
    pytester: pytest.Pytester, light: Run, monkeypatch: pytest.MonkeyPatch, testpaths: str
) -> None:
    monkeypatch.chdir(REPOSITORY)
    command = ("--collect-only", "-q", "-p", "no:cacheprovider", "-o", f"testpaths={testpaths}")
    options = ("--benchmark", "--il-policy", str(pytester.path), "--il-baselines", "baselines.json")
    found = collected(light(*command, *options))
    assert any(name.startswith("tests/test_architecture.py::") for name in found)
    assert sum(name.startswith("il_bench/suite/test_success.py::test_success[") for name in found) == 1


def test_without_benchmark_marked_tests_are_skipped_with_a_reason(
    pytester: pytest.Pytester, light: Run
) -> None:
    path = pytester.makepyfile(
        """
        import pytest

        @pytest.mark.success
        def test_marked(gate): raise RuntimeError("ran")

        def test_not_marked(gate): pass
        """
    )
    result = light("-rs", "--strict-markers")
    result.assert_outcomes(passed=1, skipped=1)
    result.stdout.fnmatch_lines(["SKIPPED*a benchmark: run it with --benchmark"])
    options = ("--benchmark", "--il-policy", ".", "--il-baselines", "n.json", "--il-update-baselines")
    light(*options, path.name).assert_outcomes(passed=1, failed=1)


def test_policy_is_each_selected_one(pytester: pytest.Pytester, light: Run) -> None:
    for name in ("one", "two"):
        (pytester.path / "runs" / name).mkdir(parents=True)
    pytester.makepyfile(
        """
        import pytest

        def test_selected(policy): pass

        @pytest.mark.parametrize("policy", ["three"], indirect=True)
        def test_own_choice(policy): pass
        """
    )
    found = collected(light("--collect-only", "-q", "--il-policy", "runs/one", "--il-policy", "act=runs/two"))
    assert {name.partition("::")[2] for name in found} == {
        "test_selected[runs/one]",
        "test_selected[act=runs/two]",
        "test_own_choice[three]",
    }


def test_progress_is_a_bar_on_a_terminal_and_lines_elsewhere(pytester: pytest.Pytester, light: Run) -> None:
    path = pytester.makepyfile(
        """
        from il_bench.plugin.fixtures import progress_of

        def test_slow(pytestconfig):
            with progress_of(pytestconfig)("act", 100) as on_block:
                on_block(1, 2)
                on_block(2, 2)
        """
    )
    light().stdout.fnmatch_lines(["act: 100 of 100 episodes, 0 s"])
    controller, terminal = pty.openpty()
    command = [sys.executable, "-m", "pytest", "-p", "il_bench", str(path)]
    with subprocess.Popen(command, stdout=terminal, cwd=pytester.path) as running:
        os.close(terminal)
        shown = b"".join(until_closed(controller))
    os.close(controller)
    assert running.returncode == 0
    assert b"50/100" in shown
    assert b"act: 100" not in shown


# ---- whole runs


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
    result.stderr.fnmatch_lines(["ERROR: *out: another run writes into this folder; * --il-report"])
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
    result.stdout.fnmatch_lines(["no/such-policy: not a local folder, and not to be had from the Hub*"])
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
