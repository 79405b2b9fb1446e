"""Robots that do not stop the world while their policy computes; time is counted in control steps.

A latency is given in control steps, rounded up: with `latency` L, what a policy makes of an observation at
step t is there before step t + L.
"""

from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import torch
from lerobot.processor import AbsoluteActionsProcessorStep
from lerobot.utils.constants import OBS_STATE
from torch import Tensor

from il_bench.errors import IlBenchError
from il_bench.policies.checkpoint import LoadedPolicy
from il_bench.pusht.batch import Camera
from il_bench.rollout import Policy

Batch = dict[str, Tensor]

#: Of LeRobot's asynchronous inference: its defaults `chunk_size_threshold` and `weighted_average`.
THRESHOLD = 0.5
NEW_WEIGHT = 0.7


class WaitingRobot:
    """LeRobot's plain control loop: it asks for a chunk, and the last target holds until the chunk is there.

    An answer within one control step is in time. The agent's own place is its first target. While the policy
    computes, the robot looks at nothing, so the policy's next observation is later too.
    """

    def __init__(self, policy: Policy, latency: float) -> None:
        self._policy, self._missed = policy, int(latency) - 1
        config = getattr(getattr(policy, "policy", policy), "config", None)
        self._per_chunk = int(getattr(config, "n_action_steps", None) or 1)
        self.camera: Camera | None = getattr(policy, "camera", None)

    def reset(self) -> None:
        """Forget the episode."""
        self._policy.reset()
        self._target: Tensor | None = None
        self._next: Tensor | None = None  # computed, and not yet there
        self._waited = self._left = 0  # steps so far for the next action; actions left of the chunk

    def select_action(self, batch: Batch) -> Tensor:
        """The target (B, 2) px of this control step."""
        if self._target is None:
            self._target = batch[OBS_STATE].clone()
        if self._next is None:
            self._next = self._policy.select_action(batch)
            is_new = self._left == 0
            self._left = (self._per_chunk if is_new else self._left) - 1
            self._waited = 0 if is_new else self._missed
        if self._waited < self._missed:
            self._waited += 1
            return self._target
        self._target, self._next = self._next, None
        return self._target


@dataclass
class _Coming:
    """A chunk (B, T, 2) px in the making: the step at which it is there, and its first action's number."""

    due: int
    first: int
    chunk: Tensor


class OverlappingRobot:
    """LeRobot's asynchronous inference: the next chunk is computed while the last one is carried out.

    At every step it carries out the next queued action, or else holds the last target. Then, if at most
    THRESHOLD of a chunk is queued and no other is being computed, it sends what it sees. A chunk's actions
    are numbered from the last one carried out before that. Once it is there, those whose turn has passed are
    left out, those that are also queued are averaged with NEW_WEIGHT, and the others join the queue.
    LeRobot's filter of observations that resemble the last one is left out. An action that is relative to the
    agent's place at its own step, as Diffusion Policy's shipped here are, is added to it there.

    Raises IlBenchError for a policy without `predict_action_chunk`.
    """

    def __init__(self, policy: Policy, latency: float) -> None:
        if not isinstance(policy, LoadedPolicy) or not hasattr(policy.policy, "predict_action_chunk"):
            name = getattr(policy, "name", type(policy).__name__)
            raise IlBenchError(
                f"overlap: {name} has no predict_action_chunk, so no chunk can overlap; use the arm wait"
            )
        self._policy, self._latency = policy, int(latency)
        self._moves_along = _is_relative_to_its_own_step(policy)
        self.camera = policy.camera

    def reset(self) -> None:
        """Forget the episode."""
        self._policy.reset()
        self._queue: dict[int, Tensor] = {}  # actions (B, 2) by number
        self._coming: _Coming | None = None
        self._step, self._latest, self._size = -1, -1, 1
        self._target: Tensor | None = None

    def select_action(self, batch: Batch) -> Tensor:
        """The target (B, 2) px of this control step."""
        self._step += 1
        if self._target is None:
            self._target = batch[OBS_STATE].clone()
        if self._coming is not None and self._coming.due <= self._step:
            self._receive(self._coming)
        if self._queue:
            self._latest = min(self._queue)
            self._target = self._queue.pop(self._latest)
            if self._moves_along:
                self._target = self._target + batch[OBS_STATE]
        seen = self._look(batch)
        if self._coming is None and len(self._queue) <= THRESHOLD * self._size:
            due, first = self._step + self._latency, max(self._latest, 0)
            chunk = self._chunk(seen)
            if self._moves_along:
                chunk = chunk - batch[OBS_STATE][:, None]
            self._coming = _Coming(due, first, chunk)
        return self._target

    def _receive(self, coming: _Coming) -> None:
        queued, self._queue, self._coming = self._queue, {}, None
        self._size = coming.chunk.shape[1]
        for number, action in enumerate(coming.chunk.unbind(1), coming.first):
            if number > self._latest:
                old = queued.get(number)
                new = action if old is None else (1 - NEW_WEIGHT) * old + NEW_WEIGHT * action
                self._queue[number] = new

    def _look(self, batch: Batch) -> dict[str, Any]:
        """Let the policy see this step, so that its history is of successive steps; return what it sees."""
        found = self._policy.preprocess(batch)
        seen = {key: value for key, value in found.items() if key.startswith(("observation.", "task"))}
        inner = self._policy.policy
        n_actions = int(getattr(inner.config, "n_action_steps", None) or 1)
        nothing = torch.zeros(len(batch[OBS_STATE]), n_actions, 2)
        with patch.object(inner, "predict_action_chunk", lambda *args, **options: nothing), torch.no_grad():
            inner.select_action(dict(seen))
        return seen

    def _chunk(self, seen: dict[str, Any]) -> Tensor:
        """All actions (B, T, 2) px that the policy predicts, not only those it carries out by itself."""
        inner = self._policy.policy
        horizon = getattr(
            inner.config, "horizon", None
        )  # Diffusion Policy's cuts its chunk to n_action_steps
        whole = inner.config.n_action_steps if horizon is None else horizon - inner.config.n_obs_steps + 1
        with patch.object(inner.config, "n_action_steps", whole), torch.no_grad():
            chunk: Tensor = self._policy.postprocessor(inner.predict_action_chunk(dict(seen)))
        return chunk.detach().cpu()


def _is_relative_to_its_own_step(policy: LoadedPolicy) -> bool:
    """Whether each action is relative to where the agent is when it is carried out, not when it is predicted.

    Then the preprocessor's step, which would make all of a chunk relative to one place, is not enabled.
    """
    steps = getattr(policy.postprocessor, "steps", ())
    absolute = (step for step in steps if isinstance(step, AbsoluteActionsProcessorStep) and step.enabled)
    return any(step.relative_step is not None and not step.relative_step.enabled for step in absolute)
