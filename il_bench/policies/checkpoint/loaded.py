"""Checkpoints by zoo name, folder or Hub id, ready to be rolled out."""

import hashlib
import io
import json
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from lerobot.configs import PreTrainedConfig
from lerobot.policies.factory import get_policy_class
from lerobot.policies.pretrained import PreTrainedPolicy
from safetensors import SafetensorError
from safetensors.torch import save_file

from il_bench.errors import IlBenchError
from il_bench.policies import pusht_features
from il_bench.policies.checkpoint import old_format
from il_bench.policies.checkpoint.configuration import read_config, track_of
from il_bench.policies.checkpoint.locating import (
    CONFIG,
    PROCESSORS,
    WEIGHTS,
    ZOO,
    check_weights,
    find_checkpoint,
    locate,
    zoo_names,
)
from il_bench.policies.checkpoint.processors import check_statistics, load_processors
from il_bench.policies.expert import ExpertPolicy
from il_bench.protocol import EXPERT
from il_bench.pusht.batch import Camera

__all__ = [
    "PROCESSORS",
    "WEIGHTS",
    "ZOO",
    "LoadedPolicy",
    "PolicyLoader",
    "checkpoint_sha256",
    "data_of",
    "find_checkpoint",
    "load_policy",
    "load_processors",
    "read_config",
    "track_of",
    "wrap",
    "wrap_object",
    "zoo_names",
]

TRAINING = "training.json"


