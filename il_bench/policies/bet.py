"""``il_bet``: Behavior Transformer (Shafiullah et al. 2022) over chunks, from keypoints or an image."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from lerobot.configs import PreTrainedConfig
from lerobot.policies.vqbet.modeling_vqbet import FocalLoss
from lerobot.policies.vqbet.vqbet_utils import GPT
from lerobot.processor import make_default_pre_post_processors
from lerobot.utils.constants import ACTION, OBS_STATE
from torch import Tensor, nn

from il_bench.errors import IlBenchError
from il_bench.policies.chunking import BlockEncoder, ChunkingConfig, ChunkingPolicy, l1_loss
from il_bench.tokenizers import KMeansTokenizer


@PreTrainedConfig.register_subclass("il_bet")
@dataclass
class ILBeTConfig(ChunkingConfig):
    """Fields of `ChunkingConfig`, the k-means tokenizer's and those of LeRobot's minGPT."""

    codebook_size: int = 64  # cluster centres
    offset_loss_weight: float = 10.0  # of the offset's L1 loss beside the focal loss of the centre
    focal_gamma: float = 2.0  # focusing parameter of the focal loss (the paper's section 3.3)
    softmax_temperature: float = 0.1  # of the draw of a centre in a rollout; 0 takes the likeliest
    gpt_block_size: int = 32
    gpt_input_dim: int = 128
    gpt_hidden_dim: int = 128
    gpt_output_dim: int = 128
    gpt_n_layer: int = 4
    gpt_n_head: int = 4
    dropout: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.codebook_size < 2:
            raise ValueError(f"codebook_size is {self.codebook_size}; it must be at least 2.")
        if self.softmax_temperature < 0:
            raise ValueError(f"softmax_temperature is {self.softmax_temperature}; it must not be negative.")
        if 2 * self.n_obs_steps > self.gpt_block_size:
            needed = f"n_obs_steps = {self.n_obs_steps} needs {2 * self.n_obs_steps} tokens"
            raise ValueError(f"gpt_block_size is {self.gpt_block_size}; {needed}.")


make_il_bet_pre_post_processors = make_default_pre_post_processors  # LeRobot looks it up by this name


class ILBeTPolicy(ChunkingPolicy):
    """A minGPT over the observations: it classifies the chunk's k-means centre and regresses its offset.

    The centres (``tokenizer``, in ``state_dict``) are fitted before the first training step: by ``il-bench
    train``, on every chunk of the data. Under ``lerobot-train`` the policy fits them itself at its first
    step, on every chunk of the data set it is built for, or without one on its first batch.
    """

    config_class = ILBeTConfig
    name = "il_bet"

    def __init__(self, config: ILBeTConfig, dataset_meta: Any = None, **kwargs: Any) -> None:
        super().__init__(config)
        config.validate_features()
        self._dataset_meta = dataset_meta
        action_dim = config.action_feature.shape[0]
        width = config.gpt_input_dim
        self.tokenizer = KMeansTokenizer(config.codebook_size, (config.chunk_size, action_dim))
        self.state_projector = nn.Linear(config.input_features[OBS_STATE].shape[0], width)
        self.block_encoder = BlockEncoder(config)
        self.env_projector = nn.Linear(self.block_encoder.feature_dim, width)
        self.gpt = GPT(config)
        self.bin_head = nn.Linear(config.gpt_output_dim, config.codebook_size)
        n_offsets = config.codebook_size * config.chunk_size * action_dim
        self.offset_head = nn.Linear(config.gpt_output_dim, n_offsets)
        self._focal_loss = FocalLoss(gamma=config.focal_gamma)
        self.reset()

    def chunks(self, batch: dict[str, Tensor]) -> Tensor:
        """The chunks (B, W, 2) of a training batch as the tokenizer sees them, relative if so configured."""
        return batch[ACTION] - self.origin(batch)

    def fit_tokenizer(self, batch: dict[str, Tensor], *, seed: int = 0) -> None:
        """Place the cluster centres on the chunks of ``batch`` (the whole data set, normalised)."""
        self.tokenizer.fit(self.chunks(batch), seed=seed)
        self._dataset_meta = None

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        """Focal loss of the centre plus weighted L1 loss of that centre's offset."""
        if not self.tokenizer.fitted:
            meta = self._dataset_meta
            self.fit_tokenizer(batch if meta is None else whole_dataset(meta, self.config))
        targets, offsets = self.tokenizer.encode_with_offset(self.chunks(batch))  # (B, 1), (B, W, 2)
        logits, predicted = self._heads(batch)
        predicted = _of_centres(predicted, targets)
        offset_loss = l1_loss(predicted, offsets, batch[f"{ACTION}_is_pad"])
        bin_loss = self._focal_loss(logits, targets[:, 0])
        loss = bin_loss + self.config.offset_loss_weight * offset_loss
        accuracy = (logits.argmax(dim=-1) == targets[:, 0]).float().mean()
        parts = {"bin_loss": bin_loss, "offset_loss": offset_loss, "bin_accuracy": accuracy}
        return loss, {name: part.item() for name, part in parts.items()}

    def predict(self, batch: dict[str, Tensor]) -> Tensor:
        logits, offsets = self._heads(batch)
        if self.config.softmax_temperature == 0:
            indices = logits.argmax(dim=-1, keepdim=True)  # (B, 1)
        else:
            indices = torch.multinomial(F.softmax(logits / self.config.softmax_temperature, dim=-1), 1)
        return self.tokenizer.decode(indices, _of_centres(offsets, indices)) + self.origin(batch)

    def _heads(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Logits (B, C) of the centres and their offsets (B, C, W, 2)."""
        tokens = torch.stack(
            [self.state_projector(batch[OBS_STATE]), self.env_projector(self.block_encoder(batch))], dim=2
        )  # (B, T, 2, D)
        features = self.gpt(tokens.flatten(1, 2))[:, -1]  # (B, D)
        shape = (self.config.codebook_size, self.config.chunk_size, -1)
        return self.bin_head(features), self.offset_head(features).unflatten(1, shape)


def _of_centres(offsets: Tensor, indices: Tensor) -> Tensor:
    """Pick the offsets (B, W, 2) of the centres ``indices`` (B, 1) from all (B, C, W, 2)."""
    return offsets[torch.arange(len(indices), device=indices.device), indices[:, 0]]


def whole_dataset(meta: Any, config: ILBeTConfig) -> dict[str, Tensor]:
    """Every frame's action chunk (N, W, 2) and the agent's position (N, 1, 2), normalised as in training.

    Past the end of its episode a chunk repeats the last action, as LeRobot's do. IlBenchError if the data
    files of ``meta``, a ``LeRobotDatasetMetadata``, are not on this machine.
    """
    import pandas as pd  # half a second, which only this function needs

    columns = [ACTION, OBS_STATE, "episode_index", "index"]
    try:
        table = pd.read_parquet(Path(meta.root) / "data", columns=columns).sort_values("index")
    except (OSError, ValueError):
        raise IlBenchError(
            f"{meta.root}: no data/*/*.parquet to fit the tokenizer on; copy the data set again."
        ) from None
    episodes = table["episode_index"].to_numpy()
    ends = np.searchsorted(episodes, episodes, side="right")  # (N,) one past the episode's last frame
    steps = np.arange(len(table))[:, None] + np.arange(config.chunk_size)
    windows = np.minimum(steps, ends[:, None] - 1)  # (N, W)
    preprocessor, _ = make_default_pre_post_processors(config, meta.stats)
    actions, states = (
        torch.from_numpy(np.stack(table[key].to_list()).astype(np.float32)) for key in (ACTION, OBS_STATE)
    )
    batch = preprocessor({ACTION: actions[windows], OBS_STATE: states[:, None]})
    return {key: batch[key] for key in (ACTION, OBS_STATE)}
