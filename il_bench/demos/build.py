"""Draw demonstrations that have no images: make a LeRobotDataset like lerobot/pusht of states."""

import shutil
from functools import partial
from importlib import metadata
from pathlib import Path

import cv2

from il_bench.demos import provenance
from il_bench.demos.output import OnProgress, is_made, make_once, run_missing
from il_bench.demos.pixels import EpisodeWriter, folder_of, is_whole, join_episodes
from il_bench.demos.provenance import Inputs
from il_bench.demos.states import States
from il_bench.errors import IlBenchError
from il_bench.files import given_path, read_model
from il_bench.machine import usable_cores

#: In the dataset's folder, where LeRobot leaves it alone.
FILE = Path("meta") / "il_bench_build.json"
# Bytes that a frame of the human demonstrations takes with all that belongs to it, rounded up.
_BYTES_IMAGE, _BYTES_VIDEO = 1_150, 500
# While it is written there are the finished episodes, each a dataset of its own; all of them joined; and that
# again, smaller.
_COPIES, _BYTES_EPISODE = 3, 75_000
_VERSIONS = ("lerobot", "pygame", "pymunk", "numpy", "pillow", "av", "pyarrow", "datasets")


class BuildInputs(Inputs):
    """What the files of `il-bench demos build` depend on."""

    source: str  # its name
    states: str  # sha256 of their numbers
    episodes: int
    frames: int
    images: str  # "image" or "video"
    reward_from: str  # as in `States`
    renderer: str  # sha256 of the sources of `il_bench.pusht`
    versions: dict[str, str]  # of the packages that draw and write

    @staticmethod
    def of(dataset: Path) -> "BuildInputs | None":
        """See `Inputs.of`."""
        try:
            return read_model(BuildInputs, dataset / FILE, "build it again")
        except IlBenchError:
            return None


def inputs_of(states: States, video: bool) -> BuildInputs:
    """What a build of these states depends on."""
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
    on_progress: OnProgress | None = None,
) -> Path:
    """Draw all states and write them as a LeRobotDataset into `output`, unless the same call made it before.

    The files depend on the states, on `video` and on the versions, all noted in `FILE` beside them; not on
    the number of workers or on interruptions. After an interruption, the same call resumes.

    video: AV1, which is lossy, as in lerobot/pusht; else PNG, every pixel as drawn. Raises IlBenchError if
    `output` holds something else or cannot be written, if the disk is too full, or if the video cannot be
    encoded.
    """
    output, inputs = given_path(output).resolve(), inputs_of(states, video)
    if not is_made(output, inputs):
        _check_room(output, bytes_needed(states, video)[0])

    def write(folder: Path, whole: Path) -> None:
        run_missing(
            partial(EpisodeWriter, states, folder, video),
            EpisodeWriter.write,
            [[episode] for episode in range(inputs.episodes)],
            lambda episodes: is_whole(folder, states, episodes[0]),
            int,  # a worker writes an episode's files itself
            workers=min(workers, usable_cores()),
            on_progress=on_progress,
            name="episodes",
        )
        join_episodes([folder_of(folder, episode) for episode in range(inputs.episodes)], whole, video)
        provenance.write(whole, states.made_by)
        provenance.write(whole, inputs, FILE)

    make_once(output, inputs, write)
    return output


def _check_room(output: Path, most: int) -> None:
    folder = next(parent for parent in output.parents if parent.exists())
    if (free := shutil.disk_usage(folder).free) < most:
        raise IlBenchError(
            f"{folder}: {free / 1e6:.0f} MB are free and this takes about {most / 1e6:.0f} MB while it runs; "
            "make room, give another --output, or use --video"
        )
