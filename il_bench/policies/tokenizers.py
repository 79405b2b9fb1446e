"""The action tokenizer inside a policy, or inside a checkpoint without the rest of its policy."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lerobot.configs import PreTrainedConfig
from lerobot.policies.vqbet.configuration_vqbet import VQBeTConfig
from lerobot.policies.vqbet.modeling_vqbet import VQBeTPolicy, VqVae
from lerobot.utils.constants import ACTION, OBS_STATE
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from il_bench.data.chunks import Chunks
from il_bench.errors import IlBenchError
from il_bench.policies.bet import ILBeTConfig
from il_bench.policies.checkpoint import (
    WEIGHTS,
    ZOO,
    LoadedPolicy,
    find_checkpoint,
    load_processors,
    read_config,
    zoo_names,
)
from il_bench.policies.vqbet import ILVQBeTConfig, ResumableVqVae
from il_bench.protocol import EXPERT
from il_bench.tokenizers import KMeansTokenizer, ResidualVQTokenizer, Tokenizer

TYPES = ("il_vqbet", "vqbet", "il_bet")  # of policies that have a tokenizer
GIVE = f"give a checkpoint of type {', '.join(TYPES[:-1])} or {TYPES[-1]}"
VQVAE_WEIGHTS = "vqbet.action_head.vqvae_model."
KMEANS_WEIGHTS = "tokenizer."


def load_tokenizer(spec: str | Path, *, device: str = "cpu") -> Tokenizer:
    """The tokenizer of a VQ-BeT or BeT checkpoint, fitted and in eval mode.

    Only its own weights are read, so LeRobot's ``vqbet`` opens without its image encoder, whatever it sees
    and whatever robot its actions are for. It codes chunks as its policy was trained on: normalised, and
    relative to the agent where the configuration says so.

    Args:
        spec: a name of the zoo, a LeRobot ``pretrained_model`` folder, a checkpoint or run folder, or a Hub
            id, of a policy of type ``il_vqbet``, ``vqbet`` or ``il_bet``.
        device: where the tokenizer is put.

    Raises:
        IlBenchError: one line naming the file at fault and the way out: no such checkpoint, no tokenizer in
            it, weights that do not fit or are not finite, a first phase that is not over.
    """
    folder = _find(str(spec))
    config = read_config(folder, "cpu")
    module, prefix, tokenizer = _empty(config, folder)
    weights = _weights(folder / WEIGHTS, prefix)
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise IlBenchError(f"{folder / WEIGHTS}: the weights do not fit {config.type}: {reason}") from None
    _check_fitted(tokenizer, str(folder))
    _check_finite(weights, f"{folder / WEIGHTS}: {prefix}")
    return tokenizer.to(device).eval()


def tokenizer_of(policy: object, name: str) -> Tokenizer | None:
    """The tokenizer inside a policy in memory, fitted, sharing its weights; None for a policy without one.

    Args:
        policy: of type ``il_vqbet``, ``vqbet`` or ``il_bet``, as ``load_tokenizer`` opens, or any with a
            ``Tokenizer`` as its attribute ``tokenizer``.
        name: what an error calls it.

    Raises:
        IlBenchError: its first phase is not over, or a weight is not finite.
    """
    found: object = getattr(policy, "tokenizer", None)
    if not isinstance(found, Tokenizer) and isinstance(policy, VQBeTPolicy):  # LeRobot's own
        found = ResidualVQTokenizer(policy.vqbet.action_head.vqvae_model)
    if not isinstance(found, Tokenizer):  # a tokenizer of language, where a policy reads that
        return None
    _check_fitted(found, name)
    _check_finite(found.state_dict(), f"{name}: its tokenizer's ")
    return found


def _find(spec: str) -> Path:
    """The folder that ``spec`` means; an error names only what has a tokenizer."""
    names = [name for name in zoo_names() if read_config(ZOO / name, "cpu").type in TYPES]
    if spec == EXPERT:
        raise IlBenchError(
            f"{spec}: the planner has no action tokenizer; {GIVE}, such as {' or '.join(names)}."
        )
    return find_checkpoint(spec, names)


def _check_finite(weights: Mapping[str, Tensor], where: str) -> None:
    for name, weight in weights.items():
        if not torch.isfinite(weight).all():
            raise IlBenchError(
                f"{where}{name} holds NaN or infinity; give a checkpoint from before its training diverged."
            )


def _check_fitted(tokenizer: Tokenizer, name: str) -> None:
    if not tokenizer.fitted:
        raise IlBenchError(
            f"{name}: its tokenizer is not trained yet; give a checkpoint from after the first phase."
        )


def _empty(config: PreTrainedConfig, folder: Path) -> tuple[nn.Module, str, Tokenizer]:
    """The module that holds the weights, what they are called by, and the tokenizer around it."""
    with torch.random.fork_rng([]):  # weights that are drawn only to be replaced
        if isinstance(config, VQBeTConfig):  # il_vqbet's is one too
            vqvae = ResumableVqVae(config) if isinstance(config, ILVQBeTConfig) else VqVae(config)
            return vqvae, VQVAE_WEIGHTS, ResidualVQTokenizer(vqvae)
    if isinstance(config, ILBeTConfig):
        kmeans = KMeansTokenizer(config.codebook_size, (config.chunk_size, config.action_feature.shape[0]))
        return kmeans, KMEANS_WEIGHTS, kmeans
    raise IlBenchError(f"{folder}: a policy of type {config.type} has no action tokenizer; {GIVE}.")


def _weights(path: Path, prefix: str) -> dict[str, Tensor]:
    """The tensors of a safetensors file whose names begin with ``prefix``, without it."""
    if not path.is_file():
        found = "not a file" if path.exists() else "missing"
        raise IlBenchError(f"{path}: {found}; a pretrained_model folder holds its weights there.")
    try:
        with safe_open(path, framework="pt") as file:
            names = [name for name in file.keys() if name.startswith(prefix)]  # noqa: SIM118 (no dict)
            return {name.removeprefix(prefix): file.get_tensor(name) for name in names}
    except (OSError, SafetensorError) as error:
        raise IlBenchError(f"{path}: not readable as safetensors ({error}); fetch it again.") from None


@dataclass(frozen=True, eq=False)
class OfPolicy:
    """Chunks as a policy's training gave them to its tokenizer: normalised, relative where it says so.

    Attributes:
        preprocessor, postprocessor: the policy's, of LeRobot.
        relative: whether chunks are relative to the agent where each begins.
    """

    preprocessor: Any
    postprocessor: Any
    relative: bool

    @staticmethod
    def of(policy: LoadedPolicy) -> "OfPolicy":
        """Of a policy in memory."""
        return OfPolicy(policy.preprocessor, policy.postprocessor, _is_relative(policy.policy.config))

    @staticmethod
    def load(spec: str) -> "OfPolicy":
        """Of a checkpoint, whatever the policy sees; `spec` as `load_policy` takes it.

        Raises:
            IlBenchError: no such checkpoint, or it does not say how it normalises.
        """
        folder = find_checkpoint(spec)
        config = read_config(folder, "cpu")
        pre, post = load_processors(folder, config, "cpu")
        return OfPolicy(pre, post, _is_relative(config))

    def chunks(self, seen: Chunks) -> Tensor:
        """As `Coordinates.chunks`, on the policy's device."""
        batch = self.preprocessor({ACTION: seen.actions, OBS_STATE: seen.agents})
        chunks: Tensor = batch[ACTION]
        return chunks - batch[OBS_STATE][:, None] if self.relative else chunks

    def pixels(self, chunks: Tensor, agents: Tensor) -> Tensor:
        """As `Coordinates.pixels`."""
        if self.relative:
            batch = self.preprocessor({ACTION: torch.zeros(len(agents), 1, 2), OBS_STATE: agents})
            chunks = chunks + batch[OBS_STATE][:, None]
        pixels: Tensor = self.postprocessor(chunks).cpu()
        return pixels


def _is_relative(config: PreTrainedConfig) -> bool:
    return bool(getattr(config, "relative_actions", False))
