"""Checkpoints by zoo name, folder or Hub id, ready to be rolled out."""

import hashlib
import io
import json
from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from lerobot.configs import PreTrainedConfig
from lerobot.policies.factory import get_policy_class, make_pre_post_processors
from lerobot.policies.pretrained import PreTrainedPolicy
from lerobot.utils.constants import OBS_ENV_STATE, OBS_STATE
from safetensors import SafetensorError

import il_bench.policies  # noqa: F401  (registers il_bc, il_bet and il_vqbet)
from il_bench.errors import IlBenchError
from il_bench.options import EXPERT
from il_bench.policies import pusht_features
from il_bench.policies.expert import ExpertPolicy
from il_bench.pusht.camera import Camera

ZOO = Path(str(files("il_bench") / "zoo"))
WEIGHTS = "model.safetensors"
TRAINING = "training.json"
PROCESSORS = ("policy_preprocessor.json", "policy_postprocessor.json")


@dataclass(frozen=True, eq=False)
class LoadedPolicy:
    """A policy with its processors: raw observations in, raw actions (px) out.

    Attributes:
        name: as the report calls it: the zoo's name, or the checkpoint's policy type and folder.
        track: ``keypoints`` or ``pixels``.
        checkpoint: where it came from, as it was asked for.
        sha256: of weights, configuration and processors together; None for a fresh policy and the expert.
        parameters: number of trained parameters.
        data: what it was trained on, as its ``training.json`` says, else ``unknown``.
        policy: a LeRobot policy, or the expert.
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

    @property
    def camera(self) -> Camera | None:
        """The image it asks for; None on the keypoint track."""
        config = getattr(self.policy, "config", None)  # the expert has none
        for key, feature in getattr(config, "image_features", {}).items():
            return Camera(key, width=feature.shape[2], height=feature.shape[1])
        return None

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
        parameters=sum(p.numel() for p in policy.parameters()),
        data=data,
        policy=policy.eval(),
        preprocessor=preprocessor,
        postprocessor=postprocessor,
    )


def zoo_names() -> list[str]:
    """The policies that ship with il_bench, by name."""
    return sorted(path.name for path in ZOO.iterdir() if (path / WEIGHTS).exists())


def load_policy(spec: str | Path, *, device: str = "cpu") -> LoadedPolicy:
    """Load a policy for evaluation.

    Args:
        spec: a name of the zoo (``bc``, ``bet``, ``vqbet``, ``act``, ``diffusion``), ``expert`` for the
            planner, a LeRobot ``pretrained_model`` folder, a checkpoint or run folder of ``lerobot-train`` or
            ``il-bench train``, or a Hub id.
        device: where it runs.

    Raises:
        IlBenchError: one line naming the file or feature at fault and the way out.
    """
    if spec == EXPERT:
        return _expert()
    folder = find_checkpoint(str(spec))
    config = read_config(folder, device)
    track = track_of(config, str(spec))
    _check_files(folder)
    try:
        with redirect_stdout(io.StringIO()):  # LeRobot prints what it does
            policy = get_policy_class(config.type).from_pretrained(folder, config=config, strict=True)
        preprocessor, postprocessor = make_pre_post_processors(
            config,
            pretrained_path=str(folder),
            preprocessor_overrides={"device_processor": {"device": device}},
        )
    except (SafetensorError, RuntimeError) as error:
        raise IlBenchError(f"{folder / WEIGHTS}: the weights do not fit {config.type}: {error}") from None
    pusht_features.check(config, preprocessor, folder)
    name = folder.name if folder.parent == ZOO else _row_name(str(spec), config.type)
    return LoadedPolicy(
        name=name,
        track=track,
        checkpoint=str(spec) if folder.parent != ZOO else f"zoo/{folder.name}",
        sha256=checkpoint_sha256(folder),
        parameters=sum(p.numel() for p in policy.parameters()),
        data=_data_of(folder),
        policy=policy,
        preprocessor=preprocessor,
        postprocessor=postprocessor,
    )


def _expert() -> LoadedPolicy:
    return LoadedPolicy(
        name=EXPERT,
        track="keypoints",
        checkpoint="il_bench.pusht.expert",
        sha256=None,
        parameters=0,
        data="none",
        policy=ExpertPolicy(),
        preprocessor=_unchanged,
        postprocessor=_unchanged,
    )


def _unchanged(value: Any) -> Any:
    return value


def find_checkpoint(spec: str) -> Path:
    """The ``pretrained_model`` folder that ``spec`` means; a Hub id is fetched.

    Raises:
        IlBenchError: when it names nothing.
    """
    if (ZOO / spec / WEIGHTS).exists() and "/" not in spec:
        return ZOO / spec
    path = Path(spec).expanduser()
    if path.exists():
        for candidate in (
            path,
            path / "pretrained_model",
            path / "checkpoints" / "last" / "pretrained_model",
        ):
            if (candidate / "config.json").exists():
                return candidate
        raise IlBenchError(
            f"{spec}: holds no config.json; give a LeRobot pretrained_model folder, a checkpoint or a run."
        )
    if spec.count("/") == 1 and not spec.startswith((".", "/", "~")):
        return _download(spec)
    raise IlBenchError(
        f"{spec}: no such policy. Give one of {', '.join([*zoo_names(), EXPERT])}, "
        "a pretrained_model folder, or a Hub id."
    )


def _download(hub_id: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(hub_id, allow_patterns=["*.json", "*.safetensors"]))
    except Exception as error:  # the Hub's client raises a dozen kinds: offline, gated, absent, proxy
        first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise IlBenchError(
            f"{hub_id}: not a local folder, and not to be had from the Hub ({first_line}). "
            "Check the name, or download it where there is a network and give the folder."
        ) from None


def read_config(folder: Path, device: str) -> PreTrainedConfig:
    """The configuration of the policy in ``folder``, whatever its type.

    Raises:
        IlBenchError: when LeRobot cannot read it.
    """
    try:
        config = PreTrainedConfig.from_pretrained(folder, cli_overrides=[f"--device={device}"])
    except Exception as error:  # draccus wraps every kind of bad JSON and unknown field in its own errors
        first_line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise IlBenchError(
            f"{folder / 'config.json'}: not a policy this LeRobot can read ({first_line}). "
            "A third-party policy's package must be installed."
        ) from None
    config.pretrained_path = folder
    return config


def track_of(config: PreTrainedConfig, spec: str) -> str:
    """``keypoints`` or ``pixels``, from the configuration's features.

    Raises:
        IlBenchError: naming the feature that does not fit PushT.
    """
    expected = {OBS_STATE: [(2,)], OBS_ENV_STATE: [(16,), (pusht_features.SIZE,)]}
    images = list(config.image_features)
    for key, feature in (config.input_features or {}).items():
        shape = tuple(feature.shape)
        fits = len(shape) == 3 and shape[0] == 3 if key in images else shape in expected.get(key, [])
        if not fits:
            raise IlBenchError(f"{spec}: input feature {key!r} of shape {shape} does not fit PushT.")
    if len(images) > 1:
        raise IlBenchError(f"{spec}: PushT has one camera; the policy asks for {', '.join(images)}.")
    if images and OBS_ENV_STATE in config.input_features:
        raise IlBenchError(
            f"{spec}: the policy asks for {images[0]!r} and {OBS_ENV_STATE!r}; PushT gives one of them."
        )
    action = config.action_feature
    if action is None or tuple(action.shape) != (2,):
        shape_text = None if action is None else tuple(action.shape)
        raise IlBenchError(
            f"{spec}: output feature 'action' of shape {shape_text} does not fit PushT's (2,)."
        )
    return "pixels" if images else "keypoints"


def _check_files(folder: Path) -> None:
    for name in (WEIGHTS, *PROCESSORS):
        if not (folder / name).exists():
            raise IlBenchError(
                f"{folder / name}: missing. A pretrained_model folder holds {WEIGHTS}, "
                f"{' and '.join(PROCESSORS)}; older folders get their processors from LeRobot's "
                "lerobot.processor.migrate_policy_normalization."
            )


def checkpoint_sha256(folder: Path) -> str:
    """One hash of everything in ``folder`` that changes what the policy does."""
    digest = hashlib.sha256()
    parts = [p for p in sorted(folder.iterdir()) if p.suffix == ".safetensors" or p.name in PROCESSORS]
    for path in [folder / "config.json", *parts]:
        digest.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _data_of(folder: Path) -> str:
    path = folder / TRAINING
    if not path.exists():
        return "unknown"
    return str(json.loads(path.read_text()).get("data", {}).get("name", "unknown"))


def _row_name(spec: str, policy_type: str) -> str:
    return f"{policy_type.removeprefix('il_')} ({Path(spec).name})"
