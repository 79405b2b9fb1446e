"""The composite actions, step by step as GitHub's runner runs them."""

import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from il_bench.gate.baselines import Target
from il_bench.report import schema
from tests.gate.made import episodes, spread
from tests.github import api
from tests.github.runner import ACTIONS, Job, Outputs
from tests.report.made import report
from tests.report.recorded import row

REQUIRED = Target(value=0.8, required=True)
SOLVED = np.arange(200) % 20 != 0
#: In the place of `python`: notes what pip is asked for, and the suite leaves the report in REPORT.
PYTHON = """#!/usr/bin/env bash
case "$1 $2 $3" in
  "-m pip cache") echo /home/runner/.cache/pip ;;
  "-m pip install") printf '%s\\n' "${@:3}" >> "$CALLS/pip" ;;
  "-m pytest "*)
    printf '%s\\n' "${@:3}" > "$CALLS/pytest"
    echo "${IL_TOKEN:-}" > "$CALLS/token"
    mkdir -p il-bench-report
    if [ -e "$CALLS/report.json" ]; then cp "$CALLS/report.json" il-bench-report; fi
    exit "$(cat "$CALLS/status")" ;;
  *) exec PYTHON "$@" ;;
esac
"""


class Runner:
    """A job whose suite leaves a report and a status."""

    def __init__(self, folder: Path, github: api.Repository) -> None:
        self.calls = folder
        self.github = github
        for name in ("workspace", "temp", "bin"):
            (folder / name).mkdir()
        script = folder / "bin" / "python"
        text = PYTHON.replace("PYTHON", sys.executable).replace("$CALLS", str(folder))
        script.write_text(text)
        script.chmod(script.stat().st_mode | stat.S_IXUSR)
        self.job = Job(
            folder / "workspace",
            folder / "temp",
            event={"pull_request": {"number": 7, "base": {"sha": "base123"}}},
            api=github.address,
            path=folder / "bin",
            uses={"actions/upload-artifact": self._upload},
        )
        self.artifacts: dict[str, str] = {}

    def _upload(self, inputs: Outputs) -> Outputs:
        self.artifacts[inputs["name"]] = inputs["path"]
        return {"artifact-url": "https://github.example/artifacts/1"}

    def leaves(self, status: int, *rows: schema.Success) -> None:
        (self.calls / "status").write_text(str(status))
        if rows:
            schema.save(self.calls / "report.json", report(success=rows))

    def asked(self, program: str) -> list[str]:
        return (self.calls / program).read_text().splitlines()


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[Runner]:
    with api.serving() as github:
        yield Runner(tmp_path, github)


def failing() -> schema.Success:
    return row("short", episodes(SOLVED & (np.arange(200) % 3 != 0)), target=REQUIRED)


def passing(name: str = "good") -> schema.Success:
    return row(name, episodes(SOLVED), target=REQUIRED)


def test_a_policy_that_got_worse_is_told_everywhere_and_fails_the_job(runner: Runner) -> None:
    runner.leaves(1, failing(), passing())
    runner.github.files["gates/baselines.json", "base123"] = b'{"of": "the base branch"}'
    runner.github.add("<!-- il-bench: other-report -->\nof another job")
    runner.github.add("<!-- il-bench: il-bench-report -->\na person's", by="User")
    outputs = runner.job.run(
        "il-bench",
        policy="mine=runs/mine\n\nUSER/other\n",
        target="success_rate=0.8",
        episodes="200",
        baselines="gates/baselines.json",
        arguments="--il-device=cpu",
        packages="lerobot_policy_mine",
        torch_index="https://index.example/cpu",
        comment="true",
    )
    job = runner.job
    assert outputs["status"] == "1"
    assert outputs["verdict"].startswith("1 of 2 required gates PASS; short FAIL")
    assert job.outcomes["Decide"] == 1 and job.outcomes["Comment"] == 0
    assert "**il_bench ✗ 1 of 2 required gates PASS" in job.summary and "| short | 0.6" in job.summary
    assert "[The page](https://github.example/artifacts/1)" in job.summary
    assert "::error title=il_bench::short: FAIL against its target: < 0.80 shown" in job.log
    assert runner.artifacts == {"il-bench-report": "il-bench-report"}
    theirs, quote, ours = (each["body"] for each in runner.github.comments)
    assert "of another job" in theirs and quote.endswith("a person's")
    assert ours == f"<!-- il-bench: il-bench-report -->\n{job.summary}"
    wanted = runner.asked("pytest")
    kept = str(runner.calls / "temp" / "il-bench-baselines.json")
    assert wanted == [
        *("--benchmark", "--pyargs", "il_bench.suite", "-m", "success", "--il-report", "il-bench-report"),
        *("--junit-xml", "il-bench-report/junit.xml", "--il-policy", "mine=runs/mine"),
        *("--il-policy", "USER/other", "--il-target", "success_rate=0.8", "--il-episodes", "200"),
        *("--il-baselines", kept, "--il-device=cpu"),
    ]
    assert json.loads(Path(kept).read_text()) == {"of": "the base branch"}
    assert runner.asked("token") == [""], "the policy's own code sees no token"
    asked, root = " ".join(runner.asked("pip")), str(ACTIONS / "il-bench" / ".." / ".." / "..")
    assert (
        f"--constraint {root}/requirements.lock --index-url https://index.example/cpu torch torchvision"
        in asked
    )
    assert asked.endswith(f"{root} lerobot_policy_mine")


