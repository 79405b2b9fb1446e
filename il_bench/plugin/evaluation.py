"""The `evaluate` fixture: policy x seeds -> Outcomes, for anything that a user may call a policy."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from il_bench.errors import IlBenchError
from il_bench.machine import AS_SAVED, fingerprint
from il_bench.plugin.settings import Settings
from il_bench.policies.checkpoint import LoadedPolicy, load_policy
from il_bench.protocol import KEYPOINTS
from il_bench.rollout import Outcomes, Policy, RunBlock, executors, rollout
from il_bench.rollout.blocks import size_of, unreserved
from il_bench.rollout.executors import Executor
from il_bench.rollout.journal import Journal
from il_bench.rollout.progress import ShowProgress, silent
from il_bench.rollout.surroundings import undisturbed

#: Takes all episodes so far, in seed order; returns whether they are enough, and what to say of them.
Look = Callable[[Outcomes], tuple[bool, str]]


class Evaluate:
    """Rolls policies out on the seeds, device and number of processes that the settings of a run give."""

    def __init__(self, settings: Settings, progress: ShowProgress = silent) -> None:
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

        Args:
            policy: an embedded policy's name, a `pretrained_model` folder, a Hub id, a loaded policy, or any
                object with LeRobot's `reset()` and `select_action(batch)`, which runs in this process.
            n: run the first n of the selected seeds (default: --il-episodes, or 200).
            seeds: run these instead. `n` and `seeds` together are an IlBenchError.
        """
        return self.run(policy, _seeds(self._settings, n, seeds))

    def run(
        self,
        policy: str | Path | LoadedPolicy | Policy,
        seeds: ArrayLike,
        *,
        journal: Journal | None = None,
        look: Look | None = None,
        block: RunBlock | None = None,
        may_leave: bool = True,
        record: Callable[[Outcomes], object] | None = None,
    ) -> Outcomes:
        """Roll `policy` out on these seeds; take the blocks that the journal holds from there.

        look: called after every block, in seed order. The rollout ends when it says that this is enough.
        block: runs one block, otherwise than in PushT as it is. may_leave: whether other processes may.
        record: given every block that has been run, with its recording.
        """
        settings, chosen = self._settings, np.asarray(seeds)
        with undisturbed(f"policy {policy if isinstance(policy, str | Path) else type(policy).__name__}"):
            loaded = policy
            if isinstance(policy, str | Path):
                loaded = load_policy(policy, device=settings.device, track=settings.track)
            if not isinstance(loaded, Policy):
                raise IlBenchError(
                    f"evaluate: {policy!r} is not a policy; give a name, a path, a Hub id, or an object with "
                    "reset() and select_action(batch)"
                )
            if isinstance(loaded, LoadedPolicy) and settings.numerics != AS_SAVED:
                loaded = replace(loaded, numerics=settings.numerics)
            title = loaded.name if isinstance(loaded, LoadedPolicy) else type(loaded).__name__
            leaves = may_leave and (settings.workers != 1 or settings.executor is not None)
            copies = loaded.copies() if leaves and isinstance(loaded, LoadedPolicy) else None
            said = ""

            def stop(so_far: Outcomes) -> bool:
                nonlocal said
                enough, gates = (False, "") if look is None else look(so_far)
                said = f"success_rate {so_far.success_rate:.3f}{gates and f', {gates}'}"
                return enough

            with self._progress(title, len(chosen), at_most=look is not None) as show:
                return rollout(
                    loaded if copies is None else copies,
                    chosen,
                    workers=1 if copies is None else settings.workers or 1,
                    executor=None if copies is None else self._executor(loaded),
                    size=size_of(loaded) if block is None else None,
                    timeout=settings.timeout,
                    on_block=None if show is None else lambda done, total: show(done, total, said),
                    journal=journal,
                    stop=stop,
                    block=block,
                    record=record,
                )

    def _executor(self, policy: Policy) -> str | Executor | None:
        """Where the blocks of a policy run, of which other processes can have copies."""
        settings, track = self._settings, getattr(policy, "track", KEYPOINTS)
        return executors.of_options(
            settings.executor,
            settings.address,
            settings.workers or None,
            partial(fingerprint, settings.device, track, settings.numerics),
            on_gpu=settings.device != "cpu",
            timeout=settings.timeout,
        )


def _seeds(settings: Settings, n: int | None, seeds: Iterable[int] | None) -> NDArray[Any]:
    if seeds is None:
        return np.array(settings.seed_range if n is None else settings.first_seeds(n))
    if n is not None:
        raise IlBenchError(f"evaluate: n={n} and seeds together; give one of them")
    return unreserved(seeds, "evaluate")
