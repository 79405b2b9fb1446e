"""What is timed of a policy: the calls that a robot's control loop makes, one by one and together."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor

from il_bench.errors import IlBenchError
from il_bench.latency.device import Device, device_for
from il_bench.latency.inference import in_mode
from il_bench.policies.checkpoint import LoadedPolicy
from il_bench.protocol import SEED_STARTS, Mode, TimedCall
from il_bench.pusht.batch import Camera, PushTBatch

Batch = dict[str, Tensor]


class NoSuchCallError(IlBenchError):
    """The policy has no call of this kind, which is no fault of it; the message says why."""


@dataclass(frozen=True, eq=False)
class PolicyCall:
    """One call of a policy, to be timed.

    Attributes:
        prepare: untimed, before each call: brings the policy into the state that it starts from.
        call: with processing it takes raw observations, and its actions arrive on the CPU in px. Without, it
            takes normalised observations on the device and leaves normalised actions there.
        steps: control steps that one call serves: divide its time by them.
        policy: the given one, or its copy in another mode.
    """

    prepare: Callable[[], object]
    call: Callable[[], object]
    steps: int
    policy: LoadedPolicy


def observations(batch: int, camera: Camera | None = None) -> Batch:
    """The simulator's raw observations of the first `batch` validation seeds' start states.

    The agent (batch, 2) and the keypoints (batch, 16), px; with a camera, instead of the keypoints, its
    images (batch, 3, height, width) in [0, 1].
    """
    worlds = PushTBatch()
    worlds.reset(np.arange(SEED_STARTS["validation"], SEED_STARTS["validation"] + batch))
    return {key: torch.from_numpy(value) for key, value in worlds.observations(camera).items()}


def actions_per_prediction(policy: LoadedPolicy) -> int:
    """How many control steps one prediction serves: `n_action_steps`, 1 where a policy has no such field."""
    return int(getattr(getattr(policy.policy, "config", None), "n_action_steps", None) or 1)


def policy_call(
    policy: LoadedPolicy,
    what: str,
    batch: int,
    *,
    processed: bool = True,
    mode: str = Mode.EAGER,
    device: Device | None = None,
) -> PolicyCall:
    """What to time of a policy, on `observations`; a new chunk is the first of an episode.

    Args:
        what: a `TimedCall`.
        batch: how many robots, or simulated worlds, ask at once.
        processed: with the pre- and post-processing of the checkpoint, which a robot cannot leave out.
        mode: a `Mode` (see `inference.in_mode`). All but ``eager`` time a copy.
        device: where the policy is; None: the CPU.

    Raises:
        NoSuchCallError: the policy has no such call.
        IlBenchError: unknown `what` or `mode`, `batch` below 1, or a mode that the device lacks.
    """
    if what not in TimedCall:
        raise IlBenchError(f"latency: unknown call {what!r}; use one of {', '.join(TimedCall)}")
    if batch < 1:
        raise IlBenchError(f"latency: batch {batch} holds no observation; use 1 or more")
    steps = actions_per_prediction(policy)
    if what == TimedCall.QUEUED_ACTION and steps == 1:
        raise NoSuchCallError(f"{policy.name} queues no action: n_action_steps is 1")
    if what == TimedCall.PREDICT and not hasattr(policy.policy, "predict_action_chunk"):
        raise NoSuchCallError(f"{policy.name} has no predict_action_chunk: it plans action by action")
    seen = observations(batch, policy.camera)
    policy = in_mode(policy, mode, device or device_for("cpu"), seen)
    caller = _Caller(policy, seen, processed)
    if what == TimedCall.NEW_CHUNK:
        return PolicyCall(policy.reset, caller.act, 1, policy)
    if what == TimedCall.CONTROL_STEP:
        return PolicyCall(policy.reset, lambda: [caller.act() for _ in range(steps)], steps, policy)
    if what == TimedCall.QUEUED_ACTION:
        return PolicyCall(lambda: caller.refill(steps), caller.take_queued, 1, policy)
    policy.reset()
    caller.act()  # policies that look back predict from the history that this begins
    return PolicyCall(lambda: None, caller.predict, 1, policy)


class _Caller:
    """Calls one policy with one batch of observations, with processing or without."""

    def __init__(self, policy: LoadedPolicy, raw: Batch, processed: bool) -> None:
        self._policy, self._raw, self._processed = policy, raw, processed
        self._inner: Any = policy.policy
        self._queued = 0
        self._first_chunk: Any = None
        self._seen = self._preprocessed()

    def act(self) -> Any:
        if self._processed:
            return self._policy.select_action(self._raw)
        with torch.no_grad():
            return self._inner.select_action(dict(self._seen))

    def predict(self) -> Any:
        seen = self._preprocessed() if self._processed else dict(self._seen)
        with torch.no_grad():
            chunk = self._inner.predict_action_chunk(seen)
            return self._policy.postprocessor(chunk) if self._processed else chunk

    def refill(self, steps: int) -> None:
        """Fill the queue if it is empty, and take the first action, which did not wait in it.

        The queue always holds the first prediction: what an action is does not change what it costs. A policy
        whose select_action does not go through its predict_action_chunk predicts anew, which takes longer.
        """
        if self._queued:
            return
        predict: Any = getattr(self._inner, "predict_action_chunk", None)

        def first_chunk(*args: Any, **kwargs: Any) -> Any:
            if self._first_chunk is None:
                self._first_chunk = predict(*args, **kwargs)
            return self._first_chunk

        self._policy.reset()
        with patch.object(self._inner, "predict_action_chunk", first_chunk) if predict else nullcontext():
            self.act()
        self._queued = steps - 1

    def take_queued(self) -> Any:
        self._queued -= 1
        return self.act()

    def _preprocessed(self) -> Batch:
        """Normalised observations; what else a preprocessor adds, such as an empty action, is left out."""
        found = self._policy.preprocessor(dict(self._raw))
        return {key: value for key, value in found.items() if key.startswith("observation.")}
