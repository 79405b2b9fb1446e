"""Action tokenizers: continuous chunks of actions in, integer tokens out, and back."""

from il_bench.tokenizers.base import Tokenizer
from il_bench.tokenizers.kmeans import KMeansTokenizer
from il_bench.tokenizers.residual_vq import ResidualVQTokenizer

__all__ = ["KMeansTokenizer", "ResidualVQTokenizer", "Tokenizer"]
