"""How the Makefile finds Python and keeps its environment, played with a Python that only takes notes."""

import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# Answers what the Makefile asks of it: a version check as if it were VERSION, `-m venv FOLDER`, `-m pip ...`.
FAKE_PYTHON = """#!/bin/sh
case "$1 $2" in
"-c "*) exec PYTHON -IS -c "import sys; sys.version_info, sys.executable = VERSION, '$0'; $2" ;;
"-m venv") echo venv >>notes; mkdir -p "$3/bin"; cp "$0" "$3/bin/python" ;;
"-m pip")
    [ ! -e fail ] || exit 1
    case "$*" in
    *uv==*) [ -e uv ] && cp uv .venv/bin/uv ;;
    *) echo pip >>notes ;;
    esac ;;
esac
"""


class Checkout:
    """A copy of the Makefile in a folder of its own, with just enough programs on the PATH to run it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.programs = folder / "programs"
        self.programs.mkdir()
        for name in ("pyproject.toml", "requirements.lock", "Makefile"):
            shutil.copy(ROOT / name, folder)
        for name in ("make", "sh", "cp", "mkdir", "rm", "sed", "touch", "grep"):
            found = shutil.which(name)
            assert found is not None, f"this test needs {name} on the PATH"
            (self.programs / name).symlink_to(found)

    def add_python(self, name: str = "python3.12", version: tuple[int, ...] = (3, 12, 1)) -> None:
        fake = self.programs / name
        fake.write_text(FAKE_PYTHON.replace("PYTHON", f"'{sys.executable}'").replace("VERSION", str(version)))
        fake.chmod(fake.stat().st_mode | stat.S_IXUSR)

    def make_env(self, *arguments: str) -> tuple[subprocess.CompletedProcess[str], list[str]]:
        """Run `make env`; the result, and what it asked of Python in order."""
        notes = self.folder / "notes"
        notes.write_text("")
        command = [str(self.programs / "make"), "env", *arguments]
        run = subprocess.run(
            command, cwd=self.folder, env={"PATH": str(self.programs)}, capture_output=True, text=True
        )
        return run, notes.read_text().split()


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


@pytest.mark.parametrize(
    ("there", "arguments"),
    [(None, ()), (None, ("PYTHON=no-such-python",)), ((3, 11, 9), ()), ((3, 13, 0), ())],
)
def test_without_python_312_one_sentence_says_so(
    checkout: Checkout, there: tuple[int, ...] | None, arguments: tuple[str, ...]
) -> None:
    if there is not None:
        checkout.add_python("python3", there)
    run, notes = checkout.make_env(*arguments)
    assert run.returncode != 0
    assert run.stdout == ""
    assert len(run.stderr.splitlines()) == 1
    assert "il_bench needs Python 3.12" in run.stderr
    assert notes == []


def test_torch_for_the_cpu_comes_from_the_index_that_is_named(checkout: Checkout) -> None:
    checkout.add_python()
    run, _ = checkout.make_env("TORCH=cpu")
    assert run.returncode != 0 and "TORCH=cpu needs the address of a package index" in run.stderr
    run, notes = checkout.make_env("TORCH=cpu", "TORCH_INDEX=file:///wheels")
    assert run.returncode == 0, run.stderr
    assert notes == ["venv", "pip", "pip", "pip"]
    torch, others = ((checkout.folder / ".venv" / name).read_text() for name in ("torch.txt", "others.txt"))
    assert [line.partition("==")[0] for line in torch.split()] == ["torch", "torchvision"]
    assert "lerobot==" in others and "torch-einops-utils==" in others
    unwanted = ("nvidia-", "cuda-", "triton==", "torch==", "torchvision==")
    assert not any(line.startswith(unwanted) for line in others.splitlines())


def test_environment_of_another_python_is_made_anew(checkout: Checkout) -> None:
    checkout.add_python()
    checkout.make_env()
    old = checkout.folder / ".venv" / "bin" / "python"
    old.write_text(old.read_text().replace("(3, 12, 1)", "(3, 11, 9)"))
    (checkout.folder / "requirements.lock").touch()
    run, asked = checkout.make_env()
    assert "Creating .venv" in run.stdout
    assert asked == ["venv", "pip", "pip"]


def test_environment_is_made_once_and_follows_the_lock(checkout: Checkout) -> None:
    checkout.add_python()
    first, asked = checkout.make_env()
    assert first.returncode == 0, first.stderr
    assert "Creating .venv" in first.stdout
    assert asked == ["venv", "pip", "pip"]
    assert checkout.make_env()[1] == []
    (checkout.folder / "requirements.lock").write_text("# newer\n")
    second, asked = checkout.make_env()
    assert "Updating .venv" in second.stdout
    assert asked == ["pip", "pip"]


@pytest.mark.parametrize(("status", "asked"), [(0, ["venv", "uv", "pip"]), (1, ["venv", "uv", "pip", "pip"])])
def test_uv_installs_the_lock_and_pip_where_uv_fails(
    checkout: Checkout, status: int, asked: list[str]
) -> None:
    checkout.add_python()
    uv = checkout.folder / "uv"
    uv.write_text(f"#!/bin/sh\necho uv >>notes\nexit {status}\n")
    uv.chmod(0o755)
    run, found = checkout.make_env()
    assert run.returncode == 0, run.stderr
    assert found == asked


def test_interrupted_environment_is_made_anew(checkout: Checkout) -> None:
    checkout.add_python()
    (checkout.folder / "fail").touch()
    first, _ = checkout.make_env()
    assert first.returncode != 0
    (checkout.folder / "fail").unlink()
    second, asked = checkout.make_env()
    assert "Creating .venv" in second.stdout
    assert asked == ["venv", "pip", "pip"]
