"""Options, what is collected, and what runs: real pytest runs, each in a process of its own."""

import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

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
