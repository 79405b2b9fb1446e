"""Draw demonstrations that have no images: states become a LeRobotDataset like lerobot/pusht."""

import shutil
from collections.abc import Callable
from contextlib import closing
from functools import partial
from importlib import metadata
from pathlib import Path

import cv2

from il_bench.demos import provenance
from il_bench.demos.output import is_made, make_once
from il_bench.demos.pixels import EpisodeWriter, folder_of, is_whole, join_episodes
from il_bench.demos.provenance import Inputs
from il_bench.demos.states import States
from il_bench.errors import IlBenchError
from il_bench.files import write_whole
from il_bench.machine import usable_cores
from il_bench.rollout import executors

#: In the dataset's folder, where LeRobot leaves it alone.
FILE = Path("meta") / "il_bench_build.json"
# Bytes that a frame of the human demonstrations takes with all that belongs to it, rounded up.
_BYTES_IMAGE, _BYTES_VIDEO = 1_150, 500
# While it is written: the finished episodes, each with files of its own that every dataset has; all of them
# joined; and that again, smaller.
_COPIES, _BYTES_EPISODE = 3, 75_000
_VERSIONS = ("lerobot", "pygame", "pymunk", "numpy", "pillow", "av", "pyarrow", "datasets")


class BuildInputs(Inputs):
    """What the files of `il-bench demos build` depend on.

    source: what it is called. states: sha256 of its numbers. images: image or video. reward_from: of the
    states. renderer: sha256 of the sources of `il_bench.pusht`. versions: of what draws and writes.
    """

    source: str
    states: str
    episodes: int
    frames: int
    images: str
    reward_from: str
    renderer: str
    versions: dict[str, str]


def bytes_needed(states: States, video: bool) -> tuple[int, int]:
    """How much disk a build takes while it runs, and when it is done: about, in bytes."""
    done = len(states.pose) * (_BYTES_VIDEO if video else _BYTES_IMAGE)
    return _COPIES * done + len(states.episode_ends) * _BYTES_EPISODE, done


def build_pixels(
    states: States,
    output: str | Path,
    *,
    video: bool = False,
    workers: int = 1,
    on_progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Draw all states and write them as a LeRobotDataset into `output`, a new folder or one that it made.

    The files depend on the states, on `video` and on the versions, which are all in `FILE` beside them; not
    on the number of workers or on an interruption: the same call goes on.

    video: AV1, as lerobot/pusht has it, which is lossy; else PNG, every pixel as it was drawn. workers:
    number of processes. on_progress: called as `on_progress(n_done, n_episodes)`.

    Raises:
        IlBenchError: `output` is something else's or cannot be written, there is too little room, or the
            video cannot be encoded.
    """
    output, inputs = Path(output).expanduser().resolve(), _inputs(states, video)
    if not is_made(output, inputs, _inputs_of):
        _check_room(states, output, video)

    def write(folder: Path, whole: Path) -> None:
        _write_episodes(states, folder, video, workers, on_progress)
        join_episodes([folder_of(folder, episode) for episode in range(inputs.episodes)], whole, video)
        provenance.write(whole, states.made_by)
        write_whole(whole / FILE, (inputs.model_dump_json(indent=1) + "\n").encode())

    make_once(output, inputs, _inputs_of, write)
    return output


def is_built(states: States, output: str | Path, *, video: bool = False) -> bool:
    """Whether the same call of `build_pixels` has made `output` before.

    Raises:
        IlBenchError: `output` is something else's.
    """
    return is_made(Path(output).expanduser().resolve(), _inputs(states, video), _inputs_of)


def _inputs(states: States, video: bool) -> BuildInputs:
    versions = {name: metadata.version(name) for name in _VERSIONS}
    return BuildInputs(
        source=states.name,
        states=states.sha256(),
        episodes=len(states.episode_ends),
        frames=len(states.pose),
        images="video" if video else "image",
        reward_from=states.reward_from,
        renderer=provenance.pusht_sha256(),
        versions=versions | {"opencv": str(cv2.__version__)},
    )


def _inputs_of(dataset: Path) -> BuildInputs | None:
    try:
        return BuildInputs.model_validate_json((dataset / FILE).read_bytes())
    except (OSError, ValueError):
        return None


def _check_room(states: States, output: Path, video: bool) -> None:
    there = next(parent for parent in output.parents if parent.exists())
    most, _ = bytes_needed(states, video)
    free = shutil.disk_usage(there).free
    if free < most:
        raise IlBenchError(
            f"{there}: {free / 1e6:.0f} MB are free and this takes about {most / 1e6:.0f} MB while it runs; "
            "make room, give another --output, or use --video"
        )


def _write_episodes(
    states: States, folder: Path, video: bool, workers: int, on_progress: Callable[[int, int], None] | None
) -> None:
    """Write the datasets of all episodes that are not in the folder yet."""
    lengths = [end - start for start, end in states.spans]
    missing = [k for k, length in enumerate(lengths) if not is_whole(folder, k, length)]

    def progress(n_missing: int) -> None:
        if on_progress is not None:
            on_progress(len(lengths) - n_missing, len(lengths))

    progress(len(missing))
    executor = executors.choose(min(workers, usable_cores()), len(missing))
    load = partial(EpisodeWriter, states, folder, video)
    with closing(executor.run(load, EpisodeWriter.write, missing, name="episode {}".format)) as results:
        for n_done, _ in enumerate(results, 1):
            progress(len(missing) - n_done)
