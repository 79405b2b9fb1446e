"""What one worker process does: a block of seeds in, finished demonstrations out."""

from collections.abc import Iterable

import numpy as np

from il_bench.demos.halfmade import Block, join
from il_bench.demos.provenance import Episode, Made
from il_bench.demos.record import Noise, Recording, record
from il_bench.demos.takeover import Drive, drive
from il_bench.pusht.expert import Expert
from il_bench.rollout import Policy


class Maker:
    """The expert, and the policy that drives before it if there is one."""

    def __init__(self, made: Made, policy: Policy | None) -> None:
        self._made, self._policy = made, policy
        self._expert = Expert()

    def make(self, seeds: list[int]) -> tuple[int, Block]:
        """The first of the seeds, and their episodes; all of one block of BLOCK_SIZE if a policy drives."""
        episodes, kept = [], []
        for before in self._drives(seeds):
            recording = record(before.simulator(), self._expert, Noise(self._made.noise, before.seed))
            episodes.append(self._episode(before, recording))
            if recording.success:
                kept.append(recording)
        return seeds[0], Block(episodes, join(kept))

    def _drives(self, seeds: list[int]) -> Iterable[Drive]:
        if self._policy is None or self._made.policy is None:
            return [Drive(seed, np.zeros((0, 2), np.float32)) for seed in seeds]
        settings = self._made.policy
        return drive(self._policy, np.array(seeds), settings["takeover_max"], settings["only_unsolved"])

    def _episode(self, before: Drive, recording: Recording) -> Episode:
        return Episode(
            seed=before.seed,
            steps=len(recording.action),
            max_coverage=float(recording.coverage.max()),
            success=recording.success,
            noise=self._made.noise,
            takeover=None if self._policy is None else before.takeover,
        )


def load_maker(made: Made, from_policy: str | None) -> Maker:
    """What a process starts with: `from_policy` as `load_policy` takes it."""
    if from_policy is None:
        return Maker(made, None)
    from il_bench.policies.checkpoint import load_policy

    return Maker(made, load_policy(from_policy))
