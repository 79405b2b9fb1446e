"""What is timed of a policy: the calls that a robot's control loop makes, one by one and together."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from il_bench.errors import IlBenchError
from il_bench.latency.device import Device, device_for
from il_bench.latency.variants import EAGER, in_mode
from il_bench.policies.checkpoint import LoadedPolicy
from il_bench.pusht.batch import Camera, PushTBatch

NEW_CHUNK = "new chunk"
QUEUED_ACTION = "queued action"
PREDICT = "predict_action_chunk"
CONTROL_STEP = "control step"
#: What `policy_call` can time, in the words of the report.
WHAT = {
    NEW_CHUNK: "select_action with nothing queued: a prediction, and its first action",
    QUEUED_ACTION: "select_action that takes an action of an earlier prediction",
    PREDICT: "a prediction alone",
    CONTROL_STEP: "a prediction and all its actions, divided by their number",
}
FIRST_SEED = 100_000

Batch = dict[str, Tensor]


class NoSuchCallError(IlBenchError):
    """The policy has no call of this kind, which is no fault: one sentence says why."""


@dataclass(frozen=True, eq=False)
class PolicyCall:
    """One call of a policy, to be timed.

    Attributes:
        prepare: brings the policy into the state that the call starts from; untimed, before each call.
        call: does it. With processing it takes raw observations and its actions arrive on the CPU in px;
            without, it takes normalised observations on the device and leaves normalised actions there.
        steps: control steps that one call serves: divide its time by them. 1 but for a control step.
        policy: what is called: the given one, or its copy in another mode.
    """

    prepare: Callable[[], object]
    call: Callable[[], object]
    steps: int
    policy: LoadedPolicy


def observations(batch: int, camera: Camera | None = None) -> Batch:
    """The simulator's raw start observations of `batch` episodes: (batch, 2) and (batch, 16), px.

    With a camera its images, (batch, 3, height, width) in [0, 1], take the place of the second.
    """
    worlds = PushTBatch()
    worlds.reset(np.arange(FIRST_SEED, FIRST_SEED + batch))
    return {key: torch.from_numpy(value) for key, value in worlds.observations(camera).items()}


def actions_per_prediction(policy: LoadedPolicy) -> int:
    """How many control steps one prediction serves: `n_action_steps`, 1 where a policy has no such field."""
    return int(_configured(policy, "n_action_steps", 1))


def policy_call(
    policy: LoadedPolicy,
    what: str,
    batch: int,
    *,
    processed: bool = True,
    mode: str = EAGER,
    device: Device | None = None,
) -> PolicyCall:
    """What to time of a policy.

    The observations are the start states of the first `batch` validation seeds. A policy's own history and
    queue are what `reset` leaves, so that a new chunk is the first of an episode.

    Args:
        what: one of `WHAT`.
        batch: robots, or simulated worlds, that are asked at once.
        processed: with the pre- and post-processing of the checkpoint, which a robot cannot leave out.
        mode: ``eager``, ``compile`` or ``cuda graph`` (see `variants.in_mode`): the latter two time a copy.
        device: where the policy is; None: where its configuration says.

    Raises:
        NoSuchCallError: the policy has no such call, with the reason.
        IlBenchError: unknown `what` or `mode`, `batch` below 1, or a mode that the device lacks.
    """
    if what not in WHAT:
        raise IlBenchError(f"latency: unknown call {what!r}; use one of {', '.join(WHAT)}")
    if batch < 1:
        raise IlBenchError(f"latency: batch {batch} holds no observation; use 1 or more")
    steps = actions_per_prediction(policy)
    if what == QUEUED_ACTION and steps == 1:
        raise NoSuchCallError(f"{policy.name} queues no action: n_action_steps is 1")
    if what == PREDICT and not hasattr(policy.policy, "predict_action_chunk"):
        raise NoSuchCallError(f"{policy.name} has no predict_action_chunk: it plans action by action")
    where = device or device_for(
        str(getattr(getattr(policy.policy, "config", None), "device", None) or "cpu")
    )
    timed = _Timed(in_mode(policy, mode, where), observations(batch, policy.camera), processed, steps)
    made: dict[str, Callable[[], PolicyCall]] = {
        NEW_CHUNK: timed.new_chunk,
        QUEUED_ACTION: timed.queued_action,
        PREDICT: timed.predict_action_chunk,
        CONTROL_STEP: timed.control_step,
    }
    return made[what]()


def _configured(policy: LoadedPolicy, name: str, otherwise: Any) -> Any:
    """A field of the policy's configuration; the planner has none."""
    return getattr(getattr(policy.policy, "config", None), name, None) or otherwise


class _Timed:
    """The calls of one policy with one batch of observations."""

    def __init__(self, policy: LoadedPolicy, raw: Batch, processed: bool, steps: int) -> None:
        self._policy = policy
        self._inner: Any = policy.policy
        self._raw = raw
        self._processed = processed
        self._steps = steps
        self._queued = 0
        self._seen = self._preprocessed()

    def new_chunk(self) -> PolicyCall:
        return PolicyCall(self._policy.reset, self._act, 1, self._policy)

    def control_step(self) -> PolicyCall:
        def act() -> None:
            for _ in range(self._steps):
                self._act()

        return PolicyCall(self._policy.reset, act, self._steps, self._policy)

    def queued_action(self) -> PolicyCall:
        first = _FirstChunk(self._inner)

        def refill() -> None:
            if self._queued == 0:
                self._policy.reset()
                with first.again():
                    self._act()
                self._queued = self._steps - 1

        def act() -> Tensor:
            self._queued -= 1
            return self._act()

        return PolicyCall(refill, act, 1, self._policy)

    def predict_action_chunk(self) -> PolicyCall:
        self._policy.reset()
        self._act()  # policies that look back predict from the history that this begins

        def predict() -> Tensor:
            seen = self._preprocessed() if self._processed else dict(self._seen)
            with torch.no_grad():
                chunk: Tensor = self._inner.predict_action_chunk(seen)
                return self._policy.postprocessor(chunk) if self._processed else chunk

        return PolicyCall(lambda: None, predict, 1, self._policy)

    def _act(self) -> Tensor:
        if self._processed:
            return self._policy.select_action(self._raw)
        with torch.no_grad():
            return self._inner.select_action(dict(self._seen))  # type: ignore[no-any-return]

    def _preprocessed(self) -> Batch:
        """Normalised observations; what else a preprocessor adds, such as an empty action, is left out."""
        found = self._policy.preprocessor(dict(self._raw))
        return {key: value for key, value in found.items() if key.startswith("observation.")}


class _FirstChunk:
    """A policy's first prediction, given again in the place of later ones: what a queue is filled with.

    A queued action costs the same whatever it is. A policy whose select_action does not go through its
    predict_action_chunk predicts anew, which takes longer and is as right.
    """

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self._chunk: Tensor | None = None

    @contextmanager
    def again(self) -> Iterator[None]:
        """Within, the policy predicts by remembering."""
        predict = getattr(self._inner, "predict_action_chunk", None)
        if predict is None:
            yield
            return
        own = vars(self._inner).get("predict_action_chunk")

        def remembered(*args: Any, **kwargs: Any) -> Tensor:
            if self._chunk is None:
                self._chunk = predict(*args, **kwargs)
            return self._chunk

        self._inner.predict_action_chunk = remembered
        try:
            yield
        finally:
            del self._inner.predict_action_chunk
            if own is not None:
                self._inner.predict_action_chunk = own
