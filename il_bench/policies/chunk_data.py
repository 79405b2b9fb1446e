"""All chunks of a data set, for what has to be fitted before the first step that ``lerobot-train`` makes."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from lerobot.configs import PreTrainedConfig
from lerobot.processor import make_default_pre_post_processors
from lerobot.utils.constants import ACTION, OBS_STATE
from torch import Tensor

from il_bench.errors import IlBenchError


def whole_dataset(meta: Any, config: PreTrainedConfig, chunk_size: int) -> dict[str, Tensor]:
    """Every frame's action chunk (N, W, 2) and agent's place (N, 1, 2), normalised as in training.

    Args:
        meta: a ``LeRobotDatasetMetadata`` whose data files are on this machine.
        config: of the policy; its ``normalization_mapping`` is used.
        chunk_size: W; past the end of its episode a chunk repeats the last action, as LeRobot's do.

    Raises:
        IlBenchError: the data set has no data files here.
    """
    files = sorted((Path(meta.root) / "data").glob("*/*.parquet"))
    if not files:
        raise IlBenchError(
            f"{meta.root}: no data/*/*.parquet to fit the tokenizer on; copy the data set again."
        )
    columns = [ACTION, OBS_STATE, "episode_index", "index"]
    table = pd.concat([pd.read_parquet(path, columns=columns) for path in files]).sort_values("index")
    episodes = table["episode_index"].to_numpy()
    ends = np.searchsorted(episodes, episodes, side="right")  # (N,) one past the episode's last frame
    frames = np.arange(len(table))
    windows = np.minimum(frames[:, None] + np.arange(chunk_size), ends[:, None] - 1)  # (N, W)
    preprocessor, _ = make_default_pre_post_processors(config, meta.stats)
    batch: dict[str, Tensor] = preprocessor(
        {
            ACTION: torch.from_numpy(np.stack(table[ACTION].to_list()).astype(np.float32)[windows]),
            OBS_STATE: torch.from_numpy(np.stack(table[OBS_STATE].to_list()).astype(np.float32))[:, None],
        }
    )
    return {key: batch[key] for key in (ACTION, OBS_STATE)}
