"""The short training that the learned tokenizers do in ``fit``."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from il_bench.tokenizers.base import full_precision

BATCH_SIZE = 512
LR, WEIGHT_DECAY = 1e-3, 1e-4
DEAD_SHARE = 0.1


def dead_below(codebook_size: int) -> float:
    """Latents of a batch, on a moving average, below which a code is dead: a tenth of an even share."""
    return DEAD_SHARE * BATCH_SIZE / codebook_size


@contextmanager
def own_randomness(seed: int, device: torch.device) -> Iterator[None]:
    """Switch gradients on and seed torch's generators; restore both afterwards.

    Seeds the CPU's and ``device``'s generator only; ``torch.manual_seed`` would seed those of all GPUs.
    """
    on_cuda = device.type == "cuda"
    with (
        torch.random.fork_rng([device] if on_cuda else []),
        torch.inference_mode(False),
        torch.enable_grad(),
        full_precision(device),
    ):
        torch.default_generator.manual_seed(seed)
        if on_cuda:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield


def train(module: nn.Module, loss_of: Callable[[Tensor], Tensor], chunks: Tensor, steps: int) -> None:
    """Minimise ``loss_of`` over random batches of ``chunks`` (N, W, A) by AdamW, its rate falling to zero.

    Call it within ``own_randomness``: it draws from torch's generators.
    """
    module.train()
    optimizer = torch.optim.AdamW(module.parameters(), lr=LR, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        rows = torch.randint(len(chunks), (BATCH_SIZE,)).to(chunks.device)
        loss = loss_of(chunks[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    module.eval()
