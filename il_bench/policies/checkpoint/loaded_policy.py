"""Policies ready to be rolled out: from a checkpoint, from memory, or any object."""

import hashlib
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lerobot.policies.pretrained import PreTrainedPolicy

from il_bench.machine import AS_SAVED, Numerics
from il_bench.policies import pusht_features
from il_bench.policies.checkpoint.checkpoint import Checkpoint
from il_bench.policies.checkpoint.configuration import track_of
from il_bench.policies.checkpoint.normalisation import check_normalisation
from il_bench.policies.expert import ExpertPolicy
from il_bench.policies.seen_frames import encoded_once
from il_bench.protocol import EXPERT, KEYPOINTS, PIXELS, TASK, TRACKS
from il_bench.pusht.batch import Camera
from il_bench.zoo import CONFIG


def _unchanged(value: Any) -> Any:
    return value


@dataclass(frozen=True, eq=False)
class LoadedPolicy:
    """A policy with its processors: raw observations in, raw actions (px) out."""

    name: str  # in reports: the zoo's name, or the checkpoint's policy type and folder
    track: str  # "keypoints" or "pixels", or the name of a project's own environment
    checkpoint: str  # where it came from: `Checkpoint.label`, or in words
    policy: Any  # a LeRobot policy, the planner, or a project's own object
    preprocessor: Any = _unchanged
    postprocessor: Any = _unchanged
    sha256: str | None = None  # the `Checkpoint`'s, as is `data`
    data: str = "unknown"
    copyable: bool = True  # whether other processes can be sent a copy
    numerics: Numerics = AS_SAVED
    _is_compiled: bool = field(default=False, init=False, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_is_compiled": False}  # a copy's networks are not

    @property
    def parameters(self) -> int:
        """How many numbers were trained."""
        is_network = isinstance(self.policy, torch.nn.Module)
        return sum(each.numel() for each in self.policy.parameters()) if is_network else 0

    @property
    def camera(self) -> Camera | None:
        """The image it asks for; None on the keypoint track."""
        config: Any = getattr(self.policy, "config", None)  # the expert has none
        for key in getattr(config, "image_features", ()):  # a dictionary, or gaussian_actor's list
            _, height, width = config.input_features[key].shape
            return Camera(key, width=width, height=height)
        return getattr(self.policy, "camera", None)

    @contextmanager
    def rolling_out(self) -> Iterator[None]:
        """The context in which its episodes run: what would only be done again is not."""
        if not isinstance(self.policy, torch.nn.Module):
            yield
            return
        with _evaluated_once(self.policy), encoded_once(self.policy) if self.camera else nullcontext():
            yield

    def copies(self) -> "Callable[[], LoadedPolicy] | None":
        """A function that gives other processes copies of it, with its weights as they are now.

        None if they cannot have one: a test's own class may exist in the test's module only.
        """
        if not self.copyable:
            return None
        try:
            return partial(pickle.loads, pickle.dumps(self))
        except (pickle.PicklingError, AttributeError, TypeError):
            return None

    def reset(self) -> None:
        """Forget the episode."""
        self.policy.reset()

    def preprocess(self, batch: dict[str, torch.Tensor]) -> dict[str, Any]:
        """What the policy sees of raw observations (B, .), in PushT with its task in words."""
        given: dict[str, Any] = dict(batch)
        if self.preprocessor is not _unchanged and self.track in (KEYPOINTS, PIXELS):
            n = len(next(iter(batch.values()), ()))
            given["task"] = [TASK] * n  # as LeRobot's own evaluation gives it
        return self.preprocessor(given)  # type: ignore[no-any-return]

    @torch.no_grad()
    def select_action(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """One action (B, 2) in px for raw observations (B, .), on the CPU."""
        if self.numerics.compiled and not self._is_compiled:
            self.compile(batch)
        seen = self.preprocess(batch)
        if self.numerics.autocast is None:
            return self.postprocessor(self.policy.select_action(seen))  # type: ignore[no-any-return]
        with torch.autocast(self._device.type, getattr(torch, self.numerics.autocast)):
            action: torch.Tensor = self.policy.select_action(seen)
        return self.postprocessor(action.float())  # type: ignore[no-any-return]

    @property
    def _device(self) -> torch.device:
        weights = self.policy.parameters() if isinstance(self.policy, torch.nn.Module) else ()
        return next((each.device for each in weights), torch.device("cpu"))

    def compile(self, seen: dict[str, torch.Tensor]) -> None:
        """Have torch.compile compile the `networks`, with fixed shapes. It works in the first calls."""
        for network in self.networks(seen):
            network.compile(dynamic=False)
        object.__setattr__(self, "_is_compiled", True)

    def networks(self, seen: dict[str, torch.Tensor]) -> list[torch.nn.Module]:
        """The outermost modules that a prediction from `seen` calls, in the order of the first calls.

        seen: raw observations (B, .). The policy begins an episode anew; no random number is used up.
        """
        found: dict[torch.nn.Module, None] = {}
        depth = 0

        def enter(module: torch.nn.Module, *_: object) -> None:
            nonlocal depth
            if depth == 0:
                found.setdefault(module)
            depth += 1

        def leave(*_: object) -> None:
            nonlocal depth
            depth -= 1

        modules = list(self.policy.modules())[1:] if isinstance(self.policy, torch.nn.Module) else []
        hooks = [module.register_forward_pre_hook(enter) for module in modules]
        hooks += [module.register_forward_hook(leave) for module in modules]
        try:
            with torch.no_grad(), torch.random.fork_rng(devices=range(torch.cuda.device_count())):
                self.policy.reset()
                self.policy.select_action(self.preprocess({key: value[:1] for key, value in seen.items()}))
        finally:
            for hook in hooks:
                hook.remove()
            self.policy.reset()
        return list(found)


@contextmanager
def _evaluated_once(policy: torch.nn.Module) -> Iterator[None]:
    """In this context, `policy.eval()` does nothing where every module is in evaluation mode already.

    Policies call it at every control step, and setting the mode of each module takes a tenth of an episode.
    """
    modules, own = list(policy.modules()), vars(policy).get("eval")

    def put_in_evaluation() -> torch.nn.Module:
        return type(policy).eval(policy) if any(each.training for each in modules) else policy

    if own is None:
        policy.eval = put_in_evaluation  # type: ignore[method-assign]
    try:
        yield
    finally:
        if own is None:
            del policy.eval


def wrap(policy: PreTrainedPolicy, preprocessor: Any, postprocessor: Any, *, name: str) -> LoadedPolicy:
    """Wrap a policy that is in memory already; it is put in evaluation mode."""
    track = track_of(policy.config, name)
    return LoadedPolicy(name, track, "(in memory)", policy.eval(), preprocessor, postprocessor)


def wrap_object(policy: Any, *, name: str, checkpoint: str, track: str | None = None) -> LoadedPolicy:
    """Wrap any object with LeRobot's ``reset()`` and ``select_action(batch)``, on raw values.

    A torch module gets the hash of its weights as ``sha256``. track: None: ``pixels`` if the object has an
    attribute ``camera``, else ``keypoints``. The other arguments: as in `LoadedPolicy`.
    """
    track = track or (KEYPOINTS if getattr(policy, "camera", None) is None else PIXELS)
    sha256 = _state_sha256(policy.eval()) if isinstance(policy, torch.nn.Module) else None
    return LoadedPolicy(name, track, checkpoint, policy, sha256=sha256, copyable=False)


def load_policy(
    spec: str | Path, *, device: str = "cpu", track: str | None = None, numerics: Numerics = AS_SAVED
) -> LoadedPolicy:
    """Load a policy for evaluation. Nothing of a checkpoint is run (see `Checkpoint`).

    Args:
        spec: a name of the zoo (``bc``, ``bet``, ``vqbet``, ``act``, ``diffusion``), ``expert`` for the
            planner; a folder: ``pretrained_model``, a checkpoint (``checkpoints/last``) or a run of
            ``lerobot-train`` or ``il-bench train``; or a Hub id (USER/NAME or USER/NAME@REVISION).
        device: where it runs.
        track: ``keypoints`` or ``pixels``: which of the shipped policies a name means. What any other policy
            sees is read from its files, and has to fit PushT; the name of another environment is taken as it
            is.
        numerics: how its networks compute.

    Raises IlBenchError: one line that names the file or feature at fault and the way out.
    """
    if spec == EXPERT:
        return LoadedPolicy(EXPERT, KEYPOINTS, "il_bench.pusht.expert", ExpertPolicy(), data="none")
    is_pusht = track in (None, *TRACKS)
    found = Checkpoint.find(spec, device, track=track if is_pusht else None)
    config, folder = found.config, found.folder
    track = track_of(config, f"{found.label}/{CONFIG}") if is_pusht or not track else track
    policy, (pre, post) = found.make_policy(), found.processors
    pusht_features.check(config, pre.steps, folder)
    check_normalisation(config, pre, post, folder, is_pusht=is_pusht)
    name = folder.name if found.is_shipped else f"{config.type.removeprefix('il_')} ({Path(spec).name})"
    facts: dict[str, Any] = {"sha256": found.sha256, "data": found.data, "numerics": numerics}
    return LoadedPolicy(name, track, found.label, policy, pre, post, **facts)


def _state_sha256(module: torch.nn.Module) -> str:
    """One hash of the weights of a network in memory."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
