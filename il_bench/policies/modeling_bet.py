"""``il_bet``: Behavior Transformer (Shafiullah et al. 2022) over chunks, from keypoints or an image."""

from typing import Any

import torch
import torch.nn.functional as F
from lerobot.policies.vqbet.modeling_vqbet import FocalLoss
from lerobot.policies.vqbet.vqbet_utils import GPT
from lerobot.utils.constants import ACTION, OBS_STATE
from torch import Tensor, nn

from il_bench.policies.chunk_data import whole_dataset
from il_bench.policies.configuration_bet import ILBeTConfig
from il_bench.policies.images import BlockEncoder
from il_bench.policies.keypoints import KeypointsPolicy
from il_bench.tokenizers import KMeansTokenizer


class ILBeTPolicy(KeypointsPolicy):
    """A minGPT over the observations; the last token's features choose a centre and its offset.

    The centres (``tokenizer``, in ``state_dict``) must be fitted before the first training step;
    ``il-bench train`` does it on every chunk of the data. Under ``lerobot-train`` a policy that was not
    fitted does it itself at its first step, on every chunk of the data set it is built for, or else on its
    first batch.
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
        self.offset_head = nn.Linear(
            config.gpt_output_dim, config.codebook_size * config.chunk_size * action_dim
        )
        self._focal_loss = FocalLoss(gamma=config.focal_gamma)
        self.reset()

    def chunks(self, batch: dict[str, Tensor]) -> Tensor:
        """What the tokenizer sees of a training batch: its chunks (B, W, 2), relative where configured."""
        chunks = batch[ACTION]
        return chunks - batch[OBS_STATE][:, -1:] if self.config.relative_actions else chunks

    def fit_tokenizer(self, batch: dict[str, Tensor], *, seed: int = 0) -> None:
        """Place the cluster centres on the chunks of ``batch`` (the whole data set, normalised)."""
        self.tokenizer.fit(self.chunks(batch), seed=seed)
        self._dataset_meta = None

    def _fitting_data(self) -> dict[str, Tensor] | None:
        if self._dataset_meta is None:
            return None
        return whole_dataset(self._dataset_meta, self.config, self.config.chunk_size)

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        """Focal loss of the centre plus weighted L1 loss of that centre's offset."""
        if not self.tokenizer.fitted:
            self.fit_tokenizer(self._fitting_data() or batch)
        targets, offsets = self.tokenizer.encode_with_offset(self.chunks(batch))  # (B, 1), (B, W, 2)
        logits, predicted = self._heads(batch)
        rows = torch.arange(len(targets), device=targets.device)
        inside = ~batch[f"{ACTION}_is_pad"]  # (B, W)
        offset_error = (predicted[rows, targets[:, 0]] - offsets).abs().mean(dim=-1)
        offset_loss = (offset_error * inside).sum() / inside.sum().clamp_min(1)
        bin_loss = self._focal_loss(logits, targets[:, 0])
        loss = bin_loss + self.config.offset_loss_weight * offset_loss
        accuracy = (logits.argmax(dim=-1) == targets[:, 0]).float().mean()
        return loss, {
            "bin_loss": bin_loss.item(),
            "offset_loss": offset_loss.item(),
            "bin_accuracy": accuracy.item(),
        }

    def predict(self, batch: dict[str, Tensor]) -> Tensor:
        logits, offsets = self._heads(batch)
        indices = self._draw(logits)  # (B, 1)
        rows = torch.arange(len(indices), device=indices.device)
        chunk = self.tokenizer.decode(indices, offsets[rows, indices[:, 0]])
        return chunk + batch[OBS_STATE][:, -1:] if self.config.relative_actions else chunk

    def _heads(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Logits (B, C) of the centres and their offsets (B, C, W, 2)."""
        tokens = torch.stack(
            [self.state_projector(batch[OBS_STATE]), self.env_projector(self.block_encoder(batch))], dim=2
        )  # (B, T, 2, D)
        features = self.gpt(tokens.flatten(1, 2))[:, -1]  # (B, D)
        offsets = self.offset_head(features).unflatten(
            1, (self.config.codebook_size, self.config.chunk_size, -1)
        )
        return self.bin_head(features), offsets

    def _draw(self, logits: Tensor) -> Tensor:
        if self.config.softmax_temperature == 0:
            return logits.argmax(dim=-1, keepdim=True)
        return torch.multinomial(F.softmax(logits / self.config.softmax_temperature, dim=-1), 1)
