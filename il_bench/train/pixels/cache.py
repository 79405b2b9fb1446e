"""What the eye says of every frame of the demonstrations, computed once and kept beside the eye.

Frames are drawn as an evaluation shows them. The eye looks in bfloat16, as it was trained.
"""

import hashlib
import json
import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lerobot.utils.constants import OBS_ENV_STATE, OBS_STATE
from numpy.typing import NDArray

from il_bench.data import Windows
from il_bench.errors import IlBenchError
from il_bench.files import writing
from il_bench.machine import usable_cores
from il_bench.policies.expert import poses_of
from il_bench.train.pixels.eye import FEATURE_DIM, MAP_SHAPE, load_eye
from il_bench.train.pixels.eye_training import EYE_FILE
from il_bench.train.pixels.scenes import Scenes, to_tensor

_BLOCK = 2048  # frames, written and noted together
_BATCH = 256
_WAY_OUT = "make room; finished work is kept"
Array = NDArray[np.float64]
Features = NDArray[np.float32]
Maps = NDArray[np.float16]


def eye_file(given: Path) -> Path:
    """The file of an eye, from its path or from the folder of its run."""
    return given / EYE_FILE if given.is_dir() else given


def seen_by(
    given: Path, windows: Windows, on_progress: Callable[[int, int], None] = lambda done, of: None
) -> tuple[Features, Maps, str]:
    """What the eye says of the windows' frames: features (N, 128), maps (N, 512, 3, 3), and its sha256.

    Both arrays lie in files. What an interrupted call has computed is not computed again.
    """
    path = eye_file(given)
    load_eye(path)  # says what is wrong with it
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    columns = windows.batch(torch.arange(len(windows)))
    agents = columns[OBS_STATE].double().flatten(1)[:, -2:].numpy()
    poses = poses_of(columns[OBS_ENV_STATE].double().flatten(1)[:, -16:].numpy())
    named = hashlib.sha256(sha256.encode() + agents.tobytes() + poses.tobytes()).hexdigest()
    folder = path.parent / "seen" / named[:16]
    with writing(folder, _WAY_OUT):
        _fill(path, folder, agents, poses, on_progress)
    features, maps = _open(folder, len(agents), "r")
    return features, maps, sha256


def _open(folder: Path, n: int, mode: str) -> tuple[Features, Maps]:
    """Features and maps of ``n`` frames, as arrays that lie in files."""
    open_memmap: Any = np.lib.format.open_memmap
    features = open_memmap(folder / "features.npy", mode, np.float32, (n, FEATURE_DIM))
    return features, open_memmap(folder / "maps.npy", mode, np.float16, (n, *MAP_SHAPE))


def _fill(
    eye: Path, folder: Path, agents: Array, poses: Array, on_progress: Callable[[int, int], None]
) -> None:
    note, n = folder / "done.json", len(agents)
    done: set[int] = set(json.loads(note.read_text())) if note.exists() else set()
    if not done:
        folder.mkdir(parents=True, exist_ok=True)
        _open(folder, n, "w+")
    parts = [slice(start, min(start + _BLOCK, n)) for start in range(0, n, _BLOCK) if start not in done]
    if not parts:
        return
    features, maps = _open(folder, n, "r+")
    for part, (features[part], maps[part]) in _look(eye, parts, agents, poses):
        features.flush(), maps.flush()  # type: ignore[attr-defined]
        done.add(part.start)
        note.with_suffix(".part").write_text(json.dumps(sorted(done)))
        note.with_suffix(".part").replace(note)
        on_progress(min(len(done) * _BLOCK, n), n)


def _look(
    eye: Path, parts: list[slice], agents: Array, poses: Array
) -> Iterator[tuple[slice, tuple[Features, Maps]]]:
    """What the eye says of each part, as it is done; on every core where there is more than one."""
    if (workers := min(usable_cores(), len(parts))) == 1:
        yield from ((part, _see(eye, agents[part], poses[part])) for part in parts)
        return
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        waiting = {pool.submit(_see, eye, agents[part], poses[part]): part for part in parts}
        try:
            yield from ((waiting[each], each.result()) for each in as_completed(waiting))
        finally:
            pool.shutdown(cancel_futures=True)


@torch.no_grad()
def _see(path: Path, agents: Array, poses: Array) -> tuple[Features, Maps]:
    """What the eye says of some frames; runs in a process of its own."""
    torch.set_num_threads(1)
    eye, scenes, said = load_eye(path), Scenes(), []
    for start in range(0, len(agents), _BATCH):
        rows = slice(start, start + _BATCH)
        maps = eye.maps(to_tensor(scenes.draw(agents[rows], poses[rows])), bfloat16=True)
        said.append((eye.feature(maps).numpy(), maps.half().numpy()))
    features, maps_of = (np.concatenate(parts) for parts in zip(*said, strict=True))
    if not np.isfinite(features).all() or not np.isfinite(maps_of).all():
        raise IlBenchError(f"{path}: the eye's output overflows 16-bit floats; train the eye again.")
    return features, maps_of
