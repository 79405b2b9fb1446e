"""The action tokenizer inside a policy, or inside a checkpoint without the rest of its policy."""

from pathlib import Path

import torch
from lerobot.policies.vqbet.configuration_vqbet import VQBeTConfig
from lerobot.policies.vqbet.modeling_vqbet import VQBeTPolicy, VqVae
from lerobot.processor import AbsoluteActionsProcessorStep
from lerobot.utils.constants import ACTION, OBS_STATE
from torch import Tensor, nn

from il_bench.data.chunks import Chunks
from il_bench.errors import IlBenchError
from il_bench.policies.bet import ILBeTConfig
from il_bench.policies.checkpoint import Checkpoint, LoadedPolicy
from il_bench.policies.checkpoint.weights import check_finite
from il_bench.policies.vqbet import ILVQBeTConfig, ResumableVqVae
from il_bench.protocol import EXPERT
from il_bench.tokenizers import KMeansTokenizer, ResidualVQTokenizer, Tokenizer
from il_bench.zoo import shipped

TYPES = ("il_vqbet", "vqbet", "il_bet")  # of policies that have a tokenizer
GIVE = f"give a checkpoint of type {', '.join(TYPES[:-1])} or {TYPES[-1]}"


def load_tokenizer(spec: str | Path | Checkpoint, *, device: str = "cpu") -> Tokenizer:
    """The tokenizer of a VQ-BeT or BeT checkpoint, fitted and in eval mode.

    Only its own weights are read, so LeRobot's ``vqbet`` opens without its image encoder, whatever it sees
    and whatever robot its actions are for. It encodes chunks as `PolicyCoordinates` gives them.

    spec: of one of `TYPES`, a checkpoint or as `load_policy` takes it. Raises IlBenchError for no such
    checkpoint, no tokenizer in it, weights that do not fit or are not finite, a first phase that is not over.
    """
    checkpoint = spec if isinstance(spec, Checkpoint) else find_with_tokenizer(str(spec))
    module, prefix, tokenizer = _untrained(checkpoint)
    checkpoint.load_into(module, prefix)
    _check_fitted(tokenizer, str(checkpoint.folder))
    return tokenizer.to(device).eval()


def find_with_tokenizer(spec: str) -> Checkpoint:
    """Like `Checkpoint.find`, but an error offers only what has a tokenizer."""
    names = [name for name in shipped() if Checkpoint.find(name).config.type in TYPES]
    if spec == EXPERT:
        raise IlBenchError(
            f"{spec}: the planner has no action tokenizer; {GIVE}, such as {' or '.join(names)}."
        )
    return Checkpoint.find(spec, offered=None if spec in shipped() else names)


def tokenizer_of(policy: object, name: str) -> Tokenizer | None:
    """The tokenizer inside a policy in memory, fitted, sharing its weights; None for a policy without one.

    policy: of one of `TYPES`, or any with a ``Tokenizer`` as its attribute ``tokenizer``. name: what an
    IlBenchError calls it, if its first phase is not over or a weight is not finite.
    """
    found: object = getattr(policy, "tokenizer", None)
    if not isinstance(found, Tokenizer) and isinstance(policy, VQBeTPolicy):  # LeRobot's own
        found = ResidualVQTokenizer(policy.vqbet.action_head.vqvae_model)
    if not isinstance(found, Tokenizer):  # a tokenizer of language, where a policy reads that
        return None
    _check_fitted(found, name)
    check_finite(found.state_dict(), f"{name}: its tokenizer's ")
    return found


def _check_fitted(tokenizer: Tokenizer, name: str) -> None:
    if not tokenizer.fitted:
        raise IlBenchError(
            f"{name}: its tokenizer is not trained yet; give a checkpoint from after the first phase."
        )


def _untrained(checkpoint: Checkpoint) -> tuple[nn.Module, str, Tokenizer]:
    """The module to load the weights into, what their names begin with, and the tokenizer around it."""
    config = checkpoint.config
    with torch.random.fork_rng([]):  # the weights drawn here are replaced
        if isinstance(config, VQBeTConfig):  # il_vqbet's is one too
            vqvae = ResumableVqVae(config) if isinstance(config, ILVQBeTConfig) else VqVae(config)
            return vqvae, "vqbet.action_head.vqvae_model.", ResidualVQTokenizer(vqvae)
    if isinstance(config, ILBeTConfig):
        kmeans = KMeansTokenizer(config.codebook_size, (config.chunk_size, config.action_feature.shape[0]))
        return kmeans, "tokenizer.", kmeans
    raise IlBenchError(
        f"{checkpoint.folder}: a policy of type {config.type} has no action tokenizer; {GIVE}."
    )


class PolicyCoordinates:
    """Chunks as a policy's tokenizer knows them: normalised, and relative to the agent if so configured.

    By `relative_actions` a chunk is relative to where it begins; by processors that add the agent's place, as
    il_bench trains them, each action to the place at its own step. Raises IlBenchError for a checkpoint that
    does not say how it normalises.
    """

    def __init__(self, source: LoadedPolicy | Checkpoint) -> None:
        if isinstance(source, Checkpoint):
            (self._preprocessor, self._postprocessor), config = source.processors, source.config
        else:
            self._preprocessor, self._postprocessor = source.preprocessor, source.postprocessor
            config = source.policy.config
        self._to_the_start = bool(getattr(config, "relative_actions", False))
        self._each_step = any(
            isinstance(step, AbsoluteActionsProcessorStep) and step.enabled
            for step in getattr(self._postprocessor, "steps", ())
        )
        self.relative = self._to_the_start or self._each_step

    def chunks(self, seen: Chunks) -> Tensor:
        """Like `FromTheAgent.chunks`, on the policy's device."""
        places = seen.agents[:, None] if seen.places is None else seen.places
        actions = seen.actions - places if self._each_step else seen.actions
        batch = self._preprocessor({ACTION: actions, OBS_STATE: seen.agents})
        chunks: Tensor = batch[ACTION]
        return chunks - batch[OBS_STATE][:, None] if self._to_the_start else chunks

    def pixels(self, chunks: Tensor, agents: Tensor, places: Tensor | None = None) -> Tensor:
        """Like `FromTheAgent.pixels`."""
        if self.relative:  # the preprocessor also remembers the places that the postprocessor adds
            batch = self._preprocessor({ACTION: torch.zeros(len(agents), 1, 2), OBS_STATE: agents})
            chunks = chunks + batch[OBS_STATE][:, None] if self._to_the_start else chunks
        found: Tensor = self._postprocessor(chunks).cpu()
        return found + (places - agents[:, None]) if self._each_step and places is not None else found
