"""Every command and every block of Python in README and docs does what the page says."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from il_bench.cli import app
from il_bench.protocol import HUMAN_DATA
from tests.docs.blocks import PAGES, Block, begins_with, blocks, name
from tests.docs.presupposed import MADE, environment

QUICK = ("plan", "list", "gate")  # commands that import nothing heavy
RUN = [page for page in PAGES if any(block.runs for block in blocks(page))]

by_page = pytest.mark.parametrize("page", RUN, ids=name)


def is_printed(expected: str, printed: str) -> bool:
    """Whether `printed` has the lines of `expected`, in order and together; '...' stands for any."""
    parts = (
        re.escape(line.rstrip()) if line.strip() != "..." else r"(?s:.*)" for line in expected.splitlines()
    )
    lines = "\n".join(line.rstrip() for line in printed.splitlines())
    return re.search("^" + "\n".join(parts) + "$", lines, re.M) is not None


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_block_says_what_it_is(page: Path) -> None:
    assert set(begins_with(page)) <= set(MADE), f"{name(page)} presupposes what no test makes"
    for block in blocks(page):
        where = f"{name(page)}:{block.line}"
        assert block.language in {"sh", "python", "text", "yaml", "json", "toml"}, where
        unknown = [begin for begin in block.added if not any(c.startswith(begin) for c in block.commands())]
        assert not unknown, f"{where}: tests add to {unknown}, which the block does not hold"
    text = page.read_text(encoding="utf-8")
    n_fences = len(re.findall(r"^```\w", text, re.M))
    assert len(list(blocks(page))) == n_fences, f"{name(page)}: a block cannot be read"
    rest = re.sub(r"^```.*?^```|^::: .*?(?=\n\n|\Z)", "", text, flags=re.M | re.S)
    indented = re.search(r"\n\n {4}(\w.*)", rest)
    assert indented is None, f"{name(page)}: put ```sh around {indented[1]!r}; tests run such blocks only"


@by_page
def test_what_quick_commands_print_is_what_the_page_shows(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if "files of lerobot-eval" in begins_with(page):
        MADE["files of lerobot-eval"](tmp_path)
    for block in blocks(page):
        words = [shlex.split(line) for line in block.commands()]
        if block.output and all(line[0] == "il-bench" and line[1] in QUICK for line in words):
            done = [CliRunner().invoke(app, line[1:], env={"COLUMNS": "110"}) for line in words]
            printed = "".join(each.output for each in done)
            assert done[-1].exit_code == block.status, printed
            assert is_printed(block.output, printed), f"{name(page)}:{block.line} prints\n{printed}"


@pytest.mark.slow
@by_page
def test_blocks_run_in_order(page: Path, tmp_path: Path) -> None:
    for each in begins_with(page):
        MADE[each](tmp_path)
    python = ""  # a block goes on where the one before has ended
    for block in blocks(page):
        if block.title is not None:
            file = tmp_path / block.title
            file.parent.mkdir(parents=True, exist_ok=True)
            assert file.resolve().is_relative_to(tmp_path.resolve()), f"{file} is the checkout's own"
            file.write_text(block.text, encoding="utf-8")
        elif block.runs and not (block.needs == "human demonstrations" and not os.environ.get(HUMAN_DATA)):
            python += block.text if block.language == "python" else ""
            _run(block, python, name(page), tmp_path)


def _run(block: Block, python: str, page: str, folder: Path) -> None:
    shell = ["bash", "-exo", "pipefail", "-c", block.script()]
    command = shell if block.language == "sh" else [sys.executable, "-c", python]
    run = subprocess.run(
        command, cwd=folder, env=environment(), capture_output=True, text=True, errors="replace"
    )
    said = f"{page}:{block.line}: exit status {run.returncode}\n{run.stdout[-3000:]}\n{run.stderr[-3000:]}"
    assert run.returncode == block.status, said
    assert block.output is None or is_printed(block.output, run.stdout), said
