"""The JSON files of a LeRobot folder: whatever they hold, they are accepted or refused in a sentence."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from lerobot.datasets.lerobot_dataset import LeRobotDataset

from il_bench.data.lerobot_folder import DatasetInfo, check_statistics_file, open_folder, read_info
from il_bench.errors import IlBenchError
from il_bench.files import read_json
from tests.fuzzing import FUZZ, fuzz


@pytest.fixture
def root(small: LeRobotDataset, tmp_path: Path) -> Path:
    return shutil.copytree(small.root, tmp_path / "dataset")


@pytest.mark.parametrize("examples", FUZZ)
def test_info(examples: int, root: Path) -> None:
    def write(path: Path, info: DatasetInfo) -> None:
        path.write_text(info.model_dump_json())

    fuzz(root / "meta" / "info.json", lambda path: read_info(root), write, examples=examples)


@pytest.mark.parametrize("examples", FUZZ)
def test_statistics(examples: int, root: Path) -> None:
    def read(path: Path) -> dict[str, Any]:
        check_statistics_file(root)
        return read_json(path, "copy it again", allow_nan=True)

    fuzz(root / "meta" / "stats.json", read, examples=examples)


@pytest.mark.slow
@pytest.mark.parametrize("file", ["info.json", "stats.json"])
def test_a_folder_with_them_is_opened_or_refused(file: str, root: Path) -> None:
    """LeRobot itself reads them then: what our own reader lets pass must not end in another error."""

    def read(path: Path) -> int:
        read_info(root)
        check_statistics_file(root)
        try:
            return open_folder(root).num_frames
        except IlBenchError as error:  # that names the folder, or another file in it
            assert str(root) in str(error)
            return 0

    fuzz(root / "meta" / file, read, examples=1000)
