"""A checkpoint is whole or not there, wherever its writing ends; what is damaged is named, with a way out."""

import errno
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from il_bench.errors import IlBenchError
from il_bench.train import checkpoints
from il_bench.train.loop import Trainer
from tests.train.small_runs import make, run_to, saved, weights

#: Python's audit events of the operations that `save` does. Between two of them, a file is half written at
#: most in a folder that bears no checkpoint's name.
OPERATIONS = {"open", "shutil.rmtree"} | {
    f"os.{name}" for name in ("rename", "remove", "rmdir", "mkdir", "symlink", "listdir", "scandir", "chmod")
}


class Killed(BaseException):
    """In the place of a kill: nothing that follows is done either, and nothing catches it."""


class Disk:
    """Counts operations on files; at number ``at`` it raises ``error``, and later too if that is a kill."""

    def __init__(self) -> None:
        self.armed, self.count, self.at = False, 0, -1
        self.error: type[BaseException] = Killed
        sys.addaudithook(self)  # there is no way to remove one

    def __call__(self, event: str, arguments: tuple[object, ...]) -> None:
        if not self.armed or event not in OPERATIONS:
            return
        self.count += 1
        if self.count == self.at or (self.count > self.at > 0 and self.error is Killed):
            raise Killed if self.error is Killed else OSError(errno.ENOSPC, "No space left on device")

    @contextmanager
    def failing(self, at: int, error: type[BaseException]) -> Iterator[None]:
        self.at, self.error, self.count, self.armed = at, error, 0, True
        try:
            yield
        finally:
            self.armed = False


@pytest.fixture(scope="module")
def disk() -> Disk:
    return Disk()


class Runs:
    """A run with checkpoints 1 and 2 on the disk, now at step 3; and what it would be at step 4."""

    def __init__(self, demos: Path, folder: Path) -> None:
        self.now, _ = saved("bc", demos, folder)
        run_to(self.now, 2)
        self.now.save()
        run_to(self.now, 3)
        self.folder, self.later = folder, make("bc", demos, folder)
        run_to(self.later, 4)
        self.expected = {key: value.clone() for key, value in weights(self.later).items()}

    def copy(self, folder: Path) -> Path:
        """The run's folder once more, for the run to write to."""
        shutil.copytree(self.folder, folder, symlinks=True)
        self.now.output, self.now._saved = folder, None
        return folder

    def resume(self, folder: Path) -> int:
        """Resume there, go on to step 4 and save; give the step that it was resumed at."""
        self.later.output = folder
        self.later.restore()
        step = self.later.step
        run_to(self.later, 4)
        different = [k for k, v in weights(self.later).items() if not torch.equal(v, self.expected[k])]
        assert not different
        self.later.save()
        names = [f"{step:06d}", "000004", "last"]
        assert sorted(each.name for each in (folder / "checkpoints").iterdir()) == names
        return step


