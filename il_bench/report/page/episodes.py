"""The episodes of a policy as the page holds them: what is counted, in columns, and packed recordings."""

import base64
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from il_bench.report.schema import Success
from il_bench.rollout.endings import Ending
from il_bench.rollout.recording import PUSHT, REWARD, UNITS
from il_bench.rollout.recordings import Recordings

ENDINGS = list(Ending)
_COVERAGE = PUSHT.index("coverage")
_ROUNDING = 2 / 32_767

Rows = NDArray[Any]


@dataclass(frozen=True)
class KeptRows:
    """The recorded steps of a policy by seed, and a sentence for each file that could not be read."""

    rows: Mapping[int, Rows] = field(default_factory=dict)
    problems: tuple[str, ...] = ()


def recorded(row: Success, folder: Path | None) -> KeptRows:
    """Return what a report's folder holds of the episodes of a row, and nothing of another run's."""
    if folder is None:
        return KeptRows()
    found, problems = Recordings(folder, row.policy, row.track).load()
    episodes = {episode.seed: episode for episode in row.episodes}
    kept = {}
    for seed, rows in found.items():
        episode = episodes.get(seed)
        if episode is not None and len(rows) == episode.n_steps + 1 and _ends(rows, episode.final_coverage):
            kept[seed] = rows
    return KeptRows(kept, tuple(problems))


def _ends(rows: Rows, coverage: float | None) -> bool:
    """Whether rows end with this coverage; of a project's own environment, nobody can tell."""
    if coverage is None or rows.shape[1] != len(PUSHT):
        return True
    return bool(abs(rows[-1, _COVERAGE] * UNITS["coverage"] - coverage) < _ROUNDING)


def columns(row: Success) -> dict[str, Any]:
    """Return what is counted of the episodes of a row, in the order of the report."""
    episodes = row.episodes
    endings = [each.ending or (Ending.SUCCESS if each.success else None) for each in episodes]
    return {
        "seed": [each.seed for each in episodes],
        "success": [int(each.success) for each in episodes],
        "steps": [each.n_steps for each in episodes],
        "outside": [each.outside for each in episodes],
        "reward": [_short(each.max_reward) for each in episodes],
        "last": [_short(each.last_reward) for each in episodes],
        "final": [_short(each.final_coverage) for each in episodes],
        "best": [_short(each.best_coverage) for each in episodes],
        "ending": [-1 if ending is None else ENDINGS.index(Ending(ending)) for ending in endings],
    }


def packed(found: KeptRows, seeds: list[int]) -> dict[str, Any] | None:
    """Return recordings as text: their columns, the seeds, the rows of each, and all rows deflated.

    Each column holds the differences from one row to the next, all episodes in one go, folded so that small
    ones of either sign are small numbers; first the low bytes of all, then the high ones.
    """
    kept = [seed for seed in seeds if seed in found.rows]
    if not kept:
        return None
    parts = [found.rows[seed] for seed in kept]
    facts = {"seeds": kept, "n": [len(part) for part in parts]}
    if parts[0].shape[1] == len(REWARD):
        values = np.concatenate(parts)[:, 0].astype("<f4")
        return {**facts, "columns": list(REWARD), "data": _text(values.tobytes())}
    rows = np.concatenate(parts).astype(np.int16)
    steps = np.diff(rows, axis=0, prepend=np.zeros((1, rows.shape[1]), np.int16))  # wraps, as adding up will
    folded = ((steps << 1) ^ (steps >> 15)).astype("<u2").T  # (columns, T)
    low, high = (folded & 255).astype(np.uint8), (folded >> 8).astype(np.uint8)
    return {**facts, "columns": list(PUSHT), "data": _text(low.tobytes() + high.tobytes())}


def _text(content: bytes) -> str:
    return base64.b64encode(zlib.compress(content, 9)).decode()


def _short(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
