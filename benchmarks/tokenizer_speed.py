"""How fast does residual VQ code chunks? LeRobot's own code and ours in turn, on the same weights and chunks.

The tokenizer is that of a VQ-BeT checkpoint, by default the shipped one; the chunks are windows of PushT
demonstrations, as its policy's training saw them. Every round times LeRobot's ``get_code`` and decoder, ours,
and the floor, which is the matrix products of the encoder (the decoder) alone, one after the other, so that a
busy machine slows all alike. Prints medians of processor time on one core, and the median over the rounds of
the ratio with its quartiles.

Tokens are compared too. A row is exempt where its best two codes, by float64, have squared distances within
64 eps of the sum of the squares that LeRobot adds up: there rounding decides, in LeRobot's code between one
batch size and another as well. Exits 1 when tokens differ in any other row, or a ratio is below its target.
"""

import statistics
import sys
import time
from collections.abc import Callable

import torch
import typer
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from il_bench.data import Windows
from il_bench.data.sources import open_dataset
from il_bench.policies.checkpoint import load_policy
from il_bench.policies.tokenizers import load_tokenizer
from il_bench.tokenizers import ResidualVQTokenizer
from il_bench.train.batches import BATCH_KEYS, delta_timestamps

Call = Callable[[], object]
BATCHES = (1, 64, 1024, 16384)
TARGETS = {"encode": (5.0, 5.0, 2.5, 2.5), "decode": (2.0, 2.0, 2.0, 2.0)}
EXEMPT = 64 * torch.finfo(torch.float32).eps
SECONDS = 0.02  # that each contender runs for at least in a round


def demonstrated(spec: str, data: str, n: int) -> Tensor:
    """``n`` chunks (n, W, A) out of demonstrations, in random order, as the policy's training saw them."""
    policy = load_policy(spec)
    dataset = open_dataset(data)
    windows = Windows(dataset, delta_timestamps(policy.policy.config, dataset.fps))
    raw = windows.batch(torch.arange(len(windows)))
    batch = policy.preprocessor({key: raw[key] for key in BATCH_KEYS})
    chunks: Tensor = policy.policy.vqbet.target_chunks(batch).flatten(0, 1)
    rows = torch.randperm(len(chunks), generator=torch.Generator().manual_seed(0))
    return chunks[rows.repeat(-(-n // len(rows)))[:n]].contiguous()


def exempt_rows(tokenizer: ResidualVQTokenizer, chunks: Tensor, tokens: Tensor) -> Tensor:
    """Whether rounding may decide at some stage of a row (N,), given the ``tokens`` (N, G) before it."""
    residual = chunks.flatten(1).double()
    for number, layer in enumerate(x for x in tokenizer.vqvae.encoder if isinstance(x, nn.Linear)):
        residual = residual.relu() if number else residual
        residual = residual @ layer.weight.double().T + layer.bias.double()
    close = torch.zeros(len(chunks), dtype=torch.bool)
    for stage, codes in enumerate(tokenizer.vqvae.vq_layer.codebooks.double()):  # (C, D)
        distances = torch.cdist(residual, codes).square()
        (best, second), sizes = distances.topk(2, largest=False).values.T, codes.square().sum(1).max()
        close |= second - best <= EXEMPT * (residual.square().sum(1) + sizes)
        residual = residual - codes[tokens[:, stage]]
    return close


def products(network: nn.Module, n: int) -> Call:
    """The matrix products of ``network`` alone, on ``n`` rows."""
    weights = [layer.weight.detach().T for layer in network.children() if isinstance(layer, nn.Linear)]
    given = torch.ones(n, len(weights[0]))

    def multiply() -> None:
        found = given
        for weight in weights:
            found = found @ weight

    return multiply


def timed(calls: dict[str, Call], rounds: int) -> dict[str, list[float]]:
    """Seconds of processor time for one call of each, for each of the rounds."""
    repeats = {}
    for name, call in calls.items():
        call()
        start = time.perf_counter()
        call()
        repeats[name] = max(1, round(SECONDS / (time.perf_counter() - start)))
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            call()  # what it needs lies in the caches again
            start = time.process_time()
            for _ in range(repeats[name]):
                call()
            seconds[name].append((time.process_time() - start) / repeats[name])
    return seconds


def contenders(tokenizer: ResidualVQTokenizer, way: str, chunks: Tensor) -> dict[str, Call]:
    """LeRobot's way, ours and the floor."""
    tokens = tokenizer.encode(chunks)
    if way == "encode":
        theirs: Call = lambda: tokenizer.vqvae.get_code(chunks)  # noqa: E731
        return {
            "LeRobot": theirs,
            "ours": lambda: tokenizer.encode(chunks),
            "floor": products(tokenizer.vqvae.encoder, len(chunks)),
        }
    vqvae = tokenizer.vqvae
    return {
        "LeRobot": lambda: vqvae.get_action_from_latent(vqvae.get_embeddings_from_code(tokens)),
        "ours": lambda: tokenizer.decode(tokens),
        "floor": products(vqvae.decoder, len(chunks)),
    }


def row(way: str, n: int, seconds: dict[str, list[float]], target: float) -> tuple[list[str], bool]:
    """A line of the table, and whether the target is reached."""
    ratios = [theirs / ours for theirs, ours in zip(seconds["LeRobot"], seconds["ours"], strict=True)]
    low, median, high = statistics.quantiles(ratios, n=4)
    times = [f"{1e6 * statistics.median(seconds[name]):,.0f}" for name in ("LeRobot", "ours", "floor")]
    return [way, f"{n:,}", *times, f"{median:.1f} [{low:.1f}, {high:.1f}]", f"{target:g}"], median >= target


def main(checkpoint: str = "vqbet", data: str = "expert", rounds: int = 15) -> None:
    """Time the tokenizer of CHECKPOINT on chunks of the demonstrations DATA over ROUNDS rounds."""
    torch.set_num_threads(1)
    tokenizer = load_tokenizer(checkpoint)
    assert isinstance(tokenizer, ResidualVQTokenizer), f"{checkpoint} is no VQ-BeT"
    every = demonstrated(checkpoint, data, max(BATCHES))
    table = Table("", "batch", "LeRobot, µs", "ours, µs", "floor, µs", "ratio [quartiles]", "at least")
    agreement, right = [], True
    with torch.inference_mode():
        for way, targets in TARGETS.items():
            for n, target in zip(BATCHES, targets, strict=True):
                cells, reached = row(way, n, timed(contenders(tokenizer, way, every[:n]), rounds), target)
                table.add_row(*cells)
                right &= reached
        for n in BATCHES:
            parts = every.split(n)[: max(1, 1024 // n)]
            ours = torch.cat([tokenizer.encode(part) for part in parts])
            theirs = torch.cat([tokenizer.reference_encode(part) for part in parts])
            exempt = exempt_rows(tokenizer, torch.cat(parts), theirs)
            different = (ours != theirs).any(dim=1)
            agreement.append(
                f"batch {n:,}: {len(ours):,} rows, tokens differ in {int((different & ~exempt).sum())}; "
                f"{int(exempt.sum())} exempt, {int((different & exempt).sum())} of them differ"
            )
            right &= not bool((different & ~exempt).any())
    Console(width=100).print(table, *agreement, sep="\n")
    sys.exit(not right)


if __name__ == "__main__":
    typer.run(main)
