"""What projects notice that have il_bench installed: nothing, and the suite copes with what they are like."""

import json
import os
import resource
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from statistics import median

import pytest

from tests.conftest import Run

pytestmark = pytest.mark.usefixtures("clean_environment")


@pytest.mark.parametrize("arguments", [(), ("--benchmark", "--il-policy", ".", "-k", "project")])
def test_a_conftest_further_down_may_add_an_option_of_the_alias_name(
    pytester: pytest.Pytester, light: Run, arguments: tuple[str, ...]
) -> None:
    """What stands on the command line is ours: pytest knows nothing of the other yet."""
    folder = pytester.mkpydir("packages")
    (folder / "conftest.py").write_text(
        "def pytest_addoption(parser): parser.addoption('--benchmark', default='x')\n"
    )
    (folder / "test_project.py").write_text(
        "def test_project(pytestconfig):\n"
        "    assert pytestconfig.getoption('--benchmark') == 'x'\n"
        f"    assert pytestconfig.getoption('il_benchmark') is {bool(arguments)}\n"
    )
    (pytester.path / "none.json").write_text('{"schema": 1, "gates": {}}')
    light("-p", "no:cacheprovider", "--il-baselines", "none.json", *arguments).assert_outcomes(
        passed=1, deselected=None
    )


def test_an_empty_project_imports_nothing_heavy(pytester: pytest.Pytester, light: Run) -> None:
    pytester.makeconftest(
        """
        import sys
        from pathlib import Path

        def pytest_unconfigure(config):
            Path(config.invocation_params.dir, "modules.txt").write_text("\\n".join(sys.modules))
        """
    )
    pytester.makepyfile("def test_nothing(): pass")

    def modules(result: pytest.RunResult) -> set[str]:
        result.assert_outcomes(passed=1)
        return set((pytester.path / "modules.txt").read_text().split())

    without = modules(pytester.runpytest_subprocess("-p", "no:il_bench"))
    added = {name.partition(".")[0] for name in modules(light()) - without}
    assert "il_bench" in added
    assert added - {"il_bench"} <= sys.stdlib_module_names


def test_an_empty_project_runs_as_fast_as_without(tmp_path: Path) -> None:
    """Processor time, in turns; other programs on the machine disturb some: the median, and patience."""
    (tmp_path / "test_nothing.py").write_text("def test_nothing(): pass\n")
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(tmp_path / "compiled")}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # users compile il_bench once, not in every run
    others = {entry.name for entry in metadata.entry_points(group="pytest11")} - {"il_bench"}
    without = [argument for name in ("cacheprovider", *others) for argument in ("-p", f"no:{name}")]
    base = [sys.executable, "-m", "pytest", "-q", *without, str(tmp_path)]

    def seconds(*arguments: str) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([*base, *arguments], env=environment, stdout=subprocess.DEVNULL, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    seconds()
    turns: list[float] = []
    for _ in range(5):
        turns += [seconds() / seconds("-p", "no:il_bench") for _ in range(5)]
        if median(turns) < 1.1:
            return
    pytest.fail(f"{median(turns):.2f} times as long as without: {turns}")


def test_other_projects_markers_and_fixtures_stay_theirs(pytester: pytest.Pytester, light: Run) -> None:
    pytester.makepyfile(
        """
        import pytest

        @pytest.fixture
        def policy():
            return "a policy of insurance"

        @pytest.mark.latency
        def test_own_fixture(policy):
            assert policy == "a policy of insurance"

        @pytest.mark.success
        @pytest.mark.parametrize("policy", ["fire", "flood"])
        def test_own_parameter(policy):
            assert policy in ("fire", "flood")
        """
    )
    light("--strict-markers").assert_outcomes(passed=3)


def test_the_suite_does_not_care_what_a_project_calls_its_fixtures(
    pytester: pytest.Pytester, light: Run, short: None
) -> None:
    names = ("policy", "evaluate", "gate", "tokenizer", "expert", "report", "time")
    made = "\n".join(f"@pytest.fixture(scope='session')\ndef {name}(): return 'mine'\n" for name in names)
    conftest = pytester.path / "conftest.py"
    conftest.write_text(f"{conftest.read_text()}\nimport pytest\n{made}")
    pytester.makepyfile(
        f"def test_mine({', '.join(names)}): assert {{{', '.join(names)}}} == {{'mine'}}\n"
        "def test_of_ours(tokenizer, pusht_env): assert tokenizer == 'mine'"
    )
    result = light(
        *("--benchmark", "--il-policy", "bet", "--il-baselines", "n.json", "--il-update-baselines"),
        *("--il-episodes", "50", "--il-workers", "1", "-p", "no:cacheprovider"),
        *("-k", "test_success or test_mine or test_of_ours or test_tokenizer"),
    )
    outcomes = result.parseoutcomes()
    assert outcomes["passed"] == 4 and not {"failed", "errors"} & {*outcomes}
    report = json.loads((pytester.path / "il-bench-report" / "report.json").read_text())
    assert [row["policy"] for row in report["success"]] == ["bet"]
    assert [row["tokenizer"] for row in report["tokenizers"]] == ["bet: KMeans"]


@pytest.mark.slow
def test_one_policy_does_not_disturb_the_next_and_keeps_what_it_needs(
    pytester: pytest.Pytester, light: Run, short: None
) -> None:
    """A policy whose loading sets an environment variable finds it when it runs; nobody else does."""
    conftest = pytester.path / "conftest.py"
    conftest.write_text(
        f"""{conftest.read_text()}
import os
import torch

class Mine:
    def __init__(self, n): self.n = n
    def reset(self): assert os.environ.get("OF_FIRST") == ("1" if self.n == 1 else None)
    def select_action(self, batch): return batch["observation.state"]

def first(device):
    os.environ["OF_FIRST"] = "1"
    torch.set_default_dtype(torch.float64)
    return Mine(1)

def pytest_il_bench_register(registry):
    registry.policy("first", first)
    registry.policy("second", lambda device: Mine(2))
"""
    )
    result = light(
        *("--benchmark", "--pyargs", "il_bench.suite.test_success", "--il-policy", "first"),
        *("--il-policy", "second", "--il-baselines", "n.json", "--il-update-baselines"),
        *("--il-episodes", "50", "-p", "no:cacheprovider"),
    )
    assert result.parseoutcomes()["passed"] == 2
    said = (
        "policy first, while it was loaded, changed torch's default dtype (torch.float32 -> torch.float64), "
    )
    assert f"{said}the environment variables OF_FIRST; put back" in result.stdout.str()
