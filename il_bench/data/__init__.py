"""Demonstrations of PushT: every source becomes a LeRobotDataset, and its windows are cut in memory.

Importing it imports no LeRobot: the names below are resolved when they are first used.
"""

from typing import TYPE_CHECKING

from il_bench import lazily

if TYPE_CHECKING:
    from il_bench.data.sources import open_dataset as open_dataset
    from il_bench.data.windows import Windows as Windows

__all__ = ["Windows", "open_dataset"]
__getattr__ = lazily(__name__, {"Windows": "il_bench.data.windows", "open_dataset": "il_bench.data.sources"})
