"""``il_vqbet``: LeRobot's VQ-BeT (Lee et al. 2024) on keypoints.

Residual VQ, minGPT, heads and losses are LeRobot's classes. Two things differ. The observation tokens are of
keypoints; LeRobot demands an image. And a first phase can be saved and resumed: the count of its steps lives
in ``state_dict``, and a frozen residual VQ stays in eval mode when ``train()`` is called again.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from lerobot.configs import NormalizationMode, PreTrainedConfig
from lerobot.policies.vqbet.configuration_vqbet import VQBeTConfig
from lerobot.policies.vqbet.modeling_vqbet import GPT, MLP, VQBeTHead, VqVae
from lerobot.processor import make_default_pre_post_processors
from lerobot.utils.constants import ACTION, OBS_ENV_STATE, OBS_STATE
from torch import Tensor, nn

from il_bench.policies.chunking import ChunkingPolicy, check_features, min_max_mapping
from il_bench.tokenizers import ResidualVQTokenizer


@PreTrainedConfig.register_subclass("il_vqbet")
@dataclass
class ILVQBeTConfig(VQBeTConfig):
    """Fields of LeRobot's ``VQBeTConfig``, and those below."""

    n_obs_steps: int = 2
    n_action_pred_token: int = 1
    action_chunk_size: int = 8
    n_action_steps: int = 8  # steps of the chunk that are executed before it predicts again
    # Chunks are relative to the agent's (normalised) position where each begins, so that the residual VQ
    # spends none of its codes on where the agent is.
    relative_actions: bool = True
    # Train secondary head and offsets on the chunk's own primary code, as BeT trains its offsets (Shafiullah
    # et al. 2022, section 3.2). LeRobot trains them on the code that the head has just sampled; offsets that
    # mend a wrong primary code lead to the mean of all moves. The secondary code is sampled either way.
    teach_true_primary: bool = False  # needs `sequentially_select`
    # In the first phase, a code that gets fewer chunks a batch, on average, is replaced by a chunk of the
    # batch. LeRobot's 0 replaces none, and most primary codes stay unused.
    vqvae_revive_below: float = 0.0
    gpt_block_size: int = 32
    discover_packages_path: str | None = None  # unused, as in `ChunkingConfig`
    normalization_mapping: dict[str, NormalizationMode] = field(default_factory=min_max_mapping)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.n_action_steps <= self.action_chunk_size:
            allowed = f"action_chunk_size allows 1 .. {self.action_chunk_size}"
            raise ValueError(f"n_action_steps is {self.n_action_steps}; {allowed}.")
        if self.teach_true_primary and not self.sequentially_select:
            raise ValueError("teach_true_primary is set; it needs sequentially_select = true.")
        n_tokens = 3 * self.n_obs_steps + self.n_action_pred_token - 1
        if n_tokens > self.gpt_block_size:
            raise ValueError(f"gpt_block_size is {self.gpt_block_size}; this policy needs {n_tokens} tokens.")

    def validate_features(self) -> None:
        """Raise ValueError unless the inputs are the agent's state and keypoints, the output an action."""
        check_features(self)


make_il_vqbet_pre_post_processors = make_default_pre_post_processors  # LeRobot looks it up by this name


