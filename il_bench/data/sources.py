"""Open demonstrations from any source: a Hub id, a LeRobot folder or a replay buffer."""

from importlib.resources import files
from pathlib import Path

from lerobot.datasets.lerobot_dataset import LeRobotDataset

from il_bench.data.convert import convert_cached
from il_bench.data.lerobot_folder import VIDEO_BACKEND, check_dataset, first_line, open_folder
from il_bench.data.names import ACCEPTED, path_of
from il_bench.data.replay_buffer import read_replay_buffer
from il_bench.errors import IlBenchError
from il_bench.files import given_path
from il_bench.protocol import EXPERT

#: The folder of the demonstrations that il_bench carries.
EXPERT_FOLDER = Path(str(files("il_bench") / "data" / EXPERT))


def open_dataset(source: str | Path, *, cache_dir: str | Path | None = None) -> LeRobotDataset:
    """Open PushT demonstrations, checked, as a LeRobotDataset v3.

    source: one of
        - `expert`: the demonstrations that il_bench carries (a folder of that name is `./expert`);
        - a Hub id such as `lerobot/pusht_keypoints` (a local path of that name comes first);
        - a folder with a LeRobotDataset v3 (it holds `meta/info.json`);
        - a replay buffer of Diffusion Policy: a `.npz` file with the arrays action, state and episode_ends, a
          `.zarr` folder, or a folder that holds `human_demos.npz` or one of the two. It is converted to the
          features of `lerobot/pusht_keypoints`.
    cache_dir: where converted replay buffers are kept; by default $IL_BENCH_CACHE or ~/.cache/il_bench.

    Raises IlBenchError: one line that names the file, array and value at fault, and the way out.
    """
    if source == EXPERT:
        return open_folder(EXPERT_FOLDER)
    path = path_of(source)
    if path is None:
        return _open_hub(str(source))
    if (path / "meta" / "info.json").exists():
        return open_folder(path)
    buffer = read_replay_buffer(find_replay_buffer(path))
    return convert_cached(buffer, given_path(cache_dir) if cache_dir is not None else None)


def find_replay_buffer(path: Path) -> Path:
    """The replay buffer that `path` means: itself, or the one in the folder `path`.

    Raises IlBenchError if there is none, or more than one.
    """
    if path.is_file():
        if path.suffix == ".npz":
            return path
        hint = "; unpack it first" if path.suffix == ".zip" else ""
        raise IlBenchError(
            f"{path}: demonstrations cannot be read from a file of this kind{hint}; expected {ACCEPTED}"
        )
    if _is_zarr(path):
        return path
    if (path / "human_demos.npz").exists():
        return path / "human_demos.npz"
    inside = sorted([*path.glob("*.npz"), *(child for child in path.glob("*.zarr") if _is_zarr(child))])
    if len(inside) == 1:
        return inside[0]
    if inside:
        names = ", ".join(child.name for child in inside)
        raise IlBenchError(f"{path}: holds {len(inside)} replay buffers ({names}); name the one you mean")
    raise IlBenchError(f"{path}: a folder with no meta/info.json, .npz or .zarr in it; expected {ACCEPTED}")


def _is_zarr(path: Path) -> bool:
    marks = (".zgroup", ".zattrs", "zarr.json")
    return path.is_dir() and (path.suffix == ".zarr" or any((path / mark).exists() for mark in marks))


def _open_hub(repo_id: str) -> LeRobotDataset:
    try:
        dataset = LeRobotDataset(repo_id, video_backend=VIDEO_BACKEND)
    except Exception as error:  # offline, no such repository, old format: many types, one answer
        raise IlBenchError(
            f"{repo_id}: no such path here, and it could not be fetched from the Hub ({first_line(error)});"
            f" check the name and the network, or pass {ACCEPTED.split(', ', 1)[1]}"
        ) from error
    check_dataset(repo_id, dataset)
    return dataset