@pytest.fixture
def here(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> Runner:
    """The scripts in Python, run in this process: they take no arguments but the environment."""
    for name, value in {
        **{"GITHUB_API_URL": runner.github.address, "GITHUB_REPOSITORY": "owner/name"},
        **{"IL_TOKEN": "the-token", "IL_NAME": "il-bench-report", "IL_STATUS": "0"},
        **{"IL_REPORT": str(runner.calls), "IL_COMMENT": str(runner.calls / "comment.md")},
        **{name: str(runner.calls / name) for name in ("GITHUB_STEP_SUMMARY", "GITHUB_OUTPUT")},
    }.items():
        monkeypatch.setenv(name, value)
    return runner


def script(name: str) -> Any:
    found = spec_from_file_location(f"action_{name}", ACTIONS / "il-bench" / f"{name}.py")
    assert found is not None and found.loader is not None
    module = module_from_spec(found)
    found.loader.exec_module(module)
    return module


def test_the_one_comment_is_kept_up_to_date(here: Runner, capsys: pytest.CaptureFixture[str]) -> None:
    for body in ("one", "two", "<!-- il-bench: il-bench-report -->\nold news"):
        here.github.add(body)
    here.leaves(0, passing())
    script("tell").main()
    for _ in range(2):
        assert script("github").main(["comment", "7", str(here.calls / "comment.md")]) == 0
    assert len(here.github.comments) == 3, "it lies on the second page of the list"
    assert "✓ 1 of 1 required gates PASS" in here.github.comments[2]["body"]
    here.github.may_write = False
    assert script("github").main(["comment", "7", str(here.calls / "comment.md")]) == 0
    said = capsys.readouterr().out
    assert "::notice title=il_bench::1 of 1 required gates PASS" in said
    assert "no comment: the token may not write, as in runs from forks" in said


def test_without_a_report_that_is_what_is_told(here: Runner, capsys: pytest.CaptureFixture[str]) -> None:
    script("tell").main()
    assert "✗ no report" in (here.calls / "comment.md").read_text()
    assert (here.calls / "GITHUB_OUTPUT").read_text() == "verdict=no report; the log says why\n"
    assert (
        f"::error title=il_bench::no report: {here.calls}/report.json: cannot be read"
        in capsys.readouterr().out
    )


def test_a_gate_that_is_open_is_a_warning(here: Runner, capsys: pytest.CaptureFixture[str]) -> None:
    here.leaves(
        6, row("open", spread(0.775), target=REQUIRED), row("50%", spread(0.3), target=Target(value=0.8))
    )
    script("tell").main()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("::warning title=il_bench::open: INCONCLUSIVE against its target")
    assert lines[1].startswith("::notice title=il_bench::50%25: BELOW TARGET against its target")


def test_baselines_that_are_not_at_the_base_yet_are_those_of_the_checkout(
    here: Runner, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    github, output = script("github"), str(here.calls / "out.json")
    assert github.main(["file", "a b/baselines.json", "feature/x", output]) == 3
    assert "a b/baselines.json is not at feature/x yet" in capsys.readouterr().out
    here.github.files["a b/baselines.json", "feature/x"] = b"{}"
    for path in ("a b/baselines.json", "./a b//baselines.json"):
        assert github.main(["file", path, "feature/x", output]) == 0
    monkeypatch.setenv("IL_TOKEN", "another")
    assert github.main(["file", "a b/baselines.json", "feature/x", output]) == 1
    assert "::error title=il_bench::GitHub says 401 Unauthorized to file" in capsys.readouterr().out


def test_the_report_of_an_earlier_step_is_not_told_as_this_runs(runner: Runner) -> None:
    runner.leaves(1)
    earlier = runner.calls / "workspace" / "il-bench-report" / "report.json"
    schema.save(earlier, report(success=[passing()]))
    os.utime(earlier, (0, 0))
    outputs = runner.job.run("il-bench", policy="broken")
    assert outputs == {"status": "1", "verdict": "no report; the log says why"}


@pytest.mark.parametrize("inputs", [{"policy": "\n \n"}, {"policy": "act", "fail_on": "Fail"}])
def test_wrong_inputs_are_refused_before_anything_is_installed(
    runner: Runner, inputs: dict[str, str]
) -> None:
    runner.job.run("il-bench", **inputs)
    assert runner.job.outcomes == {
        "actions/setup-python@a26af69be951a213d495a4c3e4e4022e16d87065": 0,
        "Check the inputs": 2,
    }
    assert runner.job.log.startswith("::error title=il_bench::")


@pytest.mark.parametrize(
    ("status", "fail_on", "expected"),
    [
        *((status, "inconclusive", status) for status in (0, 1, 2, 6)),
        *((6, "fail", 0), (1, "fail", 1), (4, "fail", 4)),
        *((1, "never", 0), (6, "never", 0), (2, "never", 2), ("", "never", 1)),
    ],
)
def test_the_job_fails_as_asked(status: int | str, fail_on: str, expected: int) -> None:
    environment = {"IL_STATUS": str(status), "IL_FAIL_ON": fail_on}
    script = ["bash", str(ACTIONS / "il-bench" / "decide.sh")]
    assert subprocess.run(script, env=environment, check=False).returncode == expected


@pytest.fixture
def fork(runner: Runner) -> Runner:
    """The second workflow, after a run from a fork; its artifact is the report of that run."""
    run = {
        "id": 5,
        "head_branch": "feature",
        "head_sha": "abc",
        "html_url": "https://github.example/runs/5",
        "head_repository": {"owner": {"login": "somebody"}},
    }
    runner.job.event_name, runner.job.event = "workflow_run", {"workflow_run": run}
    runner.github.pulls = [
        {"number": number, "head": {"label": "somebody:feature", "sha": sha}}
        for number, sha in ((11, "old"), (12, "old"), (13, "abc"))
    ]

    def download(inputs: Outputs) -> Outputs:
        shutil.copytree(runner.calls / "artifact", inputs["path"])
        return {}

    runner.job.uses["actions/download-artifact"] = download
    return runner


def test_a_run_from_a_fork_is_commented_by_the_second_workflow(fork: Runner) -> None:
    """The text and the number are our own: what else the artifact holds is somebody's."""
    bad = failing().model_copy(update={"policy": "@everyone ::error:: www.evil.example"})
    schema.save(fork.calls / "artifact" / "report.json", report(success=[bad]))
    for name in ("comment.md", "pull-request", "il_bench.py"):
        (fork.calls / "artifact" / name).write_text("1")
    fork.job.run("il-bench-comment")
    (comment,) = fork.github.comments
    assert comment["body"].startswith("<!-- il-bench: il-bench-report -->\n<!-- il-bench -->\n**il_bench ✗")
    assert "@everyone" not in comment["body"] and "www.evil" not in comment["body"]
    assert "(https://github.example/runs/5#artifacts)" in comment["body"]
    assert [each for each in fork.github.requests if "POST" in each] == [
        "POST /repos/owner/name/issues/13/comments"
    ]
    assert "::error::" not in fork.job.log
    assert "torch" not in fork.asked("pip")


def test_what_github_refuses_the_second_workflow_is_told(fork: Runner) -> None:
    fork.job.run("il-bench-comment", token="another")
    assert fork.job.outcomes["Comment"] == 1
    assert "::error title=il_bench::GitHub says 401 Unauthorized to pull" in fork.job.log


def test_only_a_pull_request_at_the_commit_of_the_run_is_commented(
    here: Runner, capsys: pytest.CaptureFixture[str]
) -> None:
    label = "somebody:feature"
    here.github.pulls = [{"number": n, "head": {"label": label, "sha": f"sha{n}"}} for n in range(11, 15)]
    for sha, numbers in (("sha13", "13\n"), ("other", "")):
        assert script("github").main(["pull", label, sha]) == 0
        assert capsys.readouterr().out == numbers


@pytest.mark.slow
def test_reading_a_report_takes_no_more_than_the_second_workflow_installs() -> None:
    """It installs neither torch nor LeRobot, and nothing that was not asked for is imported."""
    text = (ACTIONS / "il-bench-comment" / "install.sh").read_text()
    installed = {word.replace("-", "_") for word in text.split()[-8:]}
    assert {"numpy", "pydantic", "scipy", "typer"} < installed
    code = f"""
import sys
from importlib.abc import MetaPathFinder
class Missing(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if path is None and name in {sorted(MISSING)}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Missing())
from il_bench.cli import main
sys.argv = ["il-bench", "report", "markdown", "nowhere", "--missing-ok"]
main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "no report" in done.stdout, done.stderr


#: What il_bench needs otherwise.
MISSING = {
    *("torch", "torchvision", "lerobot", "diffusers", "datasets", "pandas", "huggingface_hub", "pymunk"),
    *("matplotlib", "PIL", "av", "pytest", "safetensors", "sklearn", "pygame", "cv2", "draccus", "pyarrow"),
}
