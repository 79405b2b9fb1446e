"""How many more episodes an undecided gate needs."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from il_bench.gate.stats import Floats

CHANCE = 0.8  # that so many more episodes decide
MOST = 10_000  # more episodes than anybody runs
_FUTURES = 200


def more_episodes(
    values: Floats, decided_after: Callable[[Floats], NDArray[np.int64]], *, low: float, high: float
) -> int | None:
    """Return after how many more episodes four of five futures are decided, None if not within MOST.

    values: (N,) in [low, high], undecided, N >= 1. decided_after: (futures, N + M) -> (futures,), after how
    many values each is decided, 0 if never.

    A simulation with a fixed generator, so the same episodes always give the same answer. It assumes that
    later episodes come from the same distribution as those so far, and that nothing else is known of it: each
    future draws its own from all that fit (a Bayesian bootstrap, Rubin 1981, that has seen half an episode at
    either end too), then its episodes. For successes these are the predictions from Jeffreys' prior.
    """
    rng = np.random.default_rng(0)
    seen, counts = np.unique(np.concatenate([values, [low, high]]), return_counts=True)
    weights = counts - np.where((seen == low) | (seen == high), 0.5, 0.0)
    steps = np.cumsum(rng.dirichlet(weights, _FUTURES), axis=1)  # (futures, seen)
    for more in (MOST // 10, MOST):
        draws = rng.random((_FUTURES, more))
        places = [np.searchsorted(step[:-1], draw) for step, draw in zip(steps, draws, strict=True)]
        past = np.broadcast_to(values, (_FUTURES, values.size))
        after = decided_after(np.concatenate([past, seen[places]], axis=1))
        needed = np.sort(np.where(after > 0, after - values.size, MOST + 1))[int(CHANCE * _FUTURES) - 1]
        if needed <= more:
            return int(needed)
    return None
