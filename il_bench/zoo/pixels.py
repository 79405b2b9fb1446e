"""The policies on camera images, in a distribution of their own: one eye, and each policy's other weights.

    il_bench_pixels/eye.safetensors        the image encoder that all of them have
    il_bench_pixels/act/head.safetensors   act's other weights; its metadata say where the eye's belong
    il_bench_pixels/act/config.json, policy_*.json, policy_*.safetensors, training.json

Matrices and convolutions are stored in 16 bits, vectors (biases, norms, batch norm's statistics) in 32. What
is put together is an ordinary `pretrained_model` folder; its hash is the policy's, wherever that was done.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from il_bench.errors import IlBenchError
from il_bench.files import reading, write_whole, writing
from il_bench.zoo import CONFIG, EYE, GET_PIXELS, HEAD, PIXELS_PACKAGE, WEIGHTS, ResolvedPolicy, pixels_folder

if TYPE_CHECKING:
    from numpy.typing import NDArray

_BESIDE = (CONFIG, "policy_*.json", "policy_*.safetensors", "training.json")
_AGAIN = f"fetch {PIXELS_PACKAGE} again"
_METADATA = {"format": "pt"}  # as LeRobot writes it
_NAMES = "eye"  # in a head's metadata: JSON, the policy's names of the eye's tensors


def export(source: ResolvedPolicy, output: Path) -> None:
    """Make an ordinary `pretrained_model` folder of a shipped policy, whole or not at all.

    Raises IlBenchError if something is there already, if it cannot be written, or if a file is damaged.
    """
    folder, contents = source.path, {}
    if folder is None:
        folder = _here() / source.name
        contents = {WEIGHTS: _joined(_here() / EYE, folder / HEAD)}
    beside = [path for pattern in (WEIGHTS, *_BESIDE) for path in sorted(folder.glob(pattern))]
    way_out = "name a new folder"
    with writing(output, way_out):
        if output.exists() and (not output.is_dir() or any(output.iterdir())):
            raise IlBenchError(f"{output}: already exists; {way_out}")
        output.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=output.parent, prefix=f".{output.name}."))
        try:
            for path in beside:
                shutil.copyfile(path, temporary / path.name)
            for name, content in contents.items():
                write_whole(temporary / name, content)
            temporary.chmod(0o755)
            temporary.replace(output)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


def cached(source: ResolvedPolicy) -> Path:
    """The exported folder of a policy on images, kept for the next time.

    It lies in ~/.cache/il_bench, or in XDG_CACHE_HOME, under a hash of what it is made of.
    """
    digest = hashlib.sha256()
    with reading(_here(), _AGAIN):
        for path in [_here() / EYE, *sorted((_here() / source.name).iterdir())]:
            if path.is_file():
                digest.update(f"{path.name}\0{path.stat().st_size}\0".encode() + path.read_bytes())
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "il_bench"
    found = cache / digest.hexdigest()[:16] / source.name
    if not found.is_dir():
        try:
            export(source, found)
        except IlBenchError as error:
            if not found.is_dir():  # no other process was faster
                raise IlBenchError(f"{error}; XDG_CACHE_HOME may name another cache") from None
    return found


def _here() -> Path:
    if (found := pixels_folder()) is None:
        raise IlBenchError(GET_PIXELS)
    return found


def _joined(eye: Path, head: Path) -> bytes:
    """The weights of a policy under LeRobot's names, as a file of safetensors."""
    from safetensors import SafetensorError, safe_open
    from safetensors.numpy import load_file, save

    try:
        tensors: dict[str, NDArray[Any]] = load_file(head)
        with safe_open(head, framework="numpy") as file:
            from_eye: dict[str, str] = json.loads((file.metadata() or {})[_NAMES])
        seen = load_file(eye)
        tensors |= {ours: seen[theirs] for ours, theirs in from_eye.items()}
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise IlBenchError(f"{head}: does not fit {eye.name}, or is damaged ({error}); {_AGAIN}") from None
    return save(tensors, _METADATA)


def pack(eye: Path, policies: Mapping[str, Path], output: Path) -> None:
    """Make what is shipped of an eye (safetensors) and of `pretrained_model` folders, by policies' names.

    Tensors of a policy that are one of the eye's, once both are as short as they are shipped, are left out of
    its head.
    """
    from safetensors.numpy import load_file, save

    seen = {name: _shipped(name, tensor) for name, tensor in load_file(eye).items()}
    known = {_identity(tensor): name for name, tensor in seen.items()}
    write_whole(output / EYE, save(seen, _METADATA))
    for policy, source in policies.items():
        tensors = {name: _shipped(name, tensor) for name, tensor in load_file(source / WEIGHTS).items()}
        from_eye = {
            name: known[_identity(each)] for name, each in tensors.items() if _identity(each) in known
        }
        head = {name: tensor for name, tensor in tensors.items() if name not in from_eye}
        metadata = _METADATA | {_NAMES: json.dumps(from_eye, sort_keys=True)}
        write_whole(output / policy / HEAD, save(head, metadata))
        for path in (each for pattern in _BESIDE for each in sorted(source.glob(pattern))):
            shutil.copyfile(path, output / policy / path.name)


def _shipped(name: str, tensor: "NDArray[Any]") -> "NDArray[Any]":
    """A tensor as it is shipped: 16 bits for what has two or more dimensions."""
    import numpy as np

    if tensor.dtype != np.float32 or tensor.ndim < 2:
        return tensor
    with np.errstate(over="ignore"):
        short = tensor.astype(np.float16)
    if not np.isfinite(short).all():
        raise IlBenchError(
            f"{name}: holds numbers beyond 65504, the largest of 16 bits; it cannot be shipped"
        )
    return short


def _identity(tensor: "NDArray[Any]") -> tuple[str, tuple[int, ...], bytes]:
    return str(tensor.dtype), tensor.shape, hashlib.sha256(tensor.tobytes()).digest()
