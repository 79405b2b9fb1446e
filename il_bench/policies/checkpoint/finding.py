"""From what a policy's name means to the `pretrained_model` folder that holds its files.

Only file names are read here, to find a checkpoint's JSON and safetensors; pickles are refused.
"""

from contextlib import suppress
from pathlib import Path
from typing import Any

from il_bench.errors import IlBenchError
from il_bench.zoo import CONFIG, WEIGHTS

PROCESSORS = ("policy_preprocessor.json", "policy_postprocessor.json")
#: Suffixes of files that run what they like when they are read.
PICKLES = (".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth")
#: What is fetched of a repository: from its root alone, as training runs push all their checkpoints below it.
FETCHED = (CONFIG, WEIGHTS, "policy_*.json", "policy_*.safetensors", "training.json")


def folder_at(path: Path) -> Path:
    """The `pretrained_model` folder that `path` is, or the newest one of the checkpoint or run that it is.

    Raises:
        IlBenchError: there is none, it may not be entered, or `path` is a file.
    """
    if path.is_file():
        if path.suffix in PICKLES:
            raise _is_pickle(path)
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


def check_weights(path: Path) -> None:
    """Raise IlBenchError where the file of a checkpoint's weights is missing, above all for a pickle."""
    if path.is_file():
        return
    pickles = sorted(each for each in path.parent.iterdir() if each.suffix in PICKLES)
    if pickles:
        raise _is_pickle(pickles[0])
    raise IlBenchError(
        f"{path}: {'not a file' if path.exists() else 'missing'}; a pretrained_model folder holds its "
        "weights there, and weights in any other form, such as a pickle, are not loaded."
    )


def _is_pickle(path: Path) -> IlBenchError:
    return IlBenchError(
        f"{path}: a pickle, which can run anything when it is read, so it is not; only {WEIGHTS} is. Load it "
        "where you trust it, and save the policy with LeRobot's save_pretrained."
    )


def download(repository: str, revision: str | None) -> Path:
    """Fetch a repository's root into the Hub's cache, into a folder that is called by its commit.

    Raises:
        IlBenchError: the Hub does not give it, or it holds no policy at its root.
    """
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
    return folder


def _snapshot(repository: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download

    options: Any = {"revision": revision, "allow_patterns": list(FETCHED)}
    try:
        return Path(snapshot_download(repository, **options))
    except Exception:
        if revision is None:  # it has looked into the cache already
            raise
        with suppress(Exception):
            return Path(snapshot_download(repository, **options, local_files_only=True))
        raise
