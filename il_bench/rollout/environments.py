"""Rollouts in a project's own environment, through gymnasium's API: what `rollout` does for PushT.

Episodes run one after another, each with its own seed for the environment and for torch, so that an episode
does not depend on which others run. Success is `info["is_success"]`, as in LeRobot.
"""

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
from il_bench.machine import one_thread
from il_bench.protocol import Scalar
from il_bench.rollout.blocks import Policy, check_shape
from il_bench.rollout.outcomes import Outcomes

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
        self._env = make()
        if not isinstance(self._env, gymnasium.Env):
            raise IlBenchError(
                f"environment {name!r}: {self._env!r} is no gymnasium.Env; register a function that makes one"
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
        with one_thread(), torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            rows = [self._episode(policy, int(seed)) for seed in wanted]
        success, n_steps, outside = (np.array(column) for column in zip(*rows, strict=True))
        return Outcomes(wanted, success, success, n_steps, outside, time.perf_counter() - start)

    def _episode(self, policy: Policy, seed: int) -> tuple[bool, int, int]:
        """Return whether it was a success, its steps, and how many actions lay outside the Box."""
        outside, is_said = 0, False
        torch.manual_seed(seed)
        at = f"at seed {seed}"
        try:
            observation, _ = self._env.reset(seed=seed)
            policy.reset()
            for step in range(self._max_steps):
                at = f"at seed {seed}, step {step}"
                action = self._action(policy, observation, at)
                outside += bool(((action < self._actions.low) | (action > self._actions.high)).any())
                observation, _, terminated, truncated, info = self._env.step(action)
                is_said |= SUCCESS in info
                if info.get(SUCCESS) or terminated or truncated:
                    break
        except IlBenchError:
            raise
        except Exception as error:  # the project's own code
            raise IlBenchError(f"in environment {self._name!r} {at}: {described(error)}") from error
        if not is_said:
            raise IlBenchError(
                f"in environment {self._name!r} {at}: the episode ended, and no info had {SUCCESS!r}; step() "
                "has to say there whether it is a success"
            )
        return bool(info.get(SUCCESS)), step + 1, outside

    def _action(self, policy: Policy, observation: Any, at: str) -> NDArray[Any]:
        with torch.inference_mode():
            action = policy.select_action(self._observe(observation))
        check_shape(action, (1, *self._actions.shape), at)
        if not torch.isfinite(action).all():
            raise IlBenchError(f"policy returned action {action[0].tolist()} {at}; expected finite numbers")
        given: NDArray[Any] = action[0].cpu().numpy().astype(self._actions.dtype)
        return given


def _as_lerobot(observation: Any) -> dict[str, torch.Tensor]:
    named = observation if isinstance(observation, dict) else {"agent_pos": np.asarray(observation)}
    batch: dict[str, torch.Tensor] = preprocess_observation(named)
    return batch
