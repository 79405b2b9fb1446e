"""Episodes, baselines and gates as the tests of gates and reports need them."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from il_bench.gate.baselines import Baselines, Entry, MeasuredBaseline, Target
from il_bench.rollout.outcomes import Outcomes

SHA, OTHER_SHA = "a" * 64, "b" * 64
FIRST = 200_000
FINGERPRINT: dict[str, Any] = {
    "task": "PushT",
    "simulator": "gym-pusht 0.1.8",
    "max_steps": 300,
    "success_coverage": 0.95,
    "block_size": 50,
    "torch": "2.11.0+cpu",
}


def episodes(success: ArrayLike, first: int = FIRST, reward: ArrayLike = 0.5) -> Outcomes:
    """Episodes of 100 steps. `reward`: of those that fail."""
    solved = np.asarray(success, bool)
    n = len(solved)
    none, steps = np.zeros(n), np.full(n, 100)
    return Outcomes(first + np.arange(n), solved, np.where(solved, 1.0, reward), steps, none, seconds=12.5)


def outcomes(n: int = 100, first: int = 200_000, seed: int = 0) -> Outcomes:
    """Episodes of which seven in ten succeed; the others have any reward."""
    generator = np.random.default_rng(seed)
    return episodes(generator.random(n) < 0.7, first, generator.random(n))


def spread(rate: float, n: int = 200, first: int = FIRST) -> Outcomes:
    """Successes spread evenly, so that a rate halfway between target and floor stays undecided."""
    return episodes(np.diff(np.floor(rate * np.arange(n + 1))) > 0, first)


def measured(of: Outcomes, sha256: str = SHA, **fields: Any) -> MeasuredBaseline:
    return MeasuredBaseline.from_outcomes(of, data="human", sha256=sha256, fingerprint=FINGERPRINT, **fields)


def write(path: Path, baselines: Baselines) -> None:
    path.write_text(baselines.model_dump_json(by_alias=True, indent=1), encoding="utf-8")


def declared(target: Target | None = None, baseline: MeasuredBaseline | None = None) -> Baselines:
    return Baselines(gates={"act": {"keypoints": Entry(target=target, baseline=baseline)}})
