"""README and docs hold what they say: links lead somewhere, commands parse, numbers are the measured ones."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from benchmarks import reference
from il_bench import cli, zoo
from il_bench.plugin.settings import OPTIONS
from tests.docs.blocks import PAGES, ROOT, blocks, name

MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")

by_page = pytest.mark.parametrize("page", PAGES, ids=name)


def commands(page: Path, program: str) -> list[list[str]]:
    """The words after `program` in every command of the page, also of those that no test runs."""
    lines = [line for block in blocks(page) for line in block.commands()]
    return [shlex.split(line)[1:] for line in lines if re.match(rf"(?:[A-Z_]+=\S+ )*{program} ", f"{line} ")]


@by_page
def test_every_command_parses(page: Path) -> None:
    whole = typer.main.get_command(cli.app)
    for words in commands(page, "il-bench"):
        command = whole
        while words and words[0] in getattr(command, "commands", {}):
            command, words = command.commands[words[0]], words[1:]
        assert not hasattr(command, "commands"), f"{page.name}: il-bench {words}: no such command"
        command.make_context("il-bench", list(words))


def test_every_command_has_an_example_that_parses() -> None:
    for words, command in reference.walk(typer.main.get_command(cli.app), ("il-bench",)):
        example = shlex.split(command.epilog.removeprefix("Example: "))
        assert example[: len(words)] == list(words), f"{words}: {command.epilog}"
        command.make_context(words[-1], example[len(words) :])


@by_page
def test_every_make_target_exists(page: Path) -> None:
    for words in commands(page, "make"):
        for target in (word for word in words if "=" not in word):
            assert re.search(rf"^{re.escape(target)}:", MAKEFILE, re.M), f"{page.name}: make {target}"


@by_page
def test_every_option_of_pytest_is_one(page: Path) -> None:
    known = {option.flag for option in OPTIONS.values()}
    for flag in set(re.findall(r"(?<![\w-])--il-[a-z-]+", page.read_text(encoding="utf-8"))):
        assert flag in known, f"{page.name}: {flag}"


@by_page
def test_python_blocks_compile(page: Path) -> None:
    for block in blocks(page):
        if block.language == "python":
            compile(block.text, f"{page}:{block.line}", "exec")


@pytest.mark.parametrize("page", PAGES[:2], ids=lambda page: page.name)
def test_links_of_the_front_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8")):
        assert (ROOT / target).exists(), f"{page.name}: {target}"


def test_documentation_builds_without_a_dead_link(tmp_path: Path) -> None:
    for module in ("zensical", "mkdocstrings"):
        pytest.importorskip(module, reason="needs the extra `docs`")
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    shutil.copy(ROOT / "zensical.toml", tmp_path)
    build = [sys.executable, "-m", "zensical", "build", "--strict"]
    run = subprocess.run(build, cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    named = set(re.findall(r'"([^"]+\.md)"', (tmp_path / "zensical.toml").read_text()))
    pages = {str(page.relative_to(ROOT / "docs")) for page in PAGES[2:]}
    assert named == pages, "pages without a place in the navigation, or places without a page"


@pytest.mark.parametrize("page", ["README.md", "docs/results/policies.md"])
@pytest.mark.parametrize("policy", zoo.shipped())
def test_rates_are_the_measured_ones(page: str, policy: str) -> None:
    measured = json.loads((zoo.ZOO / policy / "measured.json").read_text())
    training = json.loads((zoo.ZOO / policy / "training.json").read_text())
    rate = measured["success_rate"]
    shown = f"{rate['estimate']:.3f} [{rate['low']:.3f}, {rate['high']:.3f}]"
    reward = f"{measured['mean_max_reward']['estimate']:.3f}"
    hours = f"{training['core_seconds'] / 3600:.2g}"
    row = f"| `{policy}` | {shown} | {reward} | "
    lines = [line for line in (ROOT / page).read_text(encoding="utf-8").splitlines() if line.startswith(row)]
    assert len(lines) == 1, f"{page} has no row that begins with {row}"
    assert float(lines[0].split("|")[-2]) == pytest.approx(float(hours), rel=0.02)


@pytest.mark.parametrize("policy", zoo.shipped("pixels"))
def test_rates_on_images_are_the_measured_ones(policy: str) -> None:
    folder = zoo.pixels_folder()
    assert folder is not None
    measured = json.loads((folder / policy / "measured.json").read_text())
    rate, reward = measured["success_rate"], measured["mean_max_reward"]["estimate"]
    row = f"| `{policy}` | {rate['estimate']:.3f} [{rate['low']:.3f}, {rate['high']:.3f}] | {reward:.3f} | "
    page = (ROOT / "docs" / "results" / "pixels.md").read_text(encoding="utf-8")
    assert page.count(f"\n{row}") == 1, f"docs/results/pixels.md has no row that begins with {row}"
    assert f"{rate['estimate']:.3f}" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_metric_is_of_the_weights_that_ship() -> None:
    found = json.loads((ROOT / "benchmarks" / "results" / "metrics.json").read_text())["success"]
    assert [row["policy"] for row in found] == list(zoo.shipped("keypoints"))
    for row in found:
        measured = json.loads((zoo.ZOO / row["policy"] / "measured.json").read_text())
        assert (row["sha256"], row["n_episodes"]) == (measured["sha256"], 1000)
        assert row["success_rate"]["estimate"] == measured["success_rate"]["estimate"]
