"""A policy's name, folder or Hub id -> one `Checkpoint`, each file read once -> a policy to roll out."""

from il_bench.policies.checkpoint.checkpoint import Checkpoint
from il_bench.policies.checkpoint.loaded_policy import LoadedPolicy, load_policy, wrap, wrap_object

__all__ = ["Checkpoint", "LoadedPolicy", "load_policy", "wrap", "wrap_object"]
