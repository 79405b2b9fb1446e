"""Start states out of a policy's own episodes, for the expert to go on from (DAgger, Ross et al. 2011)."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from il_bench.demos.record import TAKEOVER_STREAM, stream
from il_bench.protocol import BLOCK_SIZE
from il_bench.pusht.simulator import Simulator
from il_bench.rollout import Policy, run_block


@dataclass(frozen=True)
class Drive:
    """What a policy did in one episode before the expert takes over.

    actions: (takeover, 2) float32 px, every action up to the takeover.
    """

    seed: int
    actions: NDArray[np.float32]

    @property
    def takeover(self) -> int:
        """The number of steps the policy drove."""
        return len(self.actions)

    def simulator(self) -> Simulator:
        """A simulator in the state that the policy left, the agent's velocity included."""
        simulator = Simulator()
        simulator.reset(self.seed)
        for x, y in self.actions.astype(np.float64).tolist():
            simulator.step(x, y)
        return simulator


class _Recorder:
    """A policy that keeps its actions; after `limit` steps it is not asked any more, and the agents hold."""

    def __init__(self, policy: Policy, limit: int) -> None:
        self._policy, self._limit = policy, limit
        self.camera = getattr(policy, "camera", None)
        self.actions: list[torch.Tensor] = []

    def reset(self) -> None:
        self._policy.reset()

    def select_action(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        if len(self.actions) == self._limit:
            return batch["observation.state"]
        self.actions.append(self._policy.select_action(batch))
        return self.actions[-1]


def drive(
    policy: Policy, seeds: NDArray[np.int64], takeover_max: int, only_unsolved: bool = False
) -> list[Drive]:
    """Let the policy drive each episode, as in an evaluation, for a random number of steps.

    Args:
        policy: any policy that can be rolled out.
        seeds: (n,) rising, all of one block of BLOCK_SIZE.
        takeover_max: each episode's number of steps is drawn uniformly from 0 .. takeover_max; if the policy
            has solved the task by then, again, from the steps before it did.
        only_unsolved: leave out the episodes that the policy solves within takeover_max steps.

    Raises:
        IlBenchError: the policy misbehaves (names seed, step and value).
    """
    recorder = _Recorder(policy, takeover_max)
    outcomes = run_block(recorder, seeds)
    actions = [action.to("cpu", torch.float32).numpy() for action in recorder.actions]
    driven = np.stack(actions) if actions else np.zeros((0, BLOCK_SIZE, 2), np.float32)  # (T, block, 2)
    drives = []
    for seed, success, n_steps in zip(
        seeds.tolist(), outcomes.success.tolist(), outcomes.n_steps.tolist(), strict=True
    ):
        solved_at = n_steps if success and n_steps <= takeover_max else None
        if only_unsolved and solved_at is not None:
            continue
        takeover = draw_takeover(seed, takeover_max, solved_at)
        drives.append(Drive(seed, driven[:takeover, seed % BLOCK_SIZE].copy()))
    return drives


def draw_takeover(seed: int, takeover_max: int, solved_at: int | None) -> int:
    """After how many steps the expert takes over: 0 .. takeover_max, and before `solved_at` if given."""
    rng = stream(seed, TAKEOVER_STREAM)
    step = int(rng.integers(takeover_max + 1))
    if solved_at is not None and step >= solved_at:
        step = int(rng.integers(solved_at))
    return step