class ILVQBeTPolicy(ChunkingPolicy):
    """Two phases: residual VQ alone for ``n_vqvae_training_steps``, then GPT, code and offset heads."""

    config_class = ILVQBeTConfig
    name = "il_vqbet"

    def __init__(self, config: ILVQBeTConfig, **kwargs: Any) -> None:
        super().__init__(config)
        config.validate_features()
        self.vqbet = ILVQBeTModel(config)
        self.reset()

    @property
    def tokenizer(self) -> ResidualVQTokenizer:
        """The residual VQ, sharing its weights with this policy."""
        return ResidualVQTokenizer(self.vqbet.action_head.vqvae_model)

    @property
    def trains_residual_vq_only(self) -> bool:
        """Whether the residual VQ is still being trained; until then the policy can predict nothing."""
        return not bool(self.vqbet.action_head.vqvae_model.discretized)

    def predict(self, batch: dict[str, Tensor]) -> Tensor:
        return self.vqbet.predict(batch)

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Any]]:
        """First phase: reconstruction and commitment. Second: focal loss of the codes, L1 of the offset.

        Under autocast only the transformer computes in lower precision: codes are nearest neighbours, and
        LeRobot's update of the codebook takes nothing but float32.
        """
        chunks = self.vqbet.target_chunks(batch)  # (B, T, W, 2)
        if not self.trains_residual_vq_only:
            return self.vqbet.loss(batch, chunks)
        with torch.autocast(chunks.device.type, enabled=False):
            loss, n_codes, n_pairs, error = self.vqbet.action_head.discretize(
                self.config.n_vqvae_training_steps, chunks.flatten(0, 1)
            )
        parts = {"n_different_codes": n_codes, "n_different_combinations": n_pairs, "recon_l1_error": error}
        return loss, parts

    def get_optim_params(self) -> list[dict[str, Any]]:
        """Three groups as in LeRobot's VQ-BeT: decayed, residual VQ with its own rate, not decayed."""
        model, config = self.vqbet, self.config
        vqvae = list(model.action_head.vqvae_model.parameters())
        decay, no_decay = model.policy.configure_parameters()
        heads = [p for n, p in model.action_head.named_parameters() if not n.startswith("vqvae_model.")]
        tokens = [*model.state_projector.parameters(), *model.env_projector.parameters(), model.action_token]
        return [
            {"params": [*decay, *tokens, *heads]},
            {
                "params": vqvae,
                "weight_decay": config.optimizer_vqvae_weight_decay,
                "lr": config.optimizer_vqvae_lr,
            },
            {"params": no_decay, "weight_decay": 0.0},
        ]


class ILVQBeTModel(nn.Module):
    """LeRobot's ``VQBeTModel`` with a token of the keypoints in place of the image's."""

    def __init__(self, config: ILVQBeTConfig) -> None:
        super().__init__()
        self.config = config
        width = config.gpt_input_dim
        self.action_token = nn.Parameter(torch.randn(1, 1, width))  # "A_Q" in LeRobot's drawing
        self.state_projector = MLP(config.input_features[OBS_STATE].shape[0], [width])
        self.env_projector = MLP(config.input_features[OBS_ENV_STATE].shape[0], [width])
        self.policy = GPT(config)
        self.action_head = VQBeTHead(config)
        self.action_head.vqvae_model = ResumableVqVae(config)

    def features(self, batch: dict[str, Tensor]) -> Tensor:
        """GPT's output at each action query, (B, T + n_action_pred_token - 1, D)."""
        batch_size, n_obs_steps = batch[OBS_STATE].shape[:2]
        query = self.action_token.expand(batch_size, n_obs_steps, -1)
        tokens = torch.stack(
            [self.env_projector(batch[OBS_ENV_STATE]), self.state_projector(batch[OBS_STATE]), query], dim=2
        )  # (B, T, 3, D)
        n_future = self.config.n_action_pred_token - 1
        future = self.action_token.expand(batch_size, n_future, -1)
        features = self.policy(torch.cat([tokens.flatten(1, 2), future], dim=1))
        past_and_now = features[:, 2 : 3 * n_obs_steps : 3]
        return torch.cat([past_and_now, features[:, 3 * n_obs_steps :]], dim=1)

    def origins(self, batch: dict[str, Tensor]) -> Tensor:
        """What each chunk is relative to, (B, T + n_action_pred_token - 1, 1, 2); zero for absolute ones."""
        state = batch[OBS_STATE]
        future = state[:, -1:].expand(-1, self.config.n_action_pred_token - 1, -1)
        return torch.cat([state, future], dim=1)[:, :, None] * self.config.relative_actions

    def target_chunks(self, batch: dict[str, Tensor]) -> Tensor:
        """The chunks the queries are to answer, (B, T + n_action_pred_token - 1, W, 2)."""
        chunks = batch[ACTION].unfold(1, self.config.action_chunk_size, 1).transpose(2, 3)
        return chunks.contiguous() - self.origins(batch)

    def loss(self, batch: dict[str, Tensor], chunks: Tensor) -> tuple[Tensor, dict[str, Any]]:
        features = self.features(batch)
        with torch.autocast(chunks.device.type, enabled=False):
            features = features.float()
            taught = self.config.teach_true_primary
            head = self.action_head
            predicted = with_true_primary(head, features, chunks) if taught else head(features)
            losses = self.action_head.loss_fn(predicted, chunks)
        return losses.pop("loss"), losses

    def predict(self, batch: dict[str, Tensor]) -> Tensor:
        """The current step's chunk, (B, W, 2): decoded codes, plus offset, plus the agent's position."""
        now = self.config.n_obs_steps - 1
        predicted = self.action_head(self.features(batch)[:, now : now + 1])["predicted_action"]
        chunk = predicted[:, 0].unflatten(1, (self.config.action_chunk_size, -1))
        return chunk + self.origins(batch)[:, now]  # type: ignore[no-any-return]


