"""The tokenizers that the suite fits, on all episodes that are not held out (`il_bench.data.chunks`)."""

import time
from collections.abc import Callable
from functools import cache

import pytest
from lerobot.policies.vqbet.modeling_vqbet import VqVae

from il_bench.data import chunks, open_dataset
from il_bench.machine import one_thread
from il_bench.suite.reconstruction import FittedTokenizer
from il_bench.tokenizers import (
    FSQTokenizer,
    KMeansTokenizer,
    ResidualVQTokenizer,
    Tokenizer,
    UniformBinsTokenizer,
    VQVAETokenizer,
)

CHUNK_SHAPE = (5, 2)  # of the embedded bet and vqbet
SEED = 0


class AsLeRobotTrains(ResidualVQTokenizer):
    """A residual VQ fitted as LeRobot does: counts of code use start at 0, and no code is revived."""

    def _untrained(self) -> VqVae:
        return VqVae(self.vqvae.config)


#: Makes each tokenizer of `tokenizer_names`; the residual VQ is as large as the embedded vqbet's.
NEW: dict[str, Callable[[], Tokenizer]] = {
    "uniform bins 256": lambda: UniformBinsTokenizer(256, CHUNK_SHAPE),
    "k-means 64": lambda: KMeansTokenizer(64, CHUNK_SHAPE),
    "k-means 512": lambda: KMeansTokenizer(512, CHUNK_SHAPE),
    "residual VQ 16+16, as LeRobot trains it": lambda: AsLeRobotTrains.new(16, CHUNK_SHAPE),
    "residual VQ 16+16": lambda: ResidualVQTokenizer.new(16, CHUNK_SHAPE),
    "VQ-VAE 256": lambda: VQVAETokenizer(256, CHUNK_SHAPE),
    "VQ-VAE 512": lambda: VQVAETokenizer(512, CHUNK_SHAPE),
    "FSQ 8x6x5": lambda: FSQTokenizer((8, 6, 5), CHUNK_SHAPE),
    "FSQ 8x8x8": lambda: FSQTokenizer((8, 8, 8), CHUNK_SHAPE),
}


demonstrations = cache(open_dataset)


@cache
def held_out(source: str, chunk_size: int) -> chunks.Chunks:
    """The chunks that every tokenizer of this size is measured on."""
    return chunks.cut(demonstrations(source), chunk_size, held_out=True)


@cache
def fitted(name: str, source: str, make: Callable[[], Tokenizer] | None = None) -> FittedTokenizer:
    """A tokenizer of NEW, or a project's from `make`, fitted once on all episodes that are not held out.

    The fit runs on one thread, so its seconds are one core's. The test fails if `make` returns no tokenizer,
    or one whose chunks are not (steps, 2).
    """
    coordinates, tokenizer = chunks.FromTheAgent(), (make or NEW[name])()
    problem = None
    if not isinstance(tokenizer, Tokenizer):
        problem = f"{tokenizer!r} is not an il_bench.tokenizers.Tokenizer; register a function that makes one"
    elif len(tokenizer.chunk_shape) != 2 or tokenizer.chunk_shape[1] != 2:
        problem = f"chunk_shape is {tuple(tokenizer.chunk_shape)}; chunks of PushT are (steps, 2)"
    if problem is not None:
        raise pytest.fail.Exception(f"tokenizer {name!r}: {problem}", pytrace=False)
    learned_from = chunks.cut(demonstrations(source), tokenizer.chunk_shape[0], held_out=False)
    start = time.process_time()
    with one_thread():
        tokenizer.fit(coordinates.chunks(learned_from), seed=SEED)
    seconds = time.process_time() - start
    n_episodes = len(learned_from.episodes.unique())
    return FittedTokenizer(name, tokenizer, coordinates, f"{n_episodes} other episodes", seconds)
