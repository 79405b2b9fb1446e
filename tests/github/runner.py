"""Runs the steps of a composite action as GitHub's runner does: expressions, bash, and the steps' files.

Steps that use other actions are not run; `uses` says what they give.
"""

import json
import os
import re
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

ACTIONS = Path(__file__).parents[2] / ".github" / "actions"
Outputs = Mapping[str, str]


@dataclass
class Job:
    """A job in its workspace: what GitHub says to it, and what it has said.

    event: the content of GITHUB_EVENT_PATH. uses: by the name of an action, what it does with its inputs, and
    gives. path: in front of PATH.
    """

    workspace: Path
    temp: Path
    event_name: str = "pull_request"
    event: dict[str, Any] = field(default_factory=dict)
    api: str = "http://127.0.0.1:9"
    path: Path | None = None
    uses: dict[str, Callable[[Outputs], Outputs]] = field(default_factory=dict)
    summary: str = ""
    log: str = ""
    outcomes: dict[str, int] = field(default_factory=dict)  # of each step that ran, by its name

    def run(self, action: str, **inputs: str) -> dict[str, str]:
        """Run an action of this repository, its inputs with `_` for `-`; return its outputs.

        Steps after one that failed are left out, as GitHub does.
        """
        folder = ACTIONS / action
        file = yaml.safe_load((folder / "action.yml").read_text(encoding="utf-8"))
        known: dict[str, Any] = {
            "github": {"event": self.event, "event_name": self.event_name, "token": "the-token"},
            "runner": {"temp": str(self.temp), "os": "Linux"},
            "steps": {},
        }
        given = {name.replace("_", "-"): value for name, value in inputs.items()}
        assert given.keys() <= file["inputs"].keys()
        known["inputs"] = {
            name: given.get(name, filled(str(each.get("default", "")), known))
            for name, each in file["inputs"].items()
        }
        for step in file["runs"]["steps"]:
            if not truth(evaluated(step.get("if", "true"), known)):
                continue
            outputs, status = self._step(step, folder, known)
            known["steps"][step.get("id", "")] = {"outputs": outputs}
            self.outcomes[step.get("name", step.get("uses", ""))] = status
            if status and not step.get("continue-on-error"):
                break
        return {name: filled(each["value"], known) for name, each in file.get("outputs", {}).items()}

    def _step(self, step: dict[str, Any], folder: Path, known: dict[str, Any]) -> tuple[Outputs, int]:
        if "uses" in step:
            name = step["uses"].partition("@")[0]
            with_ = {key: filled(str(value), known) for key, value in step.get("with", {}).items()}
            try:
                return self.uses.get(name, lambda _: {})(with_), 0
            except FileNotFoundError:
                return {}, 1
        assert step["shell"] == "bash"
        files = {name: self.temp / name for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY", "GITHUB_ENV")}
        for path in files.values():
            path.write_text("")
        event, script = self.temp / "event.json", self.temp / "step.sh"
        event.write_text(json.dumps(self.event))
        script.write_text(step["run"])
        environment = {
            **{name: os.environ[name] for name in ("HOME", "LANG", "HF_HUB_OFFLINE") if name in os.environ},
            **{"GITHUB_ACTIONS": "true", "CI": "true", "GITHUB_REPOSITORY": "owner/name"},
            **{"GITHUB_ACTION_PATH": str(folder), "GITHUB_WORKSPACE": str(self.workspace)},
            **{"GITHUB_EVENT_NAME": self.event_name, "GITHUB_EVENT_PATH": str(event)},
            **{"GITHUB_API_URL": self.api, "RUNNER_TEMP": str(self.temp)},
            "PATH": f"{self.path}:{os.environ['PATH']}" if self.path else os.environ["PATH"],
            **{name: str(path) for name, path in files.items()},
            **{name: filled(str(value), known) for name, value in step.get("env", {}).items()},
        }
        shell = ["bash", "--noprofile", "--norc", "-eo", "pipefail", str(script)]
        done = subprocess.run(
            shell, cwd=self.workspace, env=environment, capture_output=True, text=True, check=False
        )
        self.log += done.stdout + done.stderr
        self.summary += files["GITHUB_STEP_SUMMARY"].read_text()
        return written(files["GITHUB_OUTPUT"].read_text()), done.returncode


def written(text: str) -> dict[str, str]:
    """What a step has written to GITHUB_OUTPUT: NAME=VALUE, or NAME<<END and lines until END."""
    found, lines = {}, iter(text.splitlines())
    for line in lines:
        name, sign, value = re.split(r"(=|<<)", line, maxsplit=1)
        if sign == "<<":
            value = "\n".join(iter(lambda end=value: next(lines), value))
        found[name] = value
    return found


def filled(text: str, known: Mapping[str, Any]) -> str:
    """Put the values of its expressions into a text."""
    return re.sub(r"\$\{\{(.*?)\}\}", lambda found: evaluated(found[1], known), text)


def evaluated(expression: str, known: Mapping[str, Any]) -> str:
    """The value of an expression of literals, names, ==, != and &&, as text."""
    expression = expression.strip()
    if "&&" in expression:
        parts = expression.split("&&")
        return str(all(truth(evaluated(part, known)) for part in parts)).lower()
    if found := re.fullmatch(r"(.+?)([!=]=)(.+)", expression):
        is_same = evaluated(found[1], known) == evaluated(found[3], known)
        return str(is_same is (found[2] == "==")).lower()
    if expression in ("true", "false") or expression.startswith("'"):
        return expression.strip("'")
    value: Any = known
    for name in expression.split("."):
        value = value.get(name, {}) if isinstance(value, Mapping) else {}
    return "" if value in ({}, None) else str(value)


def truth(text: str) -> bool:
    """Whether an expression with this value holds."""
    return text not in ("", "false")
