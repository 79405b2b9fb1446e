"""The policies that ship with il_bench, and what the name of a policy means: one of them, a path, a Hub id.

Every pytest run of everybody who has il_bench installed reads this: standard library only.
"""

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from il_bench.errors import IlBenchError
from il_bench.protocol import EXPERT, KEYPOINTS, PIXELS

ZOO = Path(__file__).parent
CONFIG, WEIGHTS = "config.json", "model.safetensors"
#: USER/NAME of the Hub, with or without a branch, a tag or a commit.
_HUB_ID = re.compile(r"(?P<repository>\w[\w.-]*/\w[\w.-]*)(@(?P<revision>[\w./-]+))?")


@dataclass(frozen=True)
class ResolvedPolicy:
    """Where a policy comes from: a `path` that exists, a `repository` of the Hub, or neither (the planner).

    `spec` means the same policy in every working directory; `is_shipped`: whether `path` lies in the zoo.
    """

    spec: str
    path: Path | None = None
    is_shipped: bool = False
    repository: str | None = None
    revision: str | None = None


def shipped(track: str | None = None) -> tuple[str, ...]:
    """Names of the policies that ship with il_bench, sorted: of one track, or all of them."""
    folders = (weights.parent for weights in ZOO.glob(f"*/{WEIGHTS}"))
    return tuple(sorted(folder.name for folder in folders if track in (None, _track_of(folder))))


def _track_of(folder: Path) -> str:
    features = json.loads((folder / CONFIG).read_text(encoding="utf-8")).get("input_features") or {}
    return PIXELS if any(name.startswith("observation.image") for name in features) else KEYPOINTS


def resolve(spec: str, folder: Path = Path(), offered: Sequence[str] | None = None) -> ResolvedPolicy:
    """What `spec` means: a shipped policy, the planner, a path that exists, or else a Hub id.

    Only loading shows whether the path or the Hub really holds a policy.

    Args:
        spec: NAME, PATH, USER/NAME or USER/NAME@REVISION; IlBenchError where it means nothing.
        folder: what a relative path is relative to.
        offered: the names that `spec` may be, which an error lists; None: all that ship, and the planner's.
    """
    names = shipped()
    offered = (*names, EXPERT) if offered is None else offered
    if spec in names and spec in offered:
        return ResolvedPolicy(spec, path=ZOO / spec, is_shipped=True)
    if spec == EXPERT and spec in offered:
        return ResolvedPolicy(spec)
    # Unlike os.path, Path raises for names that no file or user can have.
    path = folder / os.path.expanduser(spec)
    if os.path.exists(path):
        return ResolvedPolicy(str(path), path=path)
    found = _HUB_ID.fullmatch(spec)
    if found:
        return ResolvedPolicy(spec, repository=found["repository"], revision=found["revision"])
    raise IlBenchError(
        f"{spec}: no such policy. Give one of {', '.join(offered)}, a pretrained_model folder, or a Hub id "
        "(USER/NAME or USER/NAME@REVISION)."
    )


def split_name(label: str, folder: Path = Path()) -> tuple[str | None, str]:
    """`NAME=SPEC` as name and spec; anything else, also a path with an equals sign, as None and itself."""
    name, equals, spec = label.partition("=")
    if not equals or os.path.exists(folder / label):
        return None, label
    if not re.fullmatch(r"[\w.-]+", name):
        raise IlBenchError(
            f"{label!r}: no usable name before '='; use letters, digits, '.', '_', '-' as in act=runs/mine"
        )
    return name, spec
