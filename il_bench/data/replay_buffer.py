"""Diffusion Policy's replay buffer (Chi et al., 2023), as ``.npz`` or as the original ``.zarr`` folder."""

import hashlib
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from il_bench.data import checks
from il_bench.errors import IlBenchError
from il_bench.protocol import ACTION_HIGH, ACTION_LOW

ARRAYS = ("action", "state", "episode_ends")
ZARR_PATHS = {"action": "data/action", "state": "data/state", "episode_ends": "meta/episode_ends"}


@dataclass(frozen=True)
class ReplayBuffer:
    """The low-dimensional arrays of a replay buffer, checked."""

    action: NDArray[np.float32]  # (N, 2) target of the agent in px, x then y
    state: NDArray[np.float32]  # (N, 5) before the action: agent x, y, block x, y in px, block angle in rad
    episode_ends: NDArray[np.int64]  # (E,) one past the last frame of each episode

    def content_hash(self) -> str:
        """Sha256 of what the buffer holds, the same for every file format."""
        return arrays_sha256({name: getattr(self, name) for name in ARRAYS})


def arrays_sha256(arrays: Mapping[str, NDArray[Any]]) -> str:
    """One hash of arrays, their names, types and shapes."""
    digest = hashlib.sha256()
    for name, array in arrays.items():
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def read_replay_buffer(path: Path) -> ReplayBuffer:
    """Read and check a replay buffer: a ``.npz`` file, or a zarr folder (format 2 or 3) with ZARR_PATHS.

    Raises IlBenchError if it is something else or truncated, or if an array is missing or wrong.
    """
    raw = _read_zarr(path) if path.is_dir() else _read_npz(path)
    action, state, ends = (raw[name] for name in ARRAYS)
    checks.check_numbers(f"{path}: action", action, columns=2)
    checks.check_numbers(f"{path}: state", state, columns=5)
    if len(action) != len(state):
        raise IlBenchError(
            f"{path}: {len(action)} rows of action but {len(state)} of state; both need one row per frame"
        )
    checks.check_episode_ends(f"{path}: episode_ends", ends, len(action))
    checks.check_pixels(f"{path}: action", action, ACTION_LOW, ACTION_HIGH)
    checks.check_pixels(f"{path}: state", state[:, :4], checks.POSITION_LOW, checks.POSITION_HIGH)
    angle = f"{path}: block angle (column 4 of state)"
    checks.check_range(angle, state[:, 4:], -checks.ANGLE_LIMIT, checks.ANGLE_LIMIT, "an angle in rad")
    return ReplayBuffer(action.astype(np.float32), state.astype(np.float32), ends.astype(np.int64))


def _read_npz(path: Path) -> dict[str, NDArray[Any]]:
    if not zipfile.is_zipfile(path):
        truncated = path.read_bytes().startswith(b"PK")
        hint = "it is truncated; copy it again" if truncated else "a .npz file is a zip archive"
        raise IlBenchError(f"{path}: not a readable .npz file ({hint})")
    try:
        with np.load(path, allow_pickle=False) as archive:
            _check_names(path, ARRAYS, archive.files)
            return {name: archive[name] for name in ARRAYS}
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
        raise IlBenchError(f"{path}: damaged, copy it again ({error})") from error
    except IlBenchError:
        raise
    except ValueError as error:  # numpy's words for object arrays and for headers that make no sense
        raise IlBenchError(f"{path}: cannot be read as plain number arrays ({error})") from error


def _read_zarr(path: Path) -> dict[str, NDArray[Any]]:
    try:
        import zarr
    except ImportError as error:
        raise IlBenchError(f"{path}: to read zarr, `pip install 'il-bench[zarr]'`") from error
    try:
        root = zarr.open_group(path, mode="r")
        found = [name for name in ARRAYS if isinstance(root.get(ZARR_PATHS[name]), zarr.Array)]
    except Exception as error:  # zarr raises its own, KeyError, JSONDecodeError: all mean the same here
        raise IlBenchError(f"{path}: not a readable zarr group ({error})") from error
    _check_names(path, tuple(ZARR_PATHS.values()), [ZARR_PATHS[name] for name in found])
    return {name: _read_zarr_array(path, ZARR_PATHS[name], root[ZARR_PATHS[name]]) for name in ARRAYS}


def _read_zarr_array(path: Path, name: str, array: Any) -> NDArray[Any]:
    # zarr silently reads a missing chunk as zeros, so count them first.
    if array.nchunks_initialized < array.nchunks:
        raise IlBenchError(
            f"{path}: {name} has {array.nchunks_initialized} of its {array.nchunks} chunks;"
            " the folder is incomplete, copy it again"
        )
    try:
        return np.asarray(array[...])
    except Exception as error:  # the decompressors raise whatever they like
        raise IlBenchError(f"{path}: {name} cannot be decoded, copy the folder again ({error})") from error


def _check_names(path: Path, expected: tuple[str, ...], found: list[str]) -> None:
    if missing := [name for name in expected if name not in found]:
        raise IlBenchError(
            f"{path}: no array {', '.join(missing)} (found: {', '.join(sorted(found)) or 'none'});"
            f" a replay buffer has {', '.join(expected)}"
        )
