"""A policy's name, folder or Hub id -> its files, each read once -> the policy, ready to be rolled out."""

from il_bench.policies.checkpoint.loaded import (
    PROCESSORS,
    WEIGHTS,
    ZOO,
    LoadedPolicy,
    PolicyLoader,
    checkpoint_sha256,
    data_of,
    find_checkpoint,
    load_policy,
    load_processors,
    read_config,
    track_of,
    wrap,
    wrap_object,
    zoo_names,
)

__all__ = [
    "PROCESSORS",
    "WEIGHTS",
    "ZOO",
    "LoadedPolicy",
    "PolicyLoader",
    "checkpoint_sha256",
    "data_of",
    "find_checkpoint",
    "load_policy",
    "load_processors",
    "read_config",
    "track_of",
    "wrap",
    "wrap_object",
    "zoo_names",
]
