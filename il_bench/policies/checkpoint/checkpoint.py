"""One checkpoint: where it was found, and what its files say, each read once, when it is first asked for."""

import hashlib
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from lerobot.configs import PreTrainedConfig
from lerobot.policies.factory import get_policy_class, make_pre_post_processors
from lerobot.policies.pretrained import PreTrainedPolicy
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from il_bench.errors import IlBenchError
from il_bench.policies.checkpoint import old_format
from il_bench.policies.checkpoint.configuration import read_config
from il_bench.policies.checkpoint.finding import PROCESSORS, check_weights, download, folder_at
from il_bench.policies.checkpoint.processors import load_processors, no_normalisation
from il_bench.zoo import CONFIG, WEIGHTS, ZOO, resolve


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A `pretrained_model` folder as LeRobot writes it, also an older LeRobot's.

    Nothing of a checkpoint is run: its weights are safetensors, its configuration names a type that is
    installed, and its processors have steps that are.

    Attributes:
        folder: which holds the files.
        label: what a report calls it: zoo/NAME, a Hub id with its commit, else as it was asked for.
        is_shipped: whether it is one of il_bench's own.
        device: where its policy is to run.
    """

    folder: Path
    label: str
    is_shipped: bool = False
    device: str = "cpu"

    @classmethod
    def find(
        cls, spec: str | Path, device: str = "cpu", offered: Sequence[str] | None = None
    ) -> "Checkpoint":
        """The checkpoint of a shipped policy, in a folder, or on the Hub, from where it is fetched.

        Args:
            spec: a name of the zoo; a folder: ``pretrained_model``, a checkpoint (``checkpoints/last``,
                ``checkpoints/005000``) or a run of ``lerobot-train`` or ``il-bench train``; or a Hub id,
                USER/NAME or USER/NAME@REVISION.
            device: where its policy is to run.
            offered: as `il_bench.zoo.resolve` takes it.

        Raises:
            IlBenchError: it means no checkpoint: nothing, a file, a pickle, or the planner.
        """
        source = resolve(str(spec), offered=offered)
        if source.is_shipped:
            return cls(ZOO / source.spec, f"zoo/{source.spec}", True, device)
        if source.path is not None:
            return cls(folder_at(source.path), str(spec), device=device)
        if source.repository is None:
            raise IlBenchError(f"{spec}: the planner has no checkpoint; give a policy that was trained.")
        folder = download(source.repository, source.revision)
        return cls(folder, f"{source.repository}@{folder.name}", device=device)

    @cached_property
    def config(self) -> PreTrainedConfig:
        """Of the policy, whatever its type, on `device`.

        Raises:
            IlBenchError: naming the field at fault, or the type that is not installed, and the way out.
        """
        return read_config(self.folder, self.device)

    @cached_property
    def processors(self) -> tuple[Any, Any]:
        """The pre- and the post-processor, on `device`; an old checkpoint's out of its weights.

        Raises:
            IlBenchError: naming the file or step that is missing, damaged or not to be trusted.
        """
        if any((self.folder / name).exists() for name in PROCESSORS):
            return load_processors(self.folder, self.config, self.device)
        if self._old_weights is None:
            raise no_normalisation(self.folder)
        pre, post = make_pre_post_processors(self.config, dataset_stats=self._old_weights.stats)
        return pre, post

    @cached_property
    def _old_weights(self) -> old_format.OldWeights | None:
        """Weights and statistics of a policy that normalises by itself; None for any other."""
        with self._readable_weights() as path:
            return old_format.read_weights(path, self.config)

    @contextmanager
    def _readable_weights(self) -> Iterator[Path]:
        """The file of the weights; IlBenchError where it is missing, a pickle, or shows to be damaged."""
        path = self.folder / WEIGHTS
        check_weights(path)
        try:
            yield path
        except (OSError, SafetensorError) as error:
            raise IlBenchError(f"{path}: not readable as safetensors ({error}); fetch it again.") from None

    def make_policy(self) -> PreTrainedPolicy:
        """The policy without its processors, in evaluation mode.

        Raises:
            IlBenchError: no weights, weights that do not fit, or a policy that cannot be made here.
        """
        old, config = self._old_weights, self.config
        try:
            policy_class = get_policy_class(config.type)
            if old is None:
                with redirect_stdout(io.StringIO()):  # LeRobot prints what it does
                    return policy_class.from_pretrained(self.folder, config=config, strict=True)
            policy = policy_class(config)
            policy.load_state_dict(old.network)
            return policy.to(self.device).eval()
        except (SafetensorError, RuntimeError) as error:
            raise self._unfitting(error) from None
        except Exception as error:  # packages it needs, settings it does not like, anybody's own errors
            reason = " ".join(str(error).split())
            raise IlBenchError(
                f"{self.folder / CONFIG}: no policy of type {config.type} can be made of it here: {reason}"
            ) from None

    def load_into(self, module: nn.Module, prefix: str) -> None:
        """Load the weights whose names begin with ``prefix`` into a module of the policy; no others are read.

        Raises:
            IlBenchError: the file is missing or damaged, or the weights do not fit or are not finite.
        """
        with self._readable_weights() as path, safe_open(path, framework="pt") as file:
            names = [name for name in file.keys() if name.startswith(prefix)]  # noqa: SIM118 (no dict)
            weights = {name.removeprefix(prefix): file.get_tensor(name) for name in names}
        try:
            module.load_state_dict(weights)
        except RuntimeError as error:
            raise self._unfitting(error) from None
        check_finite(weights, f"{path}: {prefix}")

    def _unfitting(self, error: Exception) -> IlBenchError:
        reason = " ".join(str(error).split())
        return IlBenchError(f"{self.folder / WEIGHTS}: the weights do not fit {self.config.type}: {reason}")

    @cached_property
    def sha256(self) -> str:
        """One hash of every file that changes what the policy does."""
        digest = hashlib.sha256()
        files = sorted(self.folder.iterdir())
        parts = [path for path in files if path.suffix == ".safetensors" or path.name in PROCESSORS]
        for path in [self.folder / CONFIG, *parts]:
            digest.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
        return digest.hexdigest()

    @cached_property
    def data(self) -> str:
        """What the weights were trained on, as `il-bench train` notes it beside them; else unknown."""
        try:
            text = (self.folder / "training.json").read_text(encoding="utf-8")
            return str(json.loads(text)["data"]["name"])
        except (OSError, ValueError, LookupError, TypeError):
            return "unknown"


def check_finite(weights: Mapping[str, Tensor], where: str) -> None:
    """Raise IlBenchError naming the weight that is not finite."""
    for name, weight in weights.items():
        if not torch.isfinite(weight).all():
            raise IlBenchError(
                f"{where}{name} holds NaN or infinity; give a checkpoint from before its training diverged."
            )
