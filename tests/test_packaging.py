"""What a user gets: the built wheel and source archive, and the locked environment."""

import json
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import il_bench

ROOT = Path(__file__).parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
OLDEST = ROOT / ".ci" / "oldest.lock"
each_lock = pytest.mark.parametrize("lock", [ROOT / "requirements.lock", OLDEST], ids=["locked", "oldest"])


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel as a release makes it: out of the source archive, not out of the checkout."""
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT)]
    built = subprocess.run(command, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    (path,) = out.glob("*.whl")
    return zipfile.ZipFile(path)


def package_files(folder: Path) -> set[str]:
    """Files of the checkout under a folder, as the wheel names them."""
    files = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(ROOT).as_posix() for path in files}


def test_wheel_holds_the_package_with_its_data_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    carried = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert carried == package_files(ROOT / "il_bench") | {"il_bench/baselines.json"}


def test_wheel_holds_the_baselines_of_the_checkout(wheel: zipfile.ZipFile) -> None:
    assert wheel.read("il_bench/baselines.json") == (ROOT / "baselines.json").read_bytes()


@pytest.mark.parametrize("policy", ["bc", "bet", "vqbet", "act", "diffusion"])
def test_wheel_holds_the_trained_policies(wheel: zipfile.ZipFile, policy: str) -> None:
    folder = f"il_bench/zoo/{policy}"
    wanted = {"config.json", "model.safetensors", "policy_preprocessor.json", "training.json"}
    assert {f"{folder}/{name}" for name in wanted} - set(wheel.namelist()) == set()


def test_wheel_registers_plugin_and_command(wheel: zipfile.ZipFile) -> None:
    info = f"il_bench-{il_bench.__version__}.dist-info"
    entry_points = wheel.read(f"{info}/entry_points.txt").decode()
    assert "[pytest11]\nil_bench = il_bench.plugin" in entry_points
    assert "[console_scripts]\nil-bench = il_bench.cli:main" in entry_points
    assert b"Apache License" in wheel.read(f"{info}/licenses/LICENSE")


@pytest.mark.slow
def test_suite_runs_from_the_wheel_in_an_empty_folder(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    installed, elsewhere = tmp_path / "installed", tmp_path / "elsewhere"
    wheel.extractall(installed)
    elsewhere.mkdir()
    python_path = os.pathsep.join(filter(None, [str(installed), os.environ.get("PYTHONPATH")]))
    outer = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment = {**outer, "PYTHONPATH": python_path}

    def python(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, *arguments]
        return subprocess.run(command, cwd=elsewhere, env=environment, capture_output=True, text=True)

    imported = python("-c", "import il_bench; print(il_bench.__file__)").stdout.strip()
    assert Path(imported) == installed / "il_bench" / "__init__.py"
    suite = ["--benchmark", "--pyargs", "il_bench.suite", "-m", "success", "-p", "no:cacheprovider"]
    run = python("-m", "pytest", *suite, "--il-policy", "bc", "--il-episodes", "50")
    assert run.returncode == 0, run.stdout + run.stderr
    report = json.loads((elsewhere / "il-bench-report" / "report.json").read_text(encoding="utf-8"))
    (row,) = [row for row in report["success"] if row["policy"] == "bc"]
    assert row["n_episodes"] == 50


def locked_versions(lock: Path) -> dict[str, str]:
    """Package name -> pinned version, for every line of the lock."""
    pins = re.findall(r"^([A-Za-z0-9._-]+)==([^\s;]+)", lock.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {canonicalize_name(name): version for name, version in pins}


def declared() -> list[Requirement]:
    """Every requirement of pyproject.toml, its extras and its build."""
    project = PYPROJECT["project"]
    lines = [*project["dependencies"], *PYPROJECT["build-system"]["requires"]]
    lines += [line for extra in project["optional-dependencies"].values() for line in extra]
    return [found for found in map(Requirement, lines) if found.name != project["name"]]


@each_lock
def test_lock_pins_every_package(lock: Path) -> None:
    lines = [line for line in lock.read_text().splitlines() if line and not line.lstrip().startswith("#")]
    assert [line for line in lines if not re.match(r"[A-Za-z0-9._-]+==\d", line)] == []


@each_lock
def test_lock_names_no_index_and_no_folder(lock: Path) -> None:
    address = r"https?://\S*|file:\S*|--\S*(?:index|find-links)\S*|(?:^|\s)/\S+"
    assert re.findall(address, lock.read_text(encoding="utf-8")) == []


@each_lock
def test_lock_satisfies_pyproject(lock: Path) -> None:
    locked, unmet = locked_versions(lock), []
    for requirement in declared():
        pinned = locked.get(canonicalize_name(requirement.name))
        if not (pinned and requirement.specifier.contains(pinned)):
            unmet.append(str(requirement))
    assert unmet == [], "run `make lock`"


def test_the_oldest_versions_are_the_least_that_pyproject_allows() -> None:
    """And the lock holds them: 8.1.1 for `>=8.1`, say, where 8.1.0 was withdrawn."""
    wanted, locked = locked_versions(ROOT / ".ci" / "oldest.in"), locked_versions(OLDEST)
    assert {name: locked.get(name) for name in wanted} == wanted
    floors = {
        canonicalize_name(requirement.name): Version(bound.version).release
        for requirement in declared()
        for bound in requirement.specifier
        if bound.operator == ">=" and canonicalize_name(requirement.name) in wanted
    }
    assert len(floors) == len(wanted) - 1, "all but torchcodec, which goes with torch"
    for name, floor in floors.items():
        assert Version(wanted[name]).release[: len(floor)] == floor, name