@dataclass(frozen=True, eq=False)
class LoadedPolicy:
    """A policy with its processors: raw observations in, raw actions (px) out.

    Attributes:
        name: as the report calls it: the zoo's name, or the checkpoint's policy type and folder.
        track: ``keypoints`` or ``pixels``; of a policy for somebody else's environment, that one's name.
        checkpoint: where it came from, as it was asked for; a Hub id with its commit.
        sha256: of weights, configuration and processors together; None for a fresh policy and the expert.
        parameters: number of trained parameters.
        data: what it was trained on, as its ``training.json`` says, else ``unknown``.
        policy: a LeRobot policy, the expert, or a project's own object.
        copyable: whether other processes can be sent a copy.
    """

    name: str
    track: str
    checkpoint: str
    sha256: str | None
    parameters: int
    data: str
    policy: PreTrainedPolicy
    preprocessor: Any
    postprocessor: Any
    copyable: bool = True

    @property
    def camera(self) -> Camera | None:
        """The image it asks for; None on the keypoint track."""
        config = getattr(self.policy, "config", None)  # the expert has none
        for key, feature in getattr(config, "image_features", {}).items():
            return Camera(key, width=feature.shape[2], height=feature.shape[1])
        own: Camera | None = getattr(self.policy, "camera", None)
        return own

    def reset(self) -> None:
        """Forget the episode."""
        self.policy.reset()

    @torch.no_grad()
    def select_action(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """One action (B, 2) in px for raw observations (B, .), on the CPU."""
        action: torch.Tensor = self.postprocessor(self.policy.select_action(self.preprocessor(dict(batch))))
        return action


@dataclass(frozen=True)
class PolicyLoader:
    """A call that loads one policy: what worker processes are sent instead of the policy itself."""

    spec: str
    device: str = "cpu"

    def __call__(self) -> LoadedPolicy:
        return load_policy(self.spec, device=self.device)


def wrap(
    policy: PreTrainedPolicy, preprocessor: Any, postprocessor: Any, *, name: str, data: str = "unknown"
) -> LoadedPolicy:
    """A policy that is in memory already, in evaluation mode."""
    return LoadedPolicy(
        name=name,
        track=track_of(policy.config, name),
        checkpoint="(in memory)",
        sha256=None,
        parameters=_count_parameters(policy),
        data=data,
        policy=policy.eval(),
        preprocessor=preprocessor,
        postprocessor=postprocessor,
    )


def wrap_object(
    policy: Any,
    *,
    name: str,
    checkpoint: str,
    track: str | None = None,
    data: str = "unknown",
    copyable: bool = False,
) -> LoadedPolicy:
    """Any object with LeRobot's ``reset()`` and ``select_action(batch)``, on raw observations and actions.

    Args:
        policy: with weights where it is a torch module, whose hash is then ``sha256``.
        name: as the report calls it.
        checkpoint: where it came from, in words.
        track: None: ``pixels`` where the object has an attribute ``camera``, else ``keypoints``.
        data: what it was trained on.
        copyable: whether its class is one that other processes can import.
    """
    is_module = isinstance(policy, torch.nn.Module)
    if is_module:
        policy.eval()
    return LoadedPolicy(
        name=name,
        track=track or ("keypoints" if getattr(policy, "camera", None) is None else "pixels"),
        checkpoint=checkpoint,
        sha256=_state_sha256(policy) if is_module else None,
        parameters=_count_parameters(policy) if is_module else 0,
        data=data,
        policy=policy,
        preprocessor=_unchanged,
        postprocessor=_unchanged,
        copyable=copyable,
    )


def load_policy(spec: str | Path, *, device: str = "cpu", track: str | None = None) -> LoadedPolicy:
    """Load a policy for evaluation.

    Nothing of a checkpoint is run: its weights are safetensors, its configuration names a type that is
    installed, and its processors have steps that are (see ``locating``, ``reading`` and ``processors``).

    Args:
        spec: a name of the zoo (``bc``, ``bet``, ``vqbet``, ``act``, ``diffusion``), ``expert`` for the
            planner, a LeRobot ``pretrained_model`` folder, a checkpoint or run folder of ``lerobot-train`` or
            ``il-bench train``, or a Hub id (USER/NAME or USER/NAME@REVISION). An older LeRobot's too.
        device: where it runs.
        track: None: read from what the policy sees and does, which has to fit PushT. The name of another
            environment: taken as it is.

    Raises:
        IlBenchError: one line naming the file or feature at fault and the way out.
    """
    if spec == EXPERT:
        origin = "il_bench.pusht.expert"
        return wrap_object(ExpertPolicy(), name=EXPERT, checkpoint=origin, data="none", copyable=True)
    located = locate(str(spec))
    folder = located.folder
    check_weights(folder)
    config = read_config(folder, device)
    track = track or track_of(config, located.label)
    policy = _network(config, folder)
    preprocessor, postprocessor = load_processors(folder, config, device)
    pusht_features.check(config, preprocessor, folder)
    check_statistics(preprocessor, postprocessor, folder)
    is_shipped = folder.parent == ZOO
    return LoadedPolicy(
        name=folder.name if is_shipped else _row_name(str(spec), config.type),
        track=track,
        checkpoint=f"zoo/{folder.name}" if is_shipped else located.label,
        sha256=checkpoint_sha256(folder),
        parameters=_count_parameters(policy),
        data=data_of(folder),
        policy=policy,
        preprocessor=preprocessor,
        postprocessor=postprocessor,
    )


def _network(config: PreTrainedConfig, folder: Path) -> PreTrainedPolicy:
    """The policy of ``folder`` without its processors, in evaluation mode."""
    try:
        if not old_format.normalises_itself(folder / WEIGHTS):
            return _from_pretrained(config, folder)
        network, _ = old_format.read_weights(folder / WEIGHTS, config)
        with TemporaryDirectory() as without:
            save_file(network, Path(without) / WEIGHTS)
            return _from_pretrained(config, Path(without))
    except (SafetensorError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise IlBenchError(f"{folder / WEIGHTS}: the weights do not fit {config.type}: {reason}") from None
    except IlBenchError:
        raise
    except Exception as error:  # packages it needs, settings it does not like, anybody's own errors
        reason = " ".join(str(error).split())
        raise IlBenchError(
            f"{folder / CONFIG}: no policy of type {config.type} can be made of it here: {reason}"
        ) from None


def _from_pretrained(config: PreTrainedConfig, folder: Path) -> PreTrainedPolicy:
    with redirect_stdout(io.StringIO()):  # LeRobot prints what it does
        return get_policy_class(config.type).from_pretrained(folder, config=config, strict=True)


def _unchanged(value: Any) -> Any:
    return value


def _count_parameters(policy: torch.nn.Module) -> int:
    return sum(p.numel() for p in policy.parameters())


def checkpoint_sha256(folder: Path) -> str:
    """One hash of everything in ``folder`` that changes what the policy does."""
    digest = hashlib.sha256()
    parts = [p for p in sorted(folder.iterdir()) if p.suffix == ".safetensors" or p.name in PROCESSORS]
    for path in [folder / CONFIG, *parts]:
        digest.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _state_sha256(module: torch.nn.Module) -> str:
    """One hash of the weights of a network in memory."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def data_of(folder: Path) -> str:
    """What the weights were trained on, as `il-bench train` notes it; another's file may mean anything."""
    try:
        return str(json.loads((folder / TRAINING).read_text(encoding="utf-8"))["data"]["name"])
    except (OSError, ValueError, LookupError, TypeError):
        return "unknown"


def _row_name(spec: str, policy_type: str) -> str:
    return f"{policy_type.removeprefix('il_')} ({Path(spec).name})"
