"""The workflows and actions: pinned, with few rights, and as GitHub's schemas want them."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
ACTIONS = sorted((ROOT / ".github" / "actions").glob("*/action.yml"))
SCHEMA = ("check-jsonschema", "--quiet", "--builtin-schema")


@pytest.mark.parametrize(
    "command",
    [
        ("zizmor", "--offline", "--quiet", "--persona=pedantic", str(ROOT / ".github")),
        (*SCHEMA, "vendor.github-workflows", *map(str, WORKFLOWS)),
        (*SCHEMA, "vendor.github-actions", *map(str, ACTIONS)),
    ],
    ids=lambda command: command[0],
)
def test_the_checkers_find_nothing(command: tuple[str, ...]) -> None:
    program = Path(sys.prefix, "bin", command[0])
    if not program.exists():
        pytest.skip(f"{command[0]} is not installed here")
    done = subprocess.run([program, *command[1:]], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_no_workflow_writes_more_than_a_comment(path: Path) -> None:
    workflow = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert workflow["permissions"] in ({}, {"contents": "read"})
    for job in workflow["jobs"].values():
        rights = job.get("permissions", {})
        written = {right for right, what in rights.items() if what != "read"}
        assert written <= {"pull-requests"}
        assert "timeout-minutes" in job


@pytest.mark.parametrize("path", ACTIONS, ids=lambda path: path.parent.name)
def test_no_script_of_an_action_holds_an_expression(path: Path) -> None:
    """What an expression gives is anybody's text: it reaches a script in the environment, never as code."""
    for step in yaml.safe_load(path.read_text(encoding="utf-8"))["runs"]["steps"]:
        assert "${{" not in step.get("run", "")
        for name in step.get("env", {}):
            assert name.startswith("IL_")


def test_the_second_workflow_follows_the_first() -> None:
    first, second = (
        yaml.safe_load((ROOT / ".github" / "workflows" / f"{name}.yml").read_text())
        for name in ("policies", "comment")
    )
    assert second[True]["workflow_run"]["workflows"] == [first["name"]]  # YAML reads `on` as true
    names = [
        job["steps"][-1]["with"]["artifact"] for each in (first, second) for job in each["jobs"].values()
    ]
    assert len(set(names)) == 1
