"""What test_throughput.py and test_latency.py time, on one thread as rollouts do."""

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from il_bench.policies.loading import LoadedPolicy
from il_bench.pusht.batch import PushTBatch
from il_bench.report.schema import Latency
from il_bench.tokenizers import Tokenizer

FIRST_SEED = 100_000
MOST_CALLS, FEWEST_CALLS = 100, 20
SECONDS = 3.0  # a slow policy is called less often
WARM_UP = 3

Call = Callable[[], object]


def observations(batch: int) -> dict[str, Tensor]:
    """The simulator's raw start observations of `batch` episodes."""
    worlds = PushTBatch()
    worlds.reset(np.arange(FIRST_SEED, FIRST_SEED + batch))
    return {key: torch.from_numpy(value) for key, value in worlds.observations().items()}


def acting(policy: LoadedPolicy, batch: int) -> tuple[Call, int]:
    """A call that takes all actions of one prediction, and how many those are, over the batch."""
    n_steps = int(getattr(policy.policy.config, "n_action_steps", 1))
    seen = observations(batch)
    policy.reset()

    def act() -> None:
        for _ in range(n_steps):
            policy.select_action(seen)

    return act, n_steps * batch


def coding(tokenizer: Tokenizer, batch: int) -> dict[str, Call]:
    """Calls that encode and that decode a batch of random chunks."""
    generator = torch.Generator().manual_seed(0)
    chunks = torch.randn(batch, *tokenizer.chunk_shape, generator=generator)
    device = next(iter(tokenizer.state_dict().values())).device
    chunks = chunks.to(device)
    with torch.inference_mode():
        indices = tokenizer.encode(chunks)
    return {"encode": lambda: tokenizer.encode(chunks), "decode": lambda: tokenizer.decode(indices)}


def rounds(call: Call) -> int:
    """How often to time a call so that it takes about SECONDS; warms it up."""
    with one_thread():
        call()
        start = time.perf_counter()
        call()
        taken = time.perf_counter() - start
    return max(FEWEST_CALLS // 4, min(MOST_CALLS, int(SECONDS / taken)))


def latency(policy: LoadedPolicy, batch: int, device: str) -> Latency:
    """Time first actions of an episode, each of which waits for a prediction and arrives on the CPU."""
    seen = observations(batch)
    on_cuda = torch.device(device).type == "cuda"
    times: list[float] = []
    with one_thread():
        while len(times) < WARM_UP + MOST_CALLS:
            if len(times) == WARM_UP and on_cuda:
                torch.cuda.reset_peak_memory_stats(device)
            policy.reset()
            start = time.perf_counter()
            policy.select_action(seen)
            times.append(time.perf_counter() - start)
            if len(times) >= WARM_UP + FEWEST_CALLS and sum(times) > SECONDS:
                break
    kept = times[WARM_UP:]
    percentiles = statistics.quantiles(kept, n=100, method="inclusive")
    return Latency(
        policy=policy.name,
        what="first select_action",
        batch=batch,
        device=device,
        mode="eager, 1 thread",
        n=len(kept),
        p50_ms=1e3 * percentiles[49],
        p90_ms=1e3 * percentiles[89],
        p99_ms=1e3 * percentiles[98],
        peak_memory_mb=torch.cuda.max_memory_allocated(device) / 1e6 if on_cuda else None,
    )


@contextmanager
def one_thread() -> Iterator[None]:
    """Run torch on one thread, and without gradients."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            yield
    finally:
        torch.set_num_threads(before)
