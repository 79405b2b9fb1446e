"""Rollouts in a project's own environment, through gymnasium's API: what `rollout` does for PushT.

Episodes run one after another, each with its own seed for the environment, torch, numpy and `random`, so that
an episode does not depend on which others run. Success is `info["is_success"]`, as in LeRobot.
"""

import math
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from importlib import metadata
from typing import Any

import gymnasium
import numpy as np
import torch
from lerobot.envs.utils import preprocess_observation
from numpy.typing import NDArray

from il_bench.errors import IlBenchError, described
from il_bench.protocol import Scalar
from il_bench.rollout.blocks import Policy, called
from il_bench.rollout.endings import Ending
from il_bench.rollout.given import checked, in_words
from il_bench.rollout.outcomes import Outcomes
from il_bench.rollout.progress import Step, tell
from il_bench.rollout.recording import REWARD, StepRecording
from il_bench.rollout.surroundings import of_block, seed_all, seeded

SUCCESS = "is_success"


class EnvironmentRollout(AbstractContextManager["EnvironmentRollout"]):
    """Makes an environment, rolls policies out in it and, as a context, closes it.

    observe: turns an observation into a batch of one for `select_action`; None: as LeRobot does. Raises
    IlBenchError if `make` gives no gymnasium environment, or one whose actions are not a Box.
    """

    def __init__(
        self,
        name: str,
        make: "Callable[[], gymnasium.Env[Any, Any]]",
        max_steps: int,
        observe: Callable[[Any], dict[str, torch.Tensor]] | None,
    ) -> None:
        self._name, self._max_steps, self._observe = name, max_steps, observe or _as_lerobot
        with seeded(0):
            self._env = make()
        if not isinstance(self._env, gymnasium.Env):
            raise IlBenchError(
                f"environment {name!r}: {self._env!r} is not a gymnasium.Env; register a function that "
                "makes one"
            )
        if not isinstance(self._env.action_space, gymnasium.spaces.Box):
            raise IlBenchError(
                f"environment {name!r}: its actions are {self._env.action_space}; a policy's actions are "
                "numbers, so they have to be a Box"
            )
        self._actions = self._env.action_space

    def __exit__(self, *error: object) -> None:
        self._env.close()

    def fingerprint(self, of_run: Mapping[str, Scalar]) -> dict[str, Scalar]:
        """Return what these episodes depend on: the run's fingerprint, PushT's fields replaced."""
        kind = type(self._env.unwrapped)
        try:
            version = f" {metadata.version(kind.__module__.partition('.')[0])}"
        except metadata.PackageNotFoundError:
            version = ""
        return {
            **of_run,
            "task": self._name,
            "simulator": f"{kind.__module__}.{kind.__qualname__}{version}",
            "max_steps": self._max_steps,
            "success_coverage": None,
        }

    def run_block(self, policy: Policy, wanted: NDArray[np.int64]) -> Outcomes:
        """Run the wanted seeds (n,), torch on one thread; `max_reward` is 1 for a success, else 0.

        Raises IlBenchError, with seed and step, if the policy or the environment fails, or if no info says
        whether the episode is a success.
        """
        start = time.perf_counter()
        seeds = wanted.tolist()
        with of_block(seeds[0], called(policy)):
            rows: list[tuple[list[float], int, Ending]] = []
            for seed in seeds:
                done = Step(seeds[0], seeds[-1], len(rows) * self._max_steps, len(seeds) * self._max_steps)
                rows.append(self._episode(policy, seed, done))
        rewards, outside, ending = zip(*rows, strict=True)
        n_rows = np.array([len(each) for each in rewards])
        success = np.array(ending) == Ending.SUCCESS
        last = np.array([each[-1] for each in rewards])
        sums = np.array([np.sum(each) for each in rewards])
        return Outcomes(
            wanted,
            success,
            success.astype(np.float64),
            n_rows - 1,
            np.array(outside),
            time.perf_counter() - start,
            last_reward=np.where(np.isfinite(last), last, np.nan),
            sum_reward=np.where(np.isfinite(sums), sums, np.nan),
            ending=np.array(ending),
            recording=StepRecording(
                REWARD, wanted, n_rows, np.concatenate(rewards).astype(np.float32)[:, None]
            ),
        )

    def _episode(self, policy: Policy, seed: int, done: Step) -> tuple[list[float], int, Ending]:
        """Return 0 and the reward of each step, how many actions lay outside the Box, and how it ended.

        done: the steps of the block before it.
        """
        outside, success, rewards = 0, None, [0.0]
        seed_all(seed)
        at = f"at seed {seed}"
        try:
            observation, _ = self._env.reset(seed=seed)
            policy.reset()
            for step in range(self._max_steps):
                at = f"at seed {seed}, step {step}"
                action = self._action(policy, observation, at)
                outside += bool(((action < self._actions.low) | (action > self._actions.high)).any())
                observation, reward, terminated, truncated, info = self._env.step(action)
                rewards.append(_number(reward))
                tell(done._replace(done=done.done + step + 1))
                if (said := self._truth(info.get(SUCCESS), f"info[{SUCCESS!r}]", at)) is not None:
                    success = said
                is_over = self._truth(terminated, "terminated", at), self._truth(truncated, "truncated", at)
                if said or any(is_over):
                    break
        except IlBenchError:
            raise
        except Exception as error:  # the project's own code
            raise IlBenchError(f"in environment {self._name!r} {at}: {described(error)}") from error
        if success is None:
            raise IlBenchError(
                f"in environment {self._name!r} {at}: the episode ended, and no info had {SUCCESS!r}; step() "
                "has to say there whether it is a success"
            )
        if success:
            return rewards, outside, Ending.SUCCESS
        ending = Ending.TERMINATED if terminated else Ending.TRUNCATED if truncated else Ending.OUT_OF_STEPS
        return rewards, outside, ending

    def _action(self, policy: Policy, observation: Any, at: str) -> NDArray[Any]:
        with torch.inference_mode():
            action = policy.select_action(self._observe(observation))
        action = checked(action, (1, *self._actions.shape), at)
        if not torch.isfinite(action).all():
            raise IlBenchError(f"policy returned action {action[0].tolist()} {at}; expected finite numbers")
        given: NDArray[Any] = action[0].to(torch.float64).numpy().astype(self._actions.dtype)
        return given

    def _truth(self, value: Any, name: str, at: str) -> bool | None:
        """Whether a boolean, 0 or 1, alone or in an array of one, is true; None as it is.

        Raises IlBenchError for anything else: a word is always true, and so are a dictionary and a nan.
        """
        if value is None:
            return None
        one = value
        if math.prod(getattr(value, "shape", (0,))) == 1:
            one = value.item()
        if isinstance(one, bool | int | float) and one in (0, 1):
            return bool(one)
        raise IlBenchError(
            f"in environment {self._name!r} {at}: {name} is {in_words(value)}; step() has to give True or"
            " False there"
        )


def _as_lerobot(observation: Any) -> dict[str, torch.Tensor]:
    named = observation if isinstance(observation, dict) else {"agent_pos": np.asarray(observation)}
    batch: dict[str, torch.Tensor] = preprocess_observation(named)
    return batch


def _number(reward: Any) -> float:
    """A reward, nan if it is no number: nothing but looking at the episode depends on it."""
    try:
        return float(reward)
    except (TypeError, ValueError):
        return np.nan
