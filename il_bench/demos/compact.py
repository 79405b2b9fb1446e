"""Make a LeRobotDataset's files small, and the same from run to run."""

import json
from pathlib import Path

import pyarrow.parquet as pq

from il_bench.files import write_whole

_LEVEL = 12  # of zstd; higher levels save another 1 %


def compact(root: Path) -> None:
    """Rewrite the files of a dataset in the new folder `root`, half as large as LeRobot writes them.

    Coordinates hardly ever repeat, so the dictionaries that LeRobot writes cost more than they save. Data
    keep one row group an episode, as LeRobot wants them. The order of features in stats.json is that of a
    Python set, another in every process: here they are sorted.
    """
    for path in sorted(root.glob("data/*/*.parquet")):
        _rewrite(path, keep_groups=True)
    for path in sorted(root.glob("meta/episodes/*/*.parquet")):
        _rewrite(path, keep_groups=False)
    stats = root / "meta" / "stats.json"
    write_whole(stats, json.dumps(json.loads(stats.read_bytes()), indent=4, sort_keys=True).encode())


def _rewrite(path: Path, keep_groups: bool) -> None:
    with pq.ParquetFile(path) as file:
        n_groups = file.num_row_groups
        tables = [file.read_row_group(i) for i in range(n_groups)] if keep_groups else [file.read()]
    how = {
        "compression": "zstd",
        "compression_level": _LEVEL,
        "use_dictionary": False,
        "write_statistics": False,
    }
    smaller = path.with_suffix(".smaller")
    with pq.ParquetWriter(smaller, tables[0].schema, **how) as writer:
        for table in tables:
            writer.write_table(table)
    smaller.replace(path)
