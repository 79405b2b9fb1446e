"""The episodes of `lerobot-eval`, to the last random number, on the simulator of this package.

`rollout_as_lerobot` answers "is this the number LeRobot prints?": the same checkpoint, seed, number of
episodes and batch size give the success and the best reward of every episode in LeRobot 0.6.1's
`eval_info.json` (CPU, one torch thread). To measure a policy, `il_bench.rollout.rollout` is faster and does
not depend on the batch size.

What has to be repeated, in LeRobot's order: the global generators are seeded once; building the policy draws
its initial weights, which the checkpoint then overwrites; each batch resets the policy and starts its
environments at the next seeds; an environment that is done starts a new episode at once, from its own
generator, and stays in the policy's batch until the last one is done. Surplus episodes of the last batch are
dropped.

**One step past `done`.** LeRobot masks an episode with `step <= done_index + 1`, so it also counts the step
after the last one. By then the environment is in its next episode: what is added is the first reward from
another start state, after an action that may have been planned for the episode before. `sum_rewards` is
therefore too high by up to 1 for every episode that ends while another of its batch goes on, and right for
the last of a batch and for those that reach the limit of 300; `avg_sum_reward` depends on the batch size.
`max_rewards` and `successes` are right all the same: only success ends an episode before the limit, and it
has the best reward there is, 1. Example: of two environments the first succeeds in its third step with
rewards 0.5, 0.9, 1, and the second goes on; the first reward after the new start is 0.2, so LeRobot reports
a sum of 2.6 instead of 2.4, and maximum and success as they were.
"""

import copy
import io
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from dataclasses import dataclass, replace

import numpy as np
import torch
from lerobot.utils.random_utils import get_rng_state, set_rng_state, set_seed
from numpy.typing import NDArray

from il_bench.errors import IlBenchError
from il_bench.machine import one_thread
from il_bench.policies.checkpoint import LoadedPolicy
from il_bench.protocol import ACTION_HIGH, ACTION_LOW, MAX_STEPS, SUCCESS_COVERAGE
from il_bench.pusht.batch import Camera, as_images
from il_bench.pusht.geometry import block_keypoints
from il_bench.pusht.renderer import Renderer
from il_bench.pusht.simulator import Simulator, start_state
from il_bench.rollout import Outcomes


@dataclass(frozen=True, eq=False)
class LeRobotOutcomes:
    """What `lerobot-eval` reports of N episodes, in seed order.

    `outcomes`: success, best reward and the rest of each episode; `sum_reward` (N,) float64, LeRobot's
    `sum_rewards`; `past_done` (N,) float64, the part of it that was earned one step past `done`.
    """

    outcomes: Outcomes
    sum_reward: NDArray[np.float64]
    past_done: NDArray[np.float64]

    @property
    def pc_success(self) -> float:
        """Percentage of episodes that succeed."""
        return 100.0 * self.outcomes.success_rate

    @property
    def avg_max_reward(self) -> float:
        """Mean over episodes of the best reward."""
        return self.outcomes.mean_max_reward

    @property
    def avg_sum_reward(self) -> float:
        """Mean over episodes of the sum of rewards, the step past `done` included."""
        return float(self.sum_reward.mean())


def rollout_as_lerobot(
    policy: LoadedPolicy, *, n_episodes: int, batch_size: int, seed: int
) -> LeRobotOutcomes:
    """Run the episodes of `lerobot-eval --eval.n_episodes --eval.batch_size --seed`.

    Args:
        policy: on the CPU. Another device draws other numbers.
        n_episodes: how many; their seeds are `seed`, `seed + 1`, ...
        batch_size: environments side by side; more than `n_episodes` means `n_episodes`, as in LeRobot. Where
            LeRobot picks it itself (`batch_size=0`), its log says what it took.
        seed: of the global generators, and of the first episode.

    Returns:
        The outcomes. The global generators and torch's number of threads are left as they were.

    Raises:
        IlBenchError: a number out of range, or actions of the wrong shape or not finite.
    """
    for name, value, least in (
        ("n_episodes", n_episodes, 1),
        ("batch_size", batch_size, 1),
        ("seed", seed, 0),
    ):
        if value < least:
            raise IlBenchError(f"{name} must be at least {least}, got {value}")
    start = time.perf_counter()
    batch_size = min(batch_size, n_episodes)
    worlds = [_World() for _ in range(batch_size)]
    parts = []
    with _as_in_lerobot(policy, seed):
        for first in range(seed, seed + n_episodes, batch_size):
            parts.append(_run_batch(policy, worlds, first))
    outcomes = Outcomes.concatenate(part.outcomes for part in parts).take(range(n_episodes))
    return LeRobotOutcomes(
        replace(outcomes, seconds=time.perf_counter() - start),
        np.concatenate([part.sum_reward for part in parts])[:n_episodes],
        np.concatenate([part.past_done for part in parts])[:n_episodes],
    )


