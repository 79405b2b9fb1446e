"""Demonstrations in states become lerobot/pusht: camera, agent, action, reward, success, done."""

import os
import shutil
from collections.abc import Callable
from contextlib import closing
from functools import partial
from importlib import metadata
from pathlib import Path

import cv2

from il_bench.demos import provenance
from il_bench.demos.halfmade import opened
from il_bench.demos.join import join_shards
from il_bench.demos.provenance import Conditions
from il_bench.demos.shard import ShardWriter, is_finished, load_writer, shard_of
from il_bench.demos.states import States
from il_bench.errors import IlBenchError
from il_bench.files import write_whole
from il_bench.rollout import executors

#: In the dataset's folder, where LeRobot leaves it alone.
FILE = Path("meta") / "il_bench_build.json"
# Bytes that a frame of the human demonstrations takes with all that belongs to it, rounded up.
_BYTES_IMAGE, _BYTES_VIDEO = 1_150, 500
# While it is written: the finished episodes, each with files of its own that every dataset has; all of them
# joined; and that again, smaller.
_COPIES, _BYTES_EPISODE = 3, 75_000
_VERSIONS = ("lerobot", "pygame", "pymunk", "numpy", "pillow", "av", "pyarrow", "datasets")


class Built(Conditions):
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
    """Draw all states and write them as a LeRobotDataset into the new folder `output`.

    The files depend on the states, on `video` and on the versions, which are all in `FILE` beside them; not
    on the number of workers or on an interruption: the same call goes on.

    Args:
        states: what to draw.
        output: a folder that is not there yet, or that the same call has made.
        video: AV1, as lerobot/pusht has it, which is lossy; else PNG, every pixel as it was drawn.
        workers: number of processes.
        on_progress: called as `on_progress(n_done, n_episodes)`.

    Raises:
        IlBenchError: `output` is something else's or cannot be written, there is too little room, or the
            video cannot be encoded.
    """
    output = Path(output).expanduser().resolve()
    built = _built(states, video)
    if _is_finished(output, built):
        return output
    _check_room(states, output, video)
    with opened(output, built) as halfmade:
        if not _is_finished(output, built):  # another process was not faster
            try:
                _make_shards(states, halfmade.folder, video, workers, on_progress)
                _join(states, halfmade.folder, output, built)
            except OSError as error:
                raise IlBenchError(
                    f"{output}: cannot be written ({error.strerror or error}); make room and repeat the "
                    "command, finished episodes are kept"
                ) from error
        halfmade.remove()
    return output


def is_built(states: States, output: str | Path, *, video: bool = False) -> bool:
    """Whether the same call of `build_pixels` has made `output` before.

    Raises:
        IlBenchError: `output` is something else's.
    """
    return _is_finished(Path(output).expanduser().resolve(), _built(states, video))


def _built(states: States, video: bool) -> Built:
    versions = {name: metadata.version(name) for name in _VERSIONS}
    return Built(
        source=states.name,
        states=states.sha256(),
        episodes=len(states.episode_ends),
        frames=len(states.pose),
        images="video" if video else "image",
        reward_from=states.reward_from,
        renderer=provenance.expert_sha256(),
        versions=versions | {"opencv": str(cv2.__version__)},
    )


def _is_finished(output: Path, built: Built) -> bool:
    """Whether the same call has made `output` before; False if it is free."""
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return False
    try:
        found = Built.model_validate_json((output / FILE).read_bytes())
    except (OSError, ValueError):
        raise IlBenchError(
            f"{output}: is there already and was not made by this command; give another --output"
        ) from None
    if differing := found.differences(built):
        raise IlBenchError(
            f"{output}: made by another command already ({', '.join(differing)}); give another --output"
        )
    return True


def _check_room(states: States, output: Path, video: bool) -> None:
    there = next(parent for parent in output.parents if parent.exists())
    most, _ = bytes_needed(states, video)
    free = shutil.disk_usage(there).free
    if free < most:
        raise IlBenchError(
            f"{there}: {free / 1e6:.0f} MB are free and this takes about {most / 1e6:.0f} MB while it runs; "
            "make room, give another --output, or use --video"
        )


def _make_shards(
    states: States,
    folder: Path,
    video: bool,
    workers: int,
    on_progress: Callable[[int, int], None] | None,
) -> None:
    """Make the datasets of all episodes that are not there."""
    lengths = [end - start for start, end in states.spans]
    missing = [k for k, length in enumerate(lengths) if not is_finished(folder, k, length)]

    def progress(n_missing: int) -> None:
        if on_progress is not None:
            on_progress(len(lengths) - n_missing, len(lengths))

    progress(len(missing))
    load = partial(load_writer, states, folder, video)
    executor = executors.choose(min(workers, os.cpu_count() or workers), len(missing))
    with closing(executor.run(load, ShardWriter.write, missing, name=_name)) as results:
        for n_done, _ in enumerate(results, 1):
            progress(len(missing) - n_done)


def _name(episode: int) -> str:
    return f"episode {episode}"


def _join(states: States, folder: Path, output: Path, built: Built) -> None:
    """Write the dataset beside its episodes, and move it to its place when it is whole."""
    whole = folder / "whole"
    shutil.rmtree(whole, ignore_errors=True)  # of a run that was killed while it wrote
    shards = [shard_of(folder, episode) for episode in range(built.episodes)]
    join_shards(shards, whole, built.images == "video")
    write_whole(whole / provenance.FILE, provenance.to_bytes(states.made_by))
    write_whole(whole / FILE, (built.model_dump_json(indent=1) + "\n").encode())
    whole.rename(output)
