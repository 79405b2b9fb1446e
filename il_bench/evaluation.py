"""Policy x seeds -> Outcomes for whatever a user calls a policy."""

import pickle
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from il_bench.errors import IlBenchError
from il_bench.journal import Journal
from il_bench.options import RESERVED_SEEDS
from il_bench.policies.loading import LoadedPolicy, load_policy
from il_bench.progress import OnBlock
from il_bench.rollout import Outcomes, Policy, rollout
from il_bench.settings import Settings

#: `progress(title, n_episodes)` gives a context whose value a rollout calls after each block.
Progress = Callable[[str, int], AbstractContextManager[OnBlock | None]]


class Evaluate:
    """Rolls policies out as the settings of a run say: seeds, device, number of processes."""

    def __init__(self, settings: Settings, progress: Progress = lambda title, n: nullcontext()) -> None:
        self._settings = settings
        self._progress = progress

    def __call__(
        self,
        policy: str | Path | LoadedPolicy | Policy,
        *,
        n: int | None = None,
        seeds: Iterable[int] | None = None,
    ) -> Outcomes:
        """Roll `policy` out and return its outcomes in seed order.

        policy: a name of the zoo, a `pretrained_model` folder, a Hub id, a loaded policy, or any object with
            LeRobot's `reset()` and `select_action(batch)`, which runs in this process, not in the workers.
        n: run the first n of the selected seeds (default: as many as --il-episodes says).
        seeds: run these instead.

        Raises:
            IlBenchError: no such policy, a policy that misbehaves, bad seeds, or n and seeds together.
        """
        return self.run(policy, _seeds(self._settings, n, seeds))

    def run(
        self, policy: str | Path | LoadedPolicy | Policy, seeds: ArrayLike, *, journal: Journal | None = None
    ) -> Outcomes:
        """Roll `policy` out on these seeds; blocks that the journal holds are taken from there."""
        settings = self._settings
        chosen = np.asarray(seeds)
        loaded = load_policy(policy, device=settings.device) if isinstance(policy, str | Path) else policy
        if isinstance(loaded, LoadedPolicy):
            check_track(loaded)
            title = loaded.name
        elif isinstance(loaded, Policy):
            title = type(loaded).__name__
        else:
            raise IlBenchError(
                f"evaluate: {policy!r} is no policy; give a name, a path, a Hub id, or an object with "
                "reset() and select_action(batch)"
            )
        copies = _copies(loaded) if settings.workers > 1 else None
        with self._progress(title, len(chosen)) as on_block:
            if copies is None:
                return rollout(loaded, chosen, on_block=on_block, journal=journal)
            return rollout(copies, chosen, workers=settings.workers, on_block=on_block, journal=journal)


def check_track(policy: LoadedPolicy) -> None:
    """Raise IlBenchError for a policy that needs images: rollouts give keypoints only."""
    if policy.track != "keypoints":
        raise IlBenchError(
            f"{policy.checkpoint}: the policy needs images ({policy.track} track), and rollouts render "
            "none; give one on observation.state and observation.environment_state"
        )


@dataclass(frozen=True)
class _Copies:
    """A call that gives a copy of a policy, weights as they are now: what worker processes are sent."""

    pickled: bytes

    def __call__(self) -> Any:
        return pickle.loads(self.pickled)


def _copies(policy: LoadedPolicy | Policy) -> _Copies | None:
    """None for what cannot be copied into another process: a class of a test may live in its module only."""
    if not isinstance(policy, LoadedPolicy):
        return None
    try:
        return _Copies(pickle.dumps(policy))
    except (pickle.PicklingError, AttributeError, TypeError):
        return None


def _seeds(settings: Settings, n: int | None, seeds: Iterable[int] | None) -> NDArray[Any]:
    if seeds is None:
        return np.array(settings.seed_range if n is None else settings.first_seeds(n))
    if n is not None:
        raise IlBenchError(f"evaluate: n={n} and seeds together; give one of them")
    chosen = np.asarray(list(seeds))
    if chosen.dtype.kind in "iu" and chosen.size and chosen.max() >= RESERVED_SEEDS:
        raise IlBenchError(
            f"evaluate: seed {chosen.max()} is kept for a third evaluation; use seeds below {RESERVED_SEEDS}"
        )
    return chosen