@pytest.fixture(scope="module")
def runs(demos: Path, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(demos, tmp_path_factory.mktemp("runs") / "run")


def test_a_kill_at_any_operation_of_saving_leaves_a_run_that_resumes_to_the_bit(
    runs: Runs, disk: Disk, tmp_path: Path
) -> None:
    steps = []
    for at in range(1, 1000):
        folder = runs.copy(tmp_path / str(at))
        try:
            with disk.failing(at, Killed):
                runs.now.save()
            break
        except Killed:
            steps.append(runs.resume(folder))
    assert len(steps) > 25 and set(steps) == {2, 3} and steps == sorted(steps)


def test_a_kill_in_the_first_saving_of_a_run_leaves_a_whole_checkpoint_or_none(
    runs: Runs, disk: Disk, tmp_path: Path
) -> None:
    found = []
    for at in range(1, 1000):
        folder = tmp_path / str(at)
        runs.now.output, runs.now._saved = folder, None
        try:
            with disk.failing(at, Killed):
                runs.now.save()
            break
        except Killed:
            found.append(checkpoints.newest(folder) is not None)
            runs.now._saved = None
        if found[-1]:
            checkpoints.read(folder, checkpoints.newest(folder) or folder)
        runs.now.save()
        assert [each.name for each in sorted((folder / "checkpoints").iterdir())] == ["000003", "last"]
    assert set(found) == {False, True} and found == sorted(found)


def test_a_disk_that_is_full_at_any_operation_leaves_what_was_good(
    runs: Runs, disk: Disk, tmp_path: Path
) -> None:
    told = 0
    for at in range(1, 1000):
        folder = runs.copy(tmp_path / str(at))
        try:
            with disk.failing(at, OSError):
                runs.now.save()
        except IlBenchError as error:
            told += 1
            assert "No space left on device, " in str(error) and " MB free); " in str(error)
            assert "checkpoint 000002 is whole; make room and give the same command with --r" in str(error)
        runs.resume(folder)
        if disk.count < at:
            break
    assert told > 20


def test_a_disk_that_is_really_full_is_told(runs: Runs, tmp_path: Path) -> None:
    """Safetensors writes by itself, and has its own error. A limit on the size of files is the disk here."""
    resource = pytest.importorskip("resource")
    folder, before = runs.copy(tmp_path / "run"), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
    try:
        with pytest.raises(IlBenchError, match=r"000003: cannot be written .*too large.*000002 is whole"):
            runs.now.save()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert runs.resume(folder) == 2


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


def edit(**changes: Any) -> Callable[[Path], None]:
    return lambda path: path.write_text(json.dumps(json.loads(path.read_text()) | changes))


STATE = "training_state"


@pytest.mark.parametrize(
    ("file", "damage", "said"),
    [
        (f"{STATE}/progress.json", cut, "progress.json: broken JSON at line"),
        (f"{STATE}/progress.json", Path.unlink, "progress.json: cannot be read"),
        (f"{STATE}/progress.json", lambda path: path.write_text("[]"), "progress.json: "),
        (f"{STATE}/progress.json", edit(step=True), "progress.json: step = True: "),
        (f"{STATE}/progress.json", edit(step=1), "progress.json: step = 1, in a checkpoint of that name"),
        (f"{STATE}/progress.json", edit(seconds=float("nan")), "progress.json: .*seconds"),
        (f"{STATE}/progress.json", edit(ema_updates=-1), "progress.json: ema_updates = -1"),
        (f"{STATE}/progress.json", edit(recipe=[]), "progress.json: recipe = "),
        (f"{STATE}/raw.safetensors", flip, "raw.safetensors: damaged"),
        (f"{STATE}/raw.safetensors", cut, "raw.safetensors: damaged"),
        (f"{STATE}/raw.safetensors", Path.unlink, "raw.safetensors: missing"),
        (f"{STATE}/optimizer_state.safetensors", flip, "optimizer_state.safetensors: damaged"),
        (f"{STATE}/optimizer_param_groups.json", cut, "optimizer_param_groups.json: damaged"),
        ("pretrained_model/model.safetensors", flip, "model.safetensors: damaged"),
    ],
)
def test_a_damaged_checkpoint_is_named_and_the_one_before_resumes(
    file: str, damage: Callable[[Path], object], said: str, runs: Runs, tmp_path: Path
) -> None:
    folder = runs.copy(tmp_path / "run")
    broken = folder / "checkpoints" / "000002"
    damage(broken / file)
    runs.later.output = folder
    with pytest.raises(IlBenchError, match=said) as caught:
        runs.later.restore()
    assert f"last good checkpoint is 000001: remove {broken} and --resume continues" in str(caught.value)
    shutil.rmtree(broken)
    assert runs.resume(folder) == 1


def test_a_checkpoint_without_hashes_is_read_and_its_damage_named(runs: Runs, tmp_path: Path) -> None:
    """As il_bench 0.1 wrote them."""
    folder = runs.copy(tmp_path / "run")
    last = folder / "checkpoints" / "000002"
    edit(files=None)(last / STATE / "progress.json")
    cut(last / STATE / "optimizer_param_groups.json")
    shutil.rmtree(last.with_name("000001"))
    runs.later.output = folder
    with pytest.raises(IlBenchError, match=r"000002: the checkpoint is damaged .* no other is left"):
        runs.later.restore()
    shutil.rmtree(folder)
    edit(files=None)(runs.copy(folder) / "checkpoints" / "000002" / STATE / "progress.json")
    assert runs.resume(folder) == 2


def test_a_copy_in_which_last_is_a_folder_resumes(runs: Runs, tmp_path: Path) -> None:
    folder = runs.copy(tmp_path / "run")
    shutil.copytree(folder, tmp_path / "copy")  # follows links
    assert not (tmp_path / "copy" / "checkpoints" / "last").is_symlink()
    runs.later.output = tmp_path / "copy"
    runs.later.restore()
    run_to(runs.later, 4)
    runs.later.save()
    assert checkpoints.newest(tmp_path / "copy") == tmp_path / "copy" / "checkpoints" / "000004"


def test_the_last_good_checkpoint_is_that_of_the_most_steps(tmp_path: Path) -> None:
    for step in ("999000", "1000000", "1001000"):
        (tmp_path / "checkpoints" / step / "training_state").mkdir(parents=True)
        (tmp_path / "checkpoints" / step / "training_state" / "progress.json").touch()
    said = checkpoints.instead_of(tmp_path, tmp_path / "checkpoints" / "1001000")
    assert said.startswith("the last good checkpoint is 1000000: remove")


def test_a_run_that_has_none_is_told(demos: Path, tmp_path: Path) -> None:
    trainer: Trainer = make("bc", demos, tmp_path / "none")
    with pytest.raises(IlBenchError, match="none: holds no checkpoint to resume"):
        trainer.restore()
