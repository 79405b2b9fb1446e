"""Finished evaluations on disk, so that an interrupted run can be resumed.

One file a policy, in the report folder, named after everything its episodes depend on: another checkpoint,
other seeds or another environment never find it.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from il_bench.errors import IlBenchError
from il_bench.report.schema import write_whole
from il_bench.rollout import Outcomes

FOLDER = "journal"


def entry(report: Path, sha256: str, seeds: Sequence[int], fingerprint: Mapping[str, Any]) -> Path:
    """Return the file of one evaluation below the report folder."""
    key = {"sha256": sha256, "seeds": list(seeds), "fingerprint": dict(fingerprint)}
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    return report / FOLDER / f"{digest[:32]}.json"


def keep(path: Path, outcomes: Outcomes) -> None:
    """Write a finished evaluation, whole or not at all."""
    content = {"seconds": outcomes.seconds, "episodes": outcomes.to_records()}
    write_whole(path, json.dumps(content).encode())


def recall(path: Path) -> Outcomes | None:
    """Return what `keep` wrote there, None if it wrote nothing; IlBenchError for a damaged file."""
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return Outcomes.from_records(content["episodes"], content["seconds"])
    except (ValueError, KeyError, TypeError) as error:
        raise IlBenchError(f"{path}: damaged journal ({error}); delete it to start over") from error
