"""Demonstrations of PushT: every source ends in one LeRobotDataset, batches come out of memory."""

from il_bench.dataset.sources import open_dataset
from il_bench.dataset.windows import Windows

__all__ = ["Windows", "open_dataset"]
