"""Episodes in a project's own environment, by gymnasium's API: what `rollout` does where it is not PushT.

One world and one episode after another, each with its own seed for the environment and for torch, so that an
episode does not depend on which others are run. Success is `info["is_success"]`, as LeRobot has it.
"""

import time
from collections.abc import Callable, Mapping
from importlib import metadata
from typing import Any, Protocol

import gymnasium
import numpy as np
import torch
from lerobot.envs.utils import preprocess_observation
from numpy.typing import NDArray

from il_bench.errors import IlBenchError, place_of
from il_bench.machine import one_thread
from il_bench.protocol import Scalar
from il_bench.rollout import Policy
from il_bench.rollout.outcomes import Outcomes

SUCCESS = "is_success"


class RegisteredEnvironment(Protocol):
    """What `Task` has to know: see `Registry.environment` in `il_bench.plugin.registry`."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def make(self) -> "Callable[[], gymnasium.Env[Any, Any]]": ...  # noqa: D102
    @property
    def max_steps(self) -> int: ...  # noqa: D102
    @property
    def observe(self) -> Callable[[Any], dict[str, torch.Tensor]] | None: ...  # noqa: D102


class Task:
    """A registered environment, made; a context that closes it.

    Raises:
        IlBenchError: what was made is no gymnasium environment, or its actions are no box.
    """

    def __init__(self, registered: RegisteredEnvironment) -> None:
        self._registered = registered
        made = registered.make()
        if not isinstance(made, gymnasium.Env):
            raise IlBenchError(
                f"environment {registered.name!r}: {made!r} is no gymnasium.Env; register a function that "
                "makes one"
            )
        if not isinstance(made.action_space, gymnasium.spaces.Box):
            raise IlBenchError(
                f"environment {registered.name!r}: its actions are {made.action_space}; a policy's are "
                "numbers: a Box"
            )
        self._env: gymnasium.Env[Any, Any] = made
        self._actions: gymnasium.spaces.Box = made.action_space

    def __enter__(self) -> "Task":
        return self

    def __exit__(self, *error: object) -> None:
        self._env.close()

    def fingerprint(self, of_run: Mapping[str, Scalar]) -> dict[str, Scalar]:
        """What changes these episodes: of PushT's fingerprint what is not PushT's own."""
        kind = type(self._env.unwrapped)
        return {
            **of_run,
            "task": self._registered.name,
            "simulator": f"{kind.__module__}.{kind.__qualname__}{_version(kind)}",
            "max_steps": self._registered.max_steps,
            "success_coverage": None,
        }

    def run_block(self, policy: Policy, wanted: NDArray[np.int64]) -> Outcomes:
        """Run the wanted seeds (n,), torch on one thread; `max_reward` is 1 for a success, else 0.

        Raises:
            IlBenchError: the policy or the environment fails, or no info says whether it was a success; it
                names seed and step.
        """
        start = time.perf_counter()
        with one_thread(), torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            rows = [self._episode(policy, int(seed)) for seed in wanted]
        success, n_steps, outside = (np.array(column) for column in zip(*rows, strict=True))
        seconds = time.perf_counter() - start
        return Outcomes(wanted, success, success.astype(np.float64), n_steps, outside, seconds=seconds)

    def _episode(self, policy: Policy, seed: int) -> tuple[bool, int, int]:
        """Whether it was a success, how many steps it took, and in how many the action left the box."""
        name, outside, is_said = self._registered.name, 0, False
        torch.manual_seed(seed)
        at = f"at seed {seed}"
        try:
            observation, _ = self._env.reset(seed=seed)
            policy.reset()
            for step in range(self._registered.max_steps):
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
            said = f"{type(error).__name__}: {error} ({place_of(error)})"
            raise IlBenchError(f"in environment {name!r} {at}: {said}") from error
        if not is_said:
            raise IlBenchError(
                f"in environment {name!r} {at}: the episode ended, and no info had {SUCCESS!r}; step() has "
                "to say there whether the task is solved"
            )
        return bool(info.get(SUCCESS)), step + 1, outside

    def _action(self, policy: Policy, observation: Any, at: str) -> NDArray[Any]:
        with torch.inference_mode():
            action = policy.select_action(self._observed(observation))
        shape = (1, *self._actions.shape)
        if not isinstance(action, torch.Tensor) or tuple(action.shape) != shape:
            found = tuple(action.shape) if isinstance(action, torch.Tensor) else repr(action)
            raise IlBenchError(f"policy returned {found} {at}, expected a tensor of shape {shape}")
        if not torch.isfinite(action).all():
            raise IlBenchError(f"policy returned action {action[0].tolist()} {at}; expected finite numbers")
        given: NDArray[Any] = action[0].cpu().numpy().astype(self._actions.dtype)
        return given

    def _observed(self, observation: Any) -> dict[str, torch.Tensor]:
        if self._registered.observe is not None:
            return self._registered.observe(observation)
        named = observation if isinstance(observation, dict) else {"agent_pos": np.asarray(observation)}
        batch: dict[str, torch.Tensor] = preprocess_observation(named)
        return batch


def _version(kind: type) -> str:
    """The version of the package that an environment is from, where it has one."""
    try:
        return f" {metadata.version(kind.__module__.partition('.')[0])}"
    except metadata.PackageNotFoundError:
        return ""
