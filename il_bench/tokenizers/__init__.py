"""Action tokenizers: continuous chunks of actions in, integer tokens out, and back."""

from il_bench.tokenizers.base import Tokenizer
from il_bench.tokenizers.bins import UniformBinsTokenizer
from il_bench.tokenizers.fsq import FSQTokenizer
from il_bench.tokenizers.kmeans import KMeansTokenizer
from il_bench.tokenizers.residual_vq import ResidualVQTokenizer
from il_bench.tokenizers.vqvae import VQVAETokenizer

__all__ = [
    "FSQTokenizer",
    "KMeansTokenizer",
    "ResidualVQTokenizer",
    "Tokenizer",
    "UniformBinsTokenizer",
    "VQVAETokenizer",
]
