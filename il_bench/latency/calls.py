"""The calls of a policy that are timed: those that a robot's control loop makes, one by one and together."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from lerobot.utils.constants import OBS_IMAGES
from torch import Tensor

from il_bench.errors import IlBenchError
from il_bench.latency.device import Device, device_for
from il_bench.latency.inference import in_mode
from il_bench.policies.checkpoint import LoadedPolicy
from il_bench.protocol import SEED_STARTS, Mode, TimedCall
from il_bench.pusht.batch import Camera, PushTBatch

Batch = dict[str, Tensor]


class NoSuchCallError(IlBenchError):
    """The policy has no call of this kind, which is not an error; the message says why."""


@dataclass(frozen=True, eq=False)
class PolicyCall:
    """One call of a policy, to be timed.

    prepare: brings the policy into its state before the call; it is not timed.
    call: with processing, it takes raw observations and puts actions in px on the CPU. Without, it takes
        normalised observations on the device and leaves normalised actions there.
    steps: how many control steps one call serves: divide its time by them.
    policy: the given one, or its copy in another mode.
    """

    prepare: Callable[[], object]
    call: Callable[[], object]
    steps: int
    policy: LoadedPolicy


def observations(batch: int, camera: Camera | None = None) -> Batch:
    """The simulator's raw observations of the start states of the first `batch` validation seeds.

    The agent (batch, 2) and the keypoints (batch, 16), in px; with a camera its images (batch, 3, height,
    width) in [0, 1] instead of the keypoints.
    """
    worlds = PushTBatch()
    worlds.reset(np.arange(SEED_STARTS["validation"], SEED_STARTS["validation"] + batch))
    return {key: torch.from_numpy(value) for key, value in worlds.observations(camera).items()}


def actions_per_prediction(policy: LoadedPolicy) -> int:
    """How many control steps one prediction serves: `n_action_steps`, or 1 for policies without it.

    LeRobot's VQ-BeT executes its whole chunk.
    """
    config = getattr(policy.policy, "config", None)
    return int(getattr(config, "n_action_steps", None) or getattr(config, "action_chunk_size", None) or 1)


def policy_call(
    policy: LoadedPolicy,
    what: str,
    batch: int,
    *,
    processed: bool = True,
    mode: str = Mode.EAGER,
    device: Device | None = None,
) -> PolicyCall:
    """Make a call to be timed, on `observations`; a new chunk is the first of an episode.

    Args:
        what: a `TimedCall`.
        batch: how many robots, or simulated worlds, ask at once.
        processed: with the checkpoint's pre- and post-processing, which a robot cannot leave out.
        mode: a `Mode` (see `inference.in_mode`). All modes but ``eager`` use a copy of the policy.
        device: where the policy is; default: the CPU.

    Raises NoSuchCallError if the policy has no such call, IlBenchError for an impossible argument.
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
    caller.act()  # begins the history that some policies predict from
    return PolicyCall(lambda: None, caller.predict, 1, policy)


class _Caller:
    """Calls one policy with one batch of observations, with or without processing."""

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
        images = [
            seen[key] for key in getattr(self._policy.camera and self._inner.config, "image_features", ())
        ]
        if images and OBS_IMAGES in getattr(
            self._inner, "_queues", ()
        ):  # what it predicts from, by this name
            seen[OBS_IMAGES] = torch.stack(images, dim=-4)
        with torch.no_grad():
            chunk = self._inner.predict_action_chunk(seen)
            return self._policy.postprocessor(chunk) if self._processed else chunk

    def refill(self, steps: int) -> None:
        """Fill the queue if it is empty, and take the first action, which never waits in it.

        The queue always gets the same prediction, which saves time: taking any action costs the same. But a
        policy whose select_action does not use its predict_action_chunk predicts anew.
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
        """Normalised observations, without what else a preprocessor adds, such as an empty action."""
        found = self._policy.preprocess(self._raw)
        return {key: value for key, value in found.items() if key.startswith(("observation.", "task"))}
