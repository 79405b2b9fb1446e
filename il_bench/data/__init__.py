"""Demonstrations of PushT: every source ends in one LeRobotDataset, batches come out of memory."""

from il_bench.data.sources import open_dataset
from il_bench.data.windows import Windows

__all__ = ["Windows", "open_dataset"]
