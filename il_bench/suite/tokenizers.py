"""What test_tokenizers.py measures: how well a policy's tokenizer keeps the demonstrations' actions."""

import torch
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from torch import Tensor

from il_bench.dataset import Windows
from il_bench.policies.loading import LoadedPolicy
from il_bench.policies.modeling_vqbet import ILVQBeTPolicy
from il_bench.report.schema import Tokenizer as Row
from il_bench.tokenizers import Tokenizer
from il_bench.train import BATCH_KEYS, delta_timestamps

N_WINDOWS = 2000


def measure(policy: LoadedPolicy, tokenizer: Tokenizer, dataset: LeRobotDataset) -> tuple[Row, float]:
    """Encode and decode chunks of the dataset as the policy's training saw them.

    Returns the row, and what the mean chunk alone, without any tokens, gets wrong in px.
    """
    chunks = demonstrated(policy, dataset, N_WINDOWS)
    with torch.inference_mode():
        indices = tokenizer.encode(chunks)
        # All go through the same map from normalised actions to px, so that its offset falls out.
        pixels, decoded, mean = (
            policy.postprocessor(each).cpu()
            for each in (chunks, tokenizer.decode(indices), chunks.mean(dim=0, keepdim=True))
        )
    row = described(policy.name, tokenizer, indices.cpu(), decoded - pixels)
    return row, float((mean - pixels).abs().mean())


def described(name: str, tokenizer: Tokenizer, indices: Tensor, error: Tensor) -> Row:
    """The row for tokens (N, G) and what is lost in px (N, W, A)."""
    shares = [column.bincount(minlength=tokenizer.codebook_size) / len(column) for column in indices.T]
    entropies = [float(torch.special.entr(share).sum()) for share in shares]
    return Row(
        tokenizer=f"{name}: {type(tokenizer).__name__.removesuffix('Tokenizer')}",
        codebook_size=tokenizer.codebook_size,
        num_quantizers=tokenizer.num_quantizers,
        bits_per_chunk=tokenizer.bits_per_chunk,
        l1_px=float(error.abs().mean()),
        usage=sum(float((share > 0).float().mean()) for share in shares) / len(shares),
        perplexity=sum(float(torch.tensor(entropy).exp()) for entropy in entropies) / len(entropies),
    )


def demonstrated(policy: LoadedPolicy, dataset: LeRobotDataset, n: int) -> Tensor:
    """About n whole chunks (N, W, A) spread evenly over the dataset, as the tokenizer takes them."""
    windows = Windows(dataset, delta_timestamps(policy.policy.config, dataset.fps))
    frames = torch.linspace(0, len(windows) - 1, min(n, len(windows))).round().long()
    raw = windows.batch(frames)
    whole = ~raw["action_is_pad"].any(dim=1)
    batch = policy.preprocessor({key: raw[key][whole] for key in BATCH_KEYS})
    if isinstance(policy.policy, ILVQBeTPolicy):
        return policy.policy.vqbet.target_chunks(batch).flatten(0, 1)
    chunks: Tensor = policy.policy.chunks(batch)
    return chunks