def with_true_primary(head: VQBeTHead, features: Tensor, chunks: Tensor) -> dict[str, Tensor]:
    """What ``head`` says of features (B, Q, D), had it sampled the primary codes of chunks (B, Q, W, 2)."""
    config, flat = head.config, features.flatten(0, 1)  # (N, D), N = B * Q
    primary = head.vqvae_model.get_code(chunks.flatten(0, 1))[1][:, 0]  # (N,)
    shown = torch.cat([flat, F.one_hot(primary, config.vqvae_n_embed)], dim=1)
    logits = torch.stack(
        [head.map_to_cbet_preds_primary_bin(flat), head.map_to_cbet_preds_secondary_bin(shown)], dim=1
    )  # (N, 2, C)
    chances = torch.softmax(logits[:, 1] / config.bet_softmax_temperature, dim=-1)
    codes = torch.stack([primary, torch.multinomial(chances, 1)[:, 0]], dim=1)  # (N, 2)
    offsets = head.map_to_cbet_preds_offset(flat)
    offsets = offsets.unflatten(1, (*logits.shape[1:], -1))  # (N, 2, C, W * 2)
    chosen = offsets.gather(2, codes[:, :, None, None].expand(-1, -1, 1, offsets.shape[-1]))
    with torch.no_grad():
        latent = head.vqvae_model.get_embeddings_from_code(codes)
        decoded = head.vqvae_model.get_action_from_latent(latent)  # (N, W, 2)
    predicted = decoded.flatten(1) + chosen.squeeze(2).sum(dim=1)
    return {
        "cbet_logits": logits,
        "predicted_action": predicted.unflatten(0, features.shape[:2]),
        "sampled_centers": codes,
        "decoded_action": decoded,
    }


class ResumableVqVae(VqVae):
    """LeRobot's ``VqVae`` that can be saved in its first phase, revives codes, and stays frozen after it."""

    def __init__(self, config: ILVQBeTConfig) -> None:
        super().__init__(config)
        for stage in self.vq_layer.layers:
            stage._codebook.threshold_ema_dead_code = config.vqvae_revive_below
            stage._codebook.reset_cluster_size = config.vqvae_revive_below

    @property
    def optimized_steps(self) -> int:
        """First-phase steps done; LeRobot keeps it in a plain attribute, so a resumed run starts again."""
        return int(self.n_optimized_steps)

    @optimized_steps.setter
    def optimized_steps(self, value: int) -> None:
        # LeRobot's constructor sets the attribute, and so brings the buffer into being.
        if "n_optimized_steps" not in self._buffers:
            self.register_buffer("n_optimized_steps", torch.tensor(0))
        self.n_optimized_steps.fill_(value)

    def train(self, mode: bool = True) -> "ResumableVqVae":
        """Like ``nn.Module.train``, but a frozen residual VQ stays in eval mode."""
        super().train(mode and not bool(self.discretized))
        return self
