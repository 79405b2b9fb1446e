"""Weights, and nothing to import: `il_bench.zoo.pixels` reads them."""
