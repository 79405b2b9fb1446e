"""Where a policy's files are: a name of the zoo, a folder that LeRobot wrote, or the Hub.

Nothing is read here but names: what may be read of a checkpoint is JSON and safetensors, never a pickle.
"""

import os
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from il_bench.errors import IlBenchError
from il_bench.protocol import EXPERT

ZOO = Path(str(files("il_bench") / "zoo"))
CONFIG, WEIGHTS = "config.json", "model.safetensors"
PROCESSORS = ("policy_preprocessor.json", "policy_postprocessor.json")
#: Suffixes of files that run what they like when they are read.
PICKLES = (".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth")
#: USER/NAME of the Hub, with or without a branch, a tag or a commit.
_HUB_ID = re.compile(r"(?P<repository>\w[\w.-]*/\w[\w.-]*)(@(?P<revision>[\w./-]+))?")
#: What is fetched of a repository, of its root alone: training runs push all their checkpoints below it.
_FETCHED = (CONFIG, WEIGHTS, "policy_*.json", "policy_*.safetensors", "training.json")


@dataclass(frozen=True)
class Located:
    """A ``pretrained_model`` folder, and what a report calls it: a Hub id with its commit, else as asked."""

    folder: Path
    label: str


def zoo_names() -> list[str]:
    """The policies that ship with il_bench, by name."""
    return sorted(path.name for path in ZOO.iterdir() if (path / WEIGHTS).exists())


def find_checkpoint(spec: str, names: Sequence[str] | None = None) -> Path:
    """The ``pretrained_model`` folder that ``spec`` means, see ``locate``."""
    return locate(spec, names).folder


def locate(spec: str, names: Sequence[str] | None = None) -> Located:
    """Find a policy's files; a Hub id is fetched.

    Args:
        spec: a name of the zoo; a folder: ``pretrained_model``, a checkpoint (``checkpoints/last``,
            ``checkpoints/005000``) or a run of ``lerobot-train`` or ``il-bench train``; or a Hub id,
            USER/NAME or USER/NAME@REVISION.
        names: what an error says there is; None: all of the zoo, and the expert.

    Raises:
        IlBenchError: it names nothing, a file instead of a folder, or a pickle.
    """
    if spec in zoo_names():
        return Located(ZOO / spec, f"zoo/{spec}")
    # Unlike Path's methods, os.path's answer for names that no file and no user can have.
    path = Path(os.path.expanduser(spec))
    if os.path.isfile(path):
        raise _is_file(path)
    if os.path.exists(path):
        try:
            return Located(_in_folder(path), spec)
        except OSError as error:  # a folder that may not be entered
            raise IlBenchError(f"{spec}: cannot be read ({error}); give the folder of a checkpoint") from None
    found = _HUB_ID.fullmatch(spec)
    if found:
        return _download(found["repository"], found["revision"])
    raise IlBenchError(
        f"{spec}: no such policy. Give one of {', '.join(names or [*zoo_names(), EXPERT])}, "
        "a pretrained_model folder, or a Hub id (USER/NAME)."
    )


def check_weights(folder: Path) -> None:
    """Raise IlBenchError unless the folder holds its weights as safetensors."""
    if (folder / WEIGHTS).exists():
        return
    pickles = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLES)
    if pickles:
        raise _is_pickle(folder / pickles[0])
    raise IlBenchError(
        f"{folder / WEIGHTS}: missing. A pretrained_model folder holds {CONFIG}, {WEIGHTS}, "
        f"{' and '.join(PROCESSORS)}; weights in any other form, such as a pickle, are not loaded."
    )


def _in_folder(path: Path) -> Path:
    candidates = (
        path,
        path / "pretrained_model",
        path / "last" / "pretrained_model",
        path / "checkpoints" / "last" / "pretrained_model",
    )
    for candidate in candidates:
        if (candidate / CONFIG).exists():
            return candidate
    checkpoints = path if path.name == "checkpoints" else path / "checkpoints"
    steps = sorted(each.parent.name for each in checkpoints.glob("*/pretrained_model"))
    if steps:
        raise IlBenchError(
            f"{checkpoints / 'last'}: missing, or a link to nothing; give one of the checkpoints beside it: "
            f"{checkpoints / steps[-1]}."
        )
    raise IlBenchError(
        f"{path}: holds no {CONFIG}; give a LeRobot pretrained_model folder, a checkpoint or a run."
    )


def _is_file(path: Path) -> IlBenchError:
    if path.suffix in PICKLES:
        return _is_pickle(path)
    return IlBenchError(f"{path}: a file; give the folder it lies in: {path.parent}")


def _is_pickle(path: Path) -> IlBenchError:
    return IlBenchError(
        f"{path}: a pickle, which can run anything when it is read, so it is not; only {WEIGHTS} is. Load it "
        "where you trust it, and save the policy with LeRobot's save_pretrained."
    )


def _download(repository: str, revision: str | None) -> Located:
    """Fetch a repository's root into the Hub's cache, whose folders are called by commit."""
    try:
        folder = _snapshot(repository, revision)
    except Exception as error:  # the Hub's client raises a dozen kinds: offline, gated, absent, proxy
        first_line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise IlBenchError(
            f"{repository}: not a local folder, and not to be had from the Hub ({first_line}). "
            "Check the name, or download it where there is a network and give the folder."
        ) from None
    if not (folder / CONFIG).exists():
        raise IlBenchError(
            f"{repository}@{folder.name}: holds no {CONFIG} at its root; a LeRobot policy does. Download the "
            "checkpoint you mean and give its folder."
        )
    return Located(folder, f"{repository}@{folder.name}")


def _snapshot(repository: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download

    options: Any = {"revision": revision, "allow_patterns": list(_FETCHED)}
    try:
        return Path(snapshot_download(repository, **options))
    except Exception:
        if revision is None:  # it has looked into the cache already
            raise
        with suppress(Exception):
            return Path(snapshot_download(repository, **options, local_files_only=True))
        raise
