"""The policies that ship with il_bench, and what the name of a policy means: one of them, a path, a Hub id.

Those on keypoints lie here. Those on camera images are larger and lie in a distribution of their own, see
`il_bench.zoo.pixels`; `act@pixels` names one wherever a policy is named, and so does `act` on that track.

Every pytest run of everybody who has il_bench installed reads this: standard library only.
"""

import importlib.util
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from il_bench.errors import IlBenchError
from il_bench.protocol import EXPERT, KEYPOINTS, PIXELS, TRACKS

ZOO = Path(__file__).parent
CONFIG, WEIGHTS = "config.json", "model.safetensors"
#: Suffixes of files that can run anything when they are read.
PICKLES = (".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth")
#: The distribution of the policies on images, the file of their one eye, and each one's other weights.
PIXELS_PACKAGE, EYE, HEAD = "il_bench_pixels", "eye.safetensors", "head.safetensors"
GET_PIXELS = (
    f"the policies on images are in a package of their own, {PIXELS_PACKAGE}, which is not installed; use a "
    f"clone of il_bench's repository, which holds it, or install it from one (pip install ./{PIXELS_PACKAGE})"
)
_ON_PIXELS = f"@{PIXELS}"
#: USER/NAME of the Hub, with or without a branch, a tag or a commit.
_HUB_ID = re.compile(r"(?P<repository>\w[\w.-]*/\w[\w.-]*)(@(?P<revision>[\w./-]+))?")


class ResolvedPolicy(NamedTuple):
    """Where a policy comes from: the zoo, a `path` that exists, a `repository` of the Hub, or the planner.

    `spec` means the same policy in every working directory. `is_shipped`: whether it is the zoo's, of
    `track`.
    """

    spec: str
    path: Path | None = None
    is_shipped: bool = False
    repository: str | None = None
    revision: str | None = None
    track: str | None = None

    @property
    def name(self) -> str:
        """The name of a shipped policy, whatever its track."""
        return self.spec.removesuffix(_ON_PIXELS)


def shipped(track: str | None = None) -> tuple[str, ...]:
    """Names of the policies that ship with il_bench and are here, sorted: of one track, or all of them."""
    folders = {KEYPOINTS: (ZOO, WEIGHTS), PIXELS: (pixels_folder(), HEAD)}
    found = {
        weights.parent.name
        for one in (TRACKS if track is None else (track,))
        for place, file in (folders[one],)
        if place is not None
        for weights in place.glob(f"*/{file}")
    }
    return tuple(sorted(found))


def pixels_folder() -> Path | None:
    """Where the policies on images lie: beside this checkout, or installed; None: nowhere."""
    places = [ZOO.parents[1] / PIXELS_PACKAGE / "src" / PIXELS_PACKAGE]
    if (found := importlib.util.find_spec(PIXELS_PACKAGE)) is not None:
        places += map(Path, found.submodule_search_locations or ())
    return next((place for place in places if (place / EYE).is_file()), None)


def spec_of(name: str, track: str) -> str:
    """What names a shipped policy of a track, whatever track a run is on."""
    return f"{name}{_ON_PIXELS}" if track == PIXELS else name


def resolve(
    spec: str, folder: Path = Path(), offered: Sequence[str] | None = None, track: str | None = None
) -> ResolvedPolicy:
    """What `spec` means: a shipped policy, the planner, a path that exists, or else a Hub id.

    `find` also asks whether the path holds a policy; only loading shows whether the Hub does.

    Args:
        spec: NAME, PATH, USER/NAME or USER/NAME@REVISION; IlBenchError where it means nothing.
        folder: what a relative path is relative to.
        offered: the names that `spec` may be, which an error lists; None: all that ship, and the planner's.
        track: which of the shipped policies a name means; None: the one on keypoints.
    """
    name = spec.removesuffix(_ON_PIXELS)
    track = PIXELS if name != spec or track == PIXELS else KEYPOINTS
    names = shipped(track)
    offered = (*names, EXPERT) if offered is None else offered
    if name in names and name in offered:
        path = ZOO / name if track == KEYPOINTS else None
        return ResolvedPolicy(spec_of(name, track), path=path, is_shipped=True, track=track)
    if spec == EXPERT and spec in offered:
        return ResolvedPolicy(spec)
    # Unlike os.path, Path raises for names that no file or user can have.
    path = folder / os.path.expanduser(spec)
    if os.path.exists(path):
        return ResolvedPolicy(str(path), path=path)
    found = _HUB_ID.fullmatch(spec)
    if found:
        return ResolvedPolicy(spec, repository=found["repository"], revision=found["revision"])
    if track == PIXELS and name in shipped(KEYPOINTS) and pixels_folder() is None:
        raise IlBenchError(f"{spec}: {GET_PIXELS}")
    raise IlBenchError(
        f"{spec}: no such policy. Give one of {', '.join(offered)}, a pretrained_model folder, or a Hub id "
        "(USER/NAME or USER/NAME@REVISION)."
    )


def find(spec: str, track: str | None = None) -> ResolvedPolicy:
    """As `resolve`; IlBenchError also for a path that holds no policy. It imports no torch."""
    found = resolve(spec, track=track)
    if found.path is not None and not found.is_shipped:
        checkpoint_in(found.path)
    return found


def checkpoint_in(path: Path) -> Path:
    """The `pretrained_model` folder: `path` itself, or the newest one in this checkpoint or run."""
    if path.is_file():
        if path.suffix in PICKLES:
            raise is_pickle(path)
        raise IlBenchError(f"{path}: a file; give the folder it lies in: {path.parent}")
    last = Path("last", "pretrained_model")
    try:
        for candidate in (path, path / "pretrained_model", path / last, path / "checkpoints" / last):
            if (candidate / CONFIG).exists():
                return candidate
        checkpoints = path if path.name == "checkpoints" else path / "checkpoints"
        steps = sorted(each.parent.name for each in checkpoints.glob("*/pretrained_model"))
    except OSError as error:
        raise IlBenchError(f"{path}: cannot be read ({error}); give the folder of a checkpoint") from None
    if steps:
        raise IlBenchError(
            f"{checkpoints / 'last'}: missing, or a link to nothing; give one of the checkpoints beside it: "
            f"{checkpoints / steps[-1]}."
        )
    raise IlBenchError(
        f"{path}: holds no {CONFIG}; give a LeRobot pretrained_model folder, a checkpoint or a run."
    )


def is_pickle(path: Path) -> IlBenchError:
    """The error of a file that is never read."""
    return IlBenchError(
        f"{path}: a pickle, which can run anything when it is loaded; only {WEIGHTS} is loaded. If you trust "
        "it, load it yourself and save the policy with LeRobot's save_pretrained."
    )


def split_name(label: str, folder: Path = Path()) -> tuple[str | None, str]:
    """`NAME=SPEC` as name and spec; anything else, also a path with an equals sign, as None and itself."""
    name, equals, spec = label.partition("=")
    if not equals or os.path.exists(folder / label):
        return None, label
    if not re.fullmatch(r"[\w.-]+", name):
        raise IlBenchError(
            f"{label!r}: there is no usable name before '='; use letters, digits, '.', '_', '-' as in "
            "act=runs/mine"
        )
    return name, spec
