"""il_bench: a pytest plugin that says how good and how fast an imitation-learning policy is on PushT."""

__version__ = "0.1.0"
