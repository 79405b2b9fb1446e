"""Read a file of a finished run, in every form that we know.

- `eval_info.json` of `lerobot-eval` (see `finished.lerobot`);
- our `report.json`, a policy of it, and what `il-bench evaluate --output` writes (see `finished.ours`);
- a CSV with the columns `seed` and `success`, `task` if it holds several, and perhaps `max_reward`.
"""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from il_bench.errors import IlBenchError, printable
from il_bench.files import parse_json, read_whole
from il_bench.finished import lerobot, ours
from il_bench.finished.runs import WAY_OUT, FinishedRun, FinishedTask, rewards_of

REPORT = "a report.json"
#: The files that a folder of a run may hold.
_IN_FOLDERS = ("eval_info.json", "report.json")
_WORDS = {"1": True, "true": True, "1.0": True, "0": False, "false": False, "0.0": False}


def read(path: Path, policy: str | None = None) -> FinishedRun:
    """Read a file of a finished run, or the one in its folder.

    policy: whose row of a report. Raises IlBenchError that names the file and the field.
    """
    if path.is_dir():
        found = [path / name for name in _IN_FOLDERS if (path / name).exists()]
        if len(found) != 1:
            holds = "neither {} nor {}" if not found else "both {} and {}"
            raise IlBenchError(f"{path}: holds {holds.format(*_IN_FOLDERS)}; name the file")
        path = found[0]
    if path.suffix.lower() == ".csv":
        run = _csv(path)
    else:
        fields = parse_json(read_whole(path, WAY_OUT), path, WAY_OUT, allow_nan=True)
        run = _json(path, fields, policy)
    if policy is not None and run.form != REPORT:
        raise IlBenchError(f"{path}: {run.form}, which names no policies; leave --policy out")
    if any(task.n == 0 for task in run.tasks) or not run.tasks:
        name = next((task.name for task in run.tasks if task.n == 0), "it")
        raise IlBenchError(f"{path}: {name} holds no episodes; {WAY_OUT}")
    return run


def _json(path: Path, fields: dict[str, Any], policy: str | None) -> FinishedRun:
    if "per_task" in fields or "overall" in fields or "per_episode" in fields:
        return lerobot.run_of(path, fields)
    if "schema" in fields and "success" in fields:
        return FinishedRun(REPORT, (ours.row_of(path, policy),), path)
    if "success_rate" in fields and "n_episodes" in fields:
        return FinishedRun("the output of il-bench evaluate", (ours.evaluation_of(path, fields),), path)
    has = ", ".join(printable(name) for name in list(fields)[:5]) or "nothing"
    raise IlBenchError(f"{path}: not the file of a finished run (its fields: {has}); {WAY_OUT}")


def _csv(path: Path) -> FinishedRun:
    """Read `seed,success`; `seed` may be missing, and columns that nobody asked for are left alone."""
    try:
        text = read_whole(path, WAY_OUT).decode("utf-8-sig")
        lines = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise IlBenchError(f"{path}: not a CSV file in UTF-8 ({error}); {WAY_OUT}") from None
    head = [name.strip().lower() for name in lines[0]] if lines else []
    for name in ("success", "seed", "task"):
        if head.count(name) > 1 or (name == "success" and name not in head):
            what = "occurs twice" if head.count(name) > 1 else "is missing"
            raise IlBenchError(f"{path}: the column {name} {what}; {WAY_OUT}")
    tasks: dict[str, list[tuple[str, dict[str, str]]]] = {}
    policies = set()
    for row, line in enumerate(lines[1:], start=2):
        if not line:
            continue
        if len(line) != len(head):
            raise IlBenchError(
                f"{path}: line {row} has {len(line)} values for {len(head)} columns; {WAY_OUT}"
            )
        cells = dict(zip(head, map(str.strip, line), strict=True))
        policies.add(cells.get("policy"))
        tasks.setdefault(cells.get("task", path.stem), []).append((f"{path}: line {row}", cells))
    if len(policies) > 1:
        raise IlBenchError(f"{path}: the column policy holds several; gate the report.json with --policy")
    found = tuple(_csv_task(path, name, rows) for name, rows in tasks.items())
    return FinishedRun("a CSV of seeds and successes", found, path)


def _csv_task(path: Path, name: str, rows: Sequence[tuple[str, dict[str, str]]]) -> FinishedTask:
    """Return a task from the cells of its episodes, each with the place to name in an error."""
    outcomes = [_success(cells["success"], where) for where, cells in rows]
    seeds = tuple(_seed(cells["seed"], where) for where, cells in rows if "seed" in cells)
    if len(set(seeds)) < len(seeds):
        twice = next(seed for seed in seeds if seeds.count(seed) > 1)
        raise IlBenchError(f"{path}: seed {twice} occurs twice in {printable(name)}; an episode counts once")
    rewards = rewards_of([_reward(cells.get("max_reward", "")) for _, cells in rows], len(rows))
    return FinishedTask.of(name, outcomes, seeds=seeds or None, max_rewards=rewards)


def _reward(word: str) -> float | None:
    try:
        return float(word)
    except ValueError:
        return None


def _success(word: str, where: str) -> bool:
    if word.lower() not in _WORDS:
        raise IlBenchError(f"{where}: success = {word!r:.40}; need 0 or 1, true or false")
    return _WORDS[word.lower()]


def _seed(word: str, where: str) -> int:
    if not word.isascii() or not word.isdigit() or len(word) > 18:
        raise IlBenchError(f"{where}: seed = {word!r:.40}; need a whole number from 0 on")
    return int(word)