@contextmanager
def _as_in_lerobot(policy: LoadedPolicy, seed: int) -> Iterator[None]:
    """Bring the global generators to where `lerobot-eval` has them before its first batch; restore them."""
    config = policy.policy.config
    amp = torch.autocast(torch.device(config.device).type) if config.use_amp else nullcontext()
    state = get_rng_state()
    try:
        set_seed(seed)
        with redirect_stdout(io.StringIO()):  # LeRobot's GPT prints its size
            type(policy.policy)(copy.deepcopy(config))  # only for the random numbers its initial weights take
        with amp, one_thread():
            yield
    finally:
        set_rng_state(state)


class _World(Simulator):
    """A simulator that draws its next episodes from its own generator, as a gymnasium environment does."""

    def reset(self, seed: int) -> None:
        self._generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed)))
        self.reset_again()

    def reset_again(self) -> None:
        self.set_state(start_state(self._generator))


def _run_batch(policy: LoadedPolicy, worlds: list[_World], first_seed: int) -> LeRobotOutcomes:
    """Run one batch to the end of its last episode and count as LeRobot does."""
    seeds = np.arange(first_seed, first_seed + len(worlds))
    for world, seed in zip(worlds, seeds.tolist(), strict=True):
        world.reset(seed)
    policy.reset()
    rewards: list[NDArray[np.float64]] = []  # these three: one row (B,) a step
    successes: list[NDArray[np.bool_]] = []
    dones: list[NDArray[np.bool_]] = []
    taken: list[NDArray[np.float32]] = []  # (B, 2) a step
    done: NDArray[np.bool_] = np.zeros(len(worlds), np.bool_)
    while not done.all():
        actions = _actions(policy, worlds, seeds, len(rewards))
        coverage = _step(worlds, actions)
        success = np.greater(coverage, SUCCESS_COVERAGE)
        done = np.ones_like(done) if len(rewards) + 1 == MAX_STEPS else done | success
        rewards.append(np.clip(coverage / SUCCESS_COVERAGE, 0.0, 1.0))
        successes.append(success)
        dones.append(done)
        taken.append(actions)
    last = np.argmax(dones, axis=0)  # (B,) the step at which each is done
    steps = np.arange(len(rewards))[:, None]
    outside = ((np.array(taken) < ACTION_LOW) | (np.array(taken) > ACTION_HIGH)).any(axis=2)
    counted = np.where(steps <= last + 1, rewards, 0.0)  # with one step past the last
    outcomes = Outcomes(
        seeds,
        success=(np.array(successes) & (steps <= last + 1)).any(axis=0),
        max_reward=counted.max(axis=0),
        n_steps=last + 1,
        outside=(outside & (steps <= last)).sum(axis=0),
    )
    past_done = np.where(steps == last + 1, rewards, 0.0).sum(axis=0)
    return LeRobotOutcomes(outcomes, counted.sum(axis=0), past_done)


def _step(worlds: list[_World], actions: NDArray[np.float32]) -> NDArray[np.float64]:
    """Step all worlds and return their coverage (B,); those that succeed are left in their next episode."""
    coverages = []
    for world, (ax, ay) in zip(worlds, actions.tolist(), strict=True):
        world.step(ax, ay)
        coverages.append(world.coverage())
        if coverages[-1] > SUCCESS_COVERAGE:
            world.reset_again()
    return np.array(coverages)


def _observations(worlds: list[_World], camera: Camera | None) -> dict[str, torch.Tensor]:
    """What LeRobot gives a policy on keypoints, or on an image."""
    agent = np.array([(world.agent_x, world.agent_y) for world in worlds])
    state = {"observation.state": torch.from_numpy(agent).float()}
    if camera is not None:
        return {**state, camera.key: torch.from_numpy(as_images(camera.frames(Renderer(), worlds)))}
    pose = np.array([(world.block_x, world.block_y, world.block_angle) for world in worlds])
    return {**state, "observation.environment_state": torch.from_numpy(block_keypoints(pose)).float()}


def _actions(
    policy: LoadedPolicy, worlds: list[_World], seeds: NDArray[np.int64], step: int
) -> NDArray[np.float32]:
    """The policy's actions (B, 2) for all worlds, those in a later episode too."""
    batch = _observations(worlds, policy.camera)
    with torch.inference_mode():
        action = policy.select_action(batch)
    if action.shape != (len(worlds), 2) or not torch.isfinite(action).all():
        raise IlBenchError(
            f"{policy.name} returned actions {action.tolist()} at seeds {seeds[0]}-{seeds[-1]}, step {step}; "
            f"expected finite numbers of shape ({len(worlds)}, 2)"
        )
    actions: NDArray[np.float32] = action.to("cpu").numpy()
    return actions
