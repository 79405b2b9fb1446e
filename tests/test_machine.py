"""The description of machine and versions: complete, stable, and without anybody's names."""

import getpass
import json
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import il_bench
from il_bench import machine
from il_bench.cli import app
from il_bench.errors import IlBenchError
from il_bench.gate.baselines import MeasuredBaseline
from il_bench.protocol import BLOCK_SIZE, EPISODE_FIELDS
from tests.gate.made import outcomes


def test_describe_says_what_reports_promise() -> None:
    found = machine.describe()
    for key in ("packages", "cpu", "instruction_set", "blas", "gpu", "threads", "commit"):
        assert key in found
    assert found["packages"]["lerobot"] == metadata.version("lerobot")
    assert found["packages"]["torch"] == torch.__version__
    assert found["packages"]["il-bench"] == il_bench.__version__
    assert found["instruction_set"] == torch.backends.cpu.get_cpu_capability()
    assert found["threads"] == torch.get_num_threads()
    assert found["cpu"] and found["blas"]


def test_nothing_in_it_names_people_hosts_or_folders() -> None:
    text = json.dumps([machine.describe(), machine.fingerprint()], allow_nan=False)
    words = set(text.replace('"', " ").replace(",", " ").split())
    assert platform.node() not in words and getpass.getuser() not in words
    assert str(Path.home()) not in words
    for folder in (Path(il_bench.__file__).parent, sys.prefix, Path.cwd()):
        assert str(folder) not in text


def test_fingerprint_is_what_baselines_store() -> None:
    found = machine.fingerprint("cpu")
    assert found == machine.fingerprint("cpu")
    assert set(EPISODE_FIELDS) <= set(found)
    assert found["block_size"] == BLOCK_SIZE and found["max_steps"] == 300
    assert found["device"] == "cpu" and "gpu" not in found
    assert found["torch"] == torch.__version__ and found["pymunk"] == metadata.version("pymunk")
    base = MeasuredBaseline.from_outcomes(outcomes(), data="human", sha256="0" * 64, fingerprint=found)
    assert MeasuredBaseline.model_validate_json(base.model_dump_json()).fingerprint == found


def test_the_number_of_threads_is_not_in_the_fingerprint() -> None:
    before, threads = machine.fingerprint(), torch.get_num_threads()
    try:
        torch.set_num_threads(threads + 1)
        assert machine.fingerprint() == before
        assert machine.describe()["threads"] == threads + 1
    finally:
        torch.set_num_threads(threads)


def test_another_instruction_set_is_another_fingerprint(monkeypatch: pytest.MonkeyPatch) -> None:
    before = machine.fingerprint()
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "SSE")
    after = machine.fingerprint()
    assert {key for key in before if before[key] != after[key]} == {"instruction_set"}


def test_numerics_are_in_the_fingerprint_unless_they_are_as_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    before = machine.fingerprint()
    monkeypatch.setenv("CXX", f"{sys.executable} -B")  # whatever it is: what it calls itself counts
    numerics = machine.Numerics("bfloat16", compiled=True)
    numerics.check("--compile")
    found = machine.fingerprint("cpu", numerics=numerics)
    version = f"Python {platform.python_version()}"
    assert found == before | {"autocast": "bfloat16", "compiled": version} == found | numerics.conditions()
    assert machine.differences(before, found) == [
        "autocast was None, is 'bfloat16'",
        f"compiled was None, is '{version}'",
    ]


def test_where_there_is_no_compiler_one_sentence_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "c++-of-nobody")
    machine.Numerics("bfloat16").check("--compile")
    with pytest.raises(IlBenchError, match=r"--compile: .* C\+\+ compiler, and c\+\+-of-nobody does"):
        machine.Numerics(compiled=True).check("--compile")


def test_blas_is_read_from_torchs_build_text() -> None:
    config = (
        "  - Intel(R) oneAPI Math Kernel Library Version 2024.2-Product Build 20240605 for Intel(R) 64\n"
        "  - Intel(R) MKL-DNN v3.10.2 (Git Hash f1d4)\n  - Build settings: BLAS_INFO=mkl, BUILD_TYPE=Release"
    )
    assert machine._blas(config) == "mkl 2024.2, oneDNN 3.10.2"
    assert machine._blas("- Build settings: BLAS_INFO=accelerate, X=1") == "accelerate"
    assert machine._blas("") == "unknown"


def git(root: Path, *arguments: str) -> None:
    settings = ["-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", "-C", str(root), *settings, *arguments], check=True, capture_output=True)


def test_commit_and_whether_the_checkout_differs_from_it(tmp_path: Path) -> None:
    assert machine._commit(tmp_path) == (None, None)
    git(tmp_path, "init")
    assert machine._commit(tmp_path) == (None, None)  # no commit yet
    tracked = tmp_path / "file"
    tracked.write_text("1")
    git(tmp_path, "add", "file")
    git(tmp_path, "commit", "-m", "first")
    commit, dirty = machine._commit(tmp_path)
    assert commit is not None and len(commit) == 40 and dirty is False
    (tmp_path / "report.json").write_text("what a run leaves behind does not make it dirty")
    assert machine._commit(tmp_path) == (commit, False)
    tracked.write_text("2")
    assert machine._commit(tmp_path) == (commit, True)


def test_importing_it_imports_no_torch() -> None:
    code = (
        "import sys, il_bench.machine, il_bench.gate.baselines; print({'torch', 'lerobot'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_device_that_is_not_there_is_told() -> None:
    for device in ("cpu", "cpu:0"):
        machine.check_device(device)
    for device, said in (
        ("gpu", "--device: unknown device 'gpu'; use cpu, cuda"),
        ("meta", "--device: unknown device 'meta'"),
        ("", "--device: unknown device ''"),
        ("cuda:99", "--device: torch finds no cuda:99 here; leave it out to run on the CPU"),
    ):
        with pytest.raises(IlBenchError, match=f"^{said}"):
            machine.check_device(device)


def test_another_version_than_required_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine.unmet_requirements() == []
    requires = ["pytest>=10000", "nosuch-thing==1", 'numpy>=10000; extra == "dev"', "rich"]
    monkeypatch.setattr(metadata, "requires", lambda name: requires)
    assert machine.unmet_requirements() == [
        f"pytest is {metadata.version('pytest')}; il_bench needs pytest>=10000",
        "nosuch-thing is not installed; il_bench needs nosuch-thing==1",
    ]


def test_doctor_prints_what_a_bug_report_needs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("IL_BENCH_HUMAN_DATA", str(tmp_path / "nosuch"))
    run = CliRunner().invoke(app, ["doctor"])
    assert run.exit_code == 0, run.output
    assert f"il-bench {il_bench.__version__}, Python {platform.python_version()}" in run.output
    assert f"lerobot {metadata.version('lerobot')}" in run.output
    assert "IL_BENCH_HUMAN_DATA is set, but there is no such folder" in run.output
    assert str(tmp_path) not in run.output and getpass.getuser() not in run.output.split()
