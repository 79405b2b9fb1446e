"""Demonstrations of PushT: every source becomes a LeRobotDataset, and its windows are cut in memory."""

from il_bench.data.sources import open_dataset
from il_bench.data.windows import Windows

__all__ = ["Windows", "open_dataset"]
