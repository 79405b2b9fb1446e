"""What is counted of an episode besides its success: how far it came, and why it ended as it did."""

from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from il_bench.protocol import NEAR_COVERAGE, SUCCESS_COVERAGE

Floats = NDArray[np.float64]

#: A block is stuck when for STUCK_STEPS steps it has stayed this close to where it lies at the end.
STUCK_STEPS = 50
STILL_PX, STILL_RADIANS = 1.0, 0.01


class Ending(StrEnum):
    """Why an episode ended. Of those that fit a failure in PushT, the first in this order counts."""

    SUCCESS = "success"
    NEVER_TOUCHED = "never touched"  # the block has not moved by a single bit
    NEAR_MISS = "near miss"  # at the end it covers more than NEAR_COVERAGE
    UNDONE = "undone"  # it covered more than NEAR_COVERAGE before
    STUCK = "stuck"  # it has not moved for STUCK_STEPS steps
    STILL_WORKING = "still working"  # it moved, and the steps ran out
    # In a project's own environment, which tells us less:
    TERMINATED = "terminated"
    TRUNCATED = "truncated"
    OUT_OF_STEPS = "out of steps"


#: What each ending means, in words.
ABOUT = {
    Ending.SUCCESS: f"coverage above {SUCCESS_COVERAGE:g} at some step",
    Ending.NEVER_TOUCHED: "the block never moved",
    Ending.NEAR_MISS: f"coverage above {NEAR_COVERAGE:g} at the end, and never above {SUCCESS_COVERAGE:g}",
    Ending.UNDONE: f"coverage was above {NEAR_COVERAGE:g}, and is not at the end",
    Ending.STUCK: f"for {STUCK_STEPS} steps the block has stayed within {STILL_PX:g} px and "
    f"{STILL_RADIANS:g} rad of where it lies at the end",
    Ending.STILL_WORKING: "the block was moving when the steps ran out",
    Ending.TERMINATED: "the environment ended the episode without success",
    Ending.TRUNCATED: "the environment cut the episode off",
    Ending.OUT_OF_STEPS: "the steps ran out",
}


def counted(pose: Floats, coverage: Floats, n_steps: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
    """Return `best_coverage`, `final_coverage`, `last_reward`, `sum_reward` and `ending` (B,) of `Outcomes`.

    pose: (T, B, 3) of the blocks at the start and after each step; coverage: (T, B). Both stay as they are
    after the `n_steps` (B,) of an episode.
    """
    best, final = coverage[1:].max(axis=0), coverage[-1]
    is_played = np.arange(len(coverage) - 1)[:, None] < n_steps
    window = n_steps - np.arange(STUCK_STEPS + 1)[:, None]  # the last rows of each episode
    late = pose[np.maximum(window, 0), np.arange(len(n_steps))]  # (STUCK_STEPS + 1, B, 3)
    is_still = (np.abs(late - pose[-1]) < (STILL_PX, STILL_PX, STILL_RADIANS)).all(axis=(0, 2))
    reasons = {
        Ending.SUCCESS: best > SUCCESS_COVERAGE,
        Ending.NEVER_TOUCHED: (pose == pose[0]).all(axis=(0, 2)),
        Ending.NEAR_MISS: final > NEAR_COVERAGE,
        Ending.UNDONE: best > NEAR_COVERAGE,
        Ending.STUCK: is_still & (n_steps >= STUCK_STEPS),
    }
    return {
        "best_coverage": best,
        "final_coverage": final,
        "last_reward": reward(final),
        "sum_reward": np.where(is_played, reward(coverage[1:]), 0.0).sum(axis=0),
        "ending": np.select(list(reasons.values()), list(reasons), default=Ending.STILL_WORKING),
    }


def reward(coverage: Floats) -> Floats:
    """gym-pusht's reward of coverages, in [0, 1]."""
    return np.clip(coverage / SUCCESS_COVERAGE, 0.0, 1.0)
