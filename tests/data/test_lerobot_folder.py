"""LeRobot folders: what is wrong is named in one line, and what no policy reads is left alone."""

import json
import os
import shutil
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from PIL import Image

from il_bench.data import Windows, open_dataset
from il_bench.data.lerobot_folder import content_sha256, open_folder
from il_bench.data.sources import EXPERT_FOLDER
from il_bench.errors import IlBenchError
from tests.data.conftest import LENGTHS, assert_named, frames_of

EPISODE, TIME = "episode_index", "timestamp"


def edit_info(root: Path, **changes: Any) -> None:
    path = root / "meta" / "info.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_data(root: Path, change: Callable[[pd.DataFrame], object]) -> None:
    (path,) = root.glob("data/*/*.parquet")
    frames = pd.read_parquet(path)
    change(frames)
    frames.to_parquet(path)


def set_action(root: Path, frame: int, *values: float) -> None:
    edit_data(root, lambda frames: frames["action"][frame].__setitem__(slice(None), values))


def set_column(root: Path, key: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    edit_data(root, lambda frames: frames.__setitem__(key, change(frames[key].values)))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def set_feature(root: Path, key: str, dtype: str) -> None:
    info = json.loads((root / "meta" / "info.json").read_text())
    info["features"][key] = {"shape": [1], **info["features"].get(key, {}), "dtype": dtype}
    edit_info(root, features=info["features"])


def without(root: Path, key: str) -> None:
    info = json.loads((root / "meta" / "info.json").read_text())
    del info["features"][key]
    edit_info(root, features=info["features"])
    edit_data(root, lambda frames: frames.drop(columns=key, inplace=True))


BAD_FOLDERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "info": (
        lambda root: truncate(root / "meta/info.json"),
        r"info\.json: broken JSON at line",
    ),
    "info shape": (
        lambda root: edit_info(root, features=3),
        r"info\.json: features = 3: Inp",
    ),
    "version": (lambda root: edit_info(root, codebase_version="v2.1"), r"v2\.1, expected v3\.0; convert it"),
    "truncated": (lambda root: truncate(next(root.glob("data/*/*"))), r"file-000\.parquet: damaged parquet"),
    "no data": (lambda root: shutil.rmtree(root / "data"), r"no data/\*/\*\.parquet; the dataset is empty"),
    "no tasks": (lambda root: (root / "meta/tasks.parquet").unlink(), r"no meta/tasks\.parquet"),
    "no episodes": (lambda root: shutil.rmtree(root / "meta/episodes"), r"no meta/episodes"),
    "frames": (lambda root: edit_info(root, total_frames=19), r"hold 18 rows but .* total_frames = 19"),
    "fps": (lambda root: edit_info(root, fps=30), r"fps 30, PushT is controlled at 10 Hz"),
    "no action": (lambda root: without(root, "action"), r"no feature action"),
    "blind": (lambda root: without(root, "observation.environment_state"), r"the block would be unseen"),
    "nan": (lambda root: set_action(root, 7, 1, np.nan), r"action: nan at frame 7, column 1"),
    "range": (lambda root: set_action(root, 3, 1, 700), r"700 at frame 3, column 1, outside \[0, 512\]"),
    "lacking": (lambda root: set_column(root, EPISODE, np.zeros_like), r"lack episodes \[1, 2, 3\] of the 4"),
    "episodes": (lambda root: set_column(root, EPISODE, np.flip), r"episode_index at row 0 is not 0"),
}


POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{1:064d}\nsize 3700000\n"
BOOLEAN_SHAPE = {"action": {"dtype": "float32", "shape": [True]}}


def replace(path: Path, make: Callable[[Path], object]) -> None:
    path.unlink()
    make(path)


def data_of(root: Path) -> Path:
    return next(root.glob("data/*/*.parquet"))


BAD_FOLDERS |= {
    "dtype": (lambda root: set_feature(root, "action", "int64"), r"action holds float, .*dtype = 'int64'"),
    "column": (lambda root: set_feature(root, "note", "string"), r"note is not there, and meta/info\.json"),
    "feature": (lambda root: edit_data(root, lambda data: data.insert(0, "note", 1)), r"note is there, and"),
    "pointer": (
        lambda root: data_of(root).write_text(POINTER),
        r"000\.parquet: a git-lfs pointer",
    ),
    "info pointer": (
        lambda root: (root / "meta/info.json").write_text(POINTER),
        r"info\.json: a git-lfs",
    ),
    "pipe": (lambda root: replace(data_of(root), os.mkfifo), r"file-000\.parquet: a pipe, a socket or a dev"),
    "folder": (lambda root: replace(data_of(root), Path.mkdir), r"file-000\.parquet: a folder, not a file"),
    "stats": (lambda root: truncate(root / "meta/stats.json"), r"stats\.json: broken JSON .*; remove it"),
    "fps 10.5": (lambda root: edit_info(root, fps=10.5), r"info\.json: fps = 10\.5"),
    "shape": (
        lambda root: edit_info(root, features=BOOLEAN_SHAPE),
        r"info\.json: features\.action\.shape\.0",
    ),
    "slow": (lambda root: set_column(root, TIME, lambda x: 1.5 * x), r"timestamp at row 1 is 0\.150 s"),
    "time nan": (lambda root: set_column(root, TIME, lambda x: np.nan * x), r"timestamp at row 0 is nan s"),
    "order": (lambda root: set_column(root, "frame_index", np.flip), r"frame_index at row 0 is not 0"),
}


