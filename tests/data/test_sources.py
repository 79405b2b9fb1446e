"""Every kind of source is found, and what is wrong with one is named in one line."""

import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lerobot.datasets import dataset_metadata

from il_bench.data import convert, open_dataset
from tests.data.conftest import LENGTHS, assert_named, make_buffer, save_npz, save_zarr

# --- bad replay buffers ---------------------------------------------------------------------------------


def changed(name: str, place: Any, value: float) -> dict[str, np.ndarray]:
    array = vars(make_buffer())[name].copy()
    array[place] = value
    return {name: array}


GOOD = vars(make_buffer())
BAD_ARRAYS: dict[str, tuple[dict[str, Any], str]] = {
    "missing": ({"state": None}, r"no array state \(found: action, episode_ends\)"),
    "nan": (changed("action", (7, 1), np.nan), r"action: nan at frame 7, column 1"),
    "infinite": (changed("state", (2, 4), np.inf), r"state: inf at frame 2, column 4"),
    "wide": ({"state": GOOD["state"][:, :4]}, r"state: shape \(18, 4\), expected \(number of frames, 5\)"),
    "flat": ({"action": GOOD["action"].ravel()}, r"action: shape \(36,\), expected \(number of frames, 2\)"),
    "text": ({"action": GOOD["action"].astype(str)}, r"action: dtype <U32"),
    "complex": ({"state": GOOD["state"].astype(complex)}, r"state: dtype complex128"),
    "pickled": ({"action": np.array([{}], dtype=object)}, r"plain number arrays"),
    "rows": ({"state": GOOD["state"][:-1]}, r"18 rows of action but 17 of state"),
    "falling": (changed("episode_ends", 2, 6), r"episode_ends: entry 2 is 6 after 6; episode ends must rise"),
    "negative": (changed("episode_ends", 0, -5), r"episode_ends: entry 0 is -5 after 0"),
    "short": (changed("episode_ends", 3, 17), r"episode_ends: the last entry is 17, but there are 18 frames"),
    "long": (changed("episode_ends", 3, 99), r"episode_ends: the last entry is 99, but there are 18 frames"),
    "real ends": ({"episode_ends": GOOD["episode_ends"] / 1.0}, r"episode_ends: .* dtype float64, expected"),
    "no ends": ({"episode_ends": GOOD["episode_ends"][:0]}, r"episode_ends: no episodes"),
    "empty": ({k: v[:0] for k, v in GOOD.items()}, r"action: no frames"),
    "above": (changed("action", (4, 0), 512.5), r"action: 512.5 at frame 4, column 0, outside \[0, 512\]"),
    "below": (changed("action", (4, 0), -1), r"action: -1 at frame 4, column 0, outside \[0, 512\]"),
    "normalised": ({"action": GOOD["action"] / 512}, r"action: .*looks normalised.*px"),
    "far": (changed("state", (9, 2), 5000), r"state: 5000 at frame 9, column 2, outside \[-100, 612\]"),
    "degrees": (changed("state", (0, 4), 359), r"angle .*: 359 at frame 0.*rad"),
}


@pytest.mark.parametrize("case", BAD_ARRAYS)
def test_a_bad_array_is_named(tmp_path: Path, case: str) -> None:
    arrays, message = BAD_ARRAYS[case]
    assert_named(save_npz(tmp_path, **arrays), message)


def test_a_truncated_npz_is_named_and_one_with_flipped_bytes(tmp_path: Path) -> None:
    source = save_npz(tmp_path)
    whole = source.read_bytes()
    with zipfile.ZipFile(source) as archive:
        start = archive.getinfo("state.npy").header_offset
    for size in (0, 1, 100, len(whole) // 2, len(whole) - 1):
        source.write_bytes(whole[:size])
        assert_named(source, r"not a readable \.npz|damaged")
    source.write_bytes(whole[: start + 60] + bytes(30) + whole[start + 90 :])
    assert_named(source, r"damaged, copy it again|plain number arrays")


def test_a_zarr_with_a_missing_or_damaged_chunk_is_named(tmp_path: Path) -> None:
    source = save_zarr(tmp_path, make_buffer())
    chunk = source / "data" / "state" / "1.0"
    whole = chunk.read_bytes()
    chunk.write_bytes(whole[: len(whole) // 2])
    assert_named(source, r"data/state cannot be decoded")
    chunk.unlink()
    assert_named(source, r"data/state has 2 of its 3 chunks")
    shutil.rmtree(source / "data" / "state")
    assert_named(source, r"no array data/state \(found: data/action, meta/episode_ends\)")
    shutil.rmtree(source)
    source.mkdir()
    assert_named(source, r"zarr")


# --- sources --------------------------------------------------------------------------------------------


def test_a_folder_is_searched_for_its_one_replay_buffer(tmp_path: Path) -> None:
    assert_named(tmp_path, r"no meta/info\.json, \.npz or \.zarr in it")
    npz = save_npz(tmp_path)
    assert open_dataset(tmp_path).num_frames == sum(LENGTHS)
    shutil.copy(npz, tmp_path / "more.npz")
    assert_named(tmp_path, r"holds 2 replay buffers \(demos\.npz, more\.npz\); name the one you mean")
    npz.rename(tmp_path / "human_demos.npz")
    assert open_dataset(str(tmp_path)).num_frames == sum(LENGTHS)


@pytest.mark.parametrize("name", ["demos.csv", "demos.zarr.zip", "demos"])
def test_a_file_of_another_kind_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("x")
    assert_named(tmp_path / name, r"cannot be read from a file of this kind.*expected a Hub id")


@pytest.mark.parametrize(
    "source", ["nowhere.npz", "/no/such/folder", "data/nowhere.zarr", "demos", 300 * "x", "~nobody-here/x"]
)
def test_a_path_that_is_not_there_is_named(source: str) -> None:
    assert_named(
        source,
        r"no such file or folder(, the nearest is \w+)?; expected a Hub id such as lerobot/pusht_keypoints",
    )


def test_a_hub_id_without_network_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset_metadata, "HF_LEROBOT_HOME", tmp_path)
    assert_named(
        "lerobot/pusht_keypoints",
        r"no such path here.*it could not be fetched from the Hub.*check.*network, or pa",
    )


def test_a_hub_id_is_lerobots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset_metadata, "HF_LEROBOT_HOME", tmp_path)
    convert.write_dataset(make_buffer(), tmp_path / "lerobot" / "pusht_keypoints")
    assert open_dataset("lerobot/pusht_keypoints").repo_id == "lerobot/pusht_keypoints"


def test_a_local_path_comes_before_a_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    convert.write_dataset(make_buffer(), tmp_path / "lerobot" / "pusht_keypoints")
    monkeypatch.chdir(tmp_path)
    assert open_dataset("lerobot/pusht_keypoints").root == Path("lerobot/pusht_keypoints")