@pytest.mark.parametrize("case", BAD_FOLDERS)
def test_a_bad_lerobot_folder_is_named(tmp_path: Path, small: LeRobotDataset, case: str) -> None:
    damage, message = BAD_FOLDERS[case]
    root = shutil.copytree(small.root, tmp_path / "dataset")
    assert open_dataset(root).num_frames == sum(LENGTHS)
    damage(root)
    assert_named(root, message)


def add_columns(root: Path) -> None:
    """As others add them: a note, a force, a camera at the wrist; and columns in another order."""
    info = json.loads((root / "meta" / "info.json").read_text())
    info["features"] |= {
        "note": {"dtype": "string", "shape": [1], "names": None},
        "observation.force": {"dtype": "float32", "shape": [3], "names": None},
        "action.speed": {"dtype": "float32", "shape": [1], "names": None},
        "observation.images.wrist": {"dtype": "image", "shape": [8, 8, 3], "names": ["h", "w", "c"]},
    }
    edit_info(root, features=info["features"])
    path = data_of(root)
    table, n = pq.read_table(path).replace_schema_metadata(None), 18
    png = BytesIO()
    Image.new("RGB", (8, 8)).save(png, "png")
    for name, values in (
        ("note", pa.array(["push"] * n)),
        ("observation.force", pa.array([[1.0, 2.0, 3.0]] * n, pa.list_(pa.float32(), 3))),
        ("action.speed", pa.array([1.0] * n, pa.float32())),
        ("observation.images.wrist", pa.array([{"bytes": png.getvalue(), "path": None}] * n)),
    ):
        table = table.append_column(name, values)
    pq.write_table(table.select(sorted(table.column_names)), path)


def test_columns_that_no_policy_reads_are_left_alone(tmp_path: Path, small: LeRobotDataset) -> None:
    root = shutil.copytree(small.root, tmp_path / "dataset")
    add_columns(root)
    deltas, indices = {"action": [0.0, 0.1]}, torch.arange(18)
    found, expected = (Windows(data, deltas).batch(indices) for data in (open_dataset(root), small))
    assert set(found) - set(expected) == {"observation.force", "action.speed"}
    for key, value in expected.items():
        assert found[key] == value if key == "task" else torch.equal(found[key], value), key
    with pytest.raises(IlBenchError, match=r"delta_timestamps\['note'\]: no such feature that holds numbers"):
        Windows(open_dataset(root), {"note": [0.0]})


def noted(root: Path) -> Path:
    """The folder of a data set with the hashes that our own data have."""
    note = {"schema_version": 1, "parts": [], "episodes": [], "sha256": content_sha256(root)}
    (root / "meta" / "il_bench.json").write_text(json.dumps(note))
    return root


def test_data_of_our_own_whose_values_have_changed_are_named(tmp_path: Path, small: LeRobotDataset) -> None:
    root = noted(shutil.copytree(small.root, tmp_path / "dataset"))
    assert open_dataset(root).num_frames == 18
    set_action(root, 7, 256.0, 256.0)
    assert_named(
        root, r"dataset: action is not what il_bench wrote there, by its hash in meta/il_bench\.json; "
    )
    (root / "meta" / "il_bench.json").unlink()
    assert open_dataset(root).num_frames == 18


@pytest.mark.parametrize("which", ["data/*/*.parquet", "meta/episodes/*/*.parquet", "meta/tasks.parquet"])
def test_a_flipped_byte_is_told_or_changes_nothing(which: str, tmp_path: Path, small: LeRobotDataset) -> None:
    root = noted(shutil.copytree(small.root, tmp_path / "dataset"))
    (path,) = root.glob(which)
    whole, right = path.read_bytes(), frames_of(open_dataset(root))
    rng, told = np.random.default_rng(0), 0
    for at in rng.integers(len(whole), size=25).tolist():
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << int(rng.integers(8))]) + whole[at + 1 :])
        try:
            found = frames_of(open_dataset(root))
        except IlBenchError as error:
            told += 1
            assert str(root) in str(error)
            continue
        assert found.keys() == right.keys()
        for key in right.keys() - {"task_index"}:  # PushT has one task
            np.testing.assert_array_equal(found[key], right[key], err_msg=f"{key}, byte {at}")
    assert told


def test_however_they_are_packed_and_whatever_is_beside_them(tmp_path: Path, small: LeRobotDataset) -> None:
    root = noted(shutil.copytree(small.root, tmp_path / "dataset"))
    add_columns(root)
    open_dataset(root)
    pq.write_table(pq.read_table(data_of(root)), data_of(root), compression="zstd", row_group_size=5)
    open_dataset(root)
    edit_data(
        root, lambda frames: frames.__setitem__("action", [row.astype(float) for row in frames["action"]])
    )
    open_dataset(root)


def test_the_data_that_il_bench_carries_are_those_that_it_notes() -> None:
    facts = json.loads((EXPERT_FOLDER / "meta" / "il_bench.json").read_text())
    assert facts["sha256"] == content_sha256(EXPERT_FOLDER)
    assert {"action", "observation.state", "observation.environment_state"} <= facts["sha256"].keys()


def test_a_folder_that_is_none_is_not_called_damaged(tmp_path: Path) -> None:
    with pytest.raises(IlBenchError, match=r"nothere: no such folder .* is missing"):
        open_folder(tmp_path / "nothere")
    with pytest.raises(IlBenchError, match=r": no LeRobotDataset in it .*; give the folder that holds meta/"):
        open_folder(tmp_path)
