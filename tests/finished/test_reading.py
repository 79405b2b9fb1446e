"""Files of finished runs: LeRobot's of several versions, ours, CSV; right ones and broken ones."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from typer.testing import CliRunner

from il_bench.cli import app
from il_bench.errors import IlBenchError
from il_bench.finished import reading
from il_bench.finished.runs import FinishedRun
from il_bench.report import schema
from tests.finished.made import eval_info, part, row_of, task
from tests.fuzzing import FUZZ, fuzz
from tests.gate.made import episodes
from tests.report.made import report


def gated(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["gate", *map(str, arguments)])


def written(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content) if not isinstance(content, str) else content, encoding="utf-8")
    return path


def test_a_file_of_lerobot_eval_is_read(tmp_path: Path) -> None:
    """As version 0.6.1 writes it for two tasks, a NaN where nothing was counted."""
    info = eval_info({("libero_10", 0): [True, False], ("libero_10", 1): [True, True, True]})
    run = reading.read(written(tmp_path / "eval_info.json", info))
    assert [(each.name, each.successes, each.n) for each in run.tasks] == [
        ("libero_10/0", 1, 2),
        ("libero_10/1", 3, 3),
    ]
    assert run.tasks[0].outcomes == (True, False)
    assert run.tasks[0].seeds is None
    assert reading.read(tmp_path) == run


def test_a_newer_file_says_the_counts_too(tmp_path: Path) -> None:
    info = eval_info({("pusht", 0): [True] * 9 + [False]})
    for place in (info["per_task"][0], info["per_group"]["pusht"], info["overall"]):
        place |= {"n_episodes": 10, "n_success": 9, "pc_success": 90.0, "pc_success_ci95": [59.58, 98.21]}
    path = written(tmp_path / "eval_info.json", info)
    assert (reading.read(path).successes, reading.read(path).n) == (9, 10)
    del info["per_task"][0]["metrics"]  # as summaries have it
    assert reading.read(written(path, info)).tasks[0].successes == 9
    overall = {"overall": {"pc_success": 90.0, "n_episodes": 10}}
    assert reading.read(written(path, overall)).successes == 9


def test_an_older_file_holds_seeds(tmp_path: Path) -> None:
    old = {
        "per_episode": [
            {"episode_ix": i, "max_reward": 1.0, "success": i > 0, "seed": 7 + i} for i in range(4)
        ],
        "aggregated": {"pc_success": 75.0, "avg_sum_reward": float("nan")},
    }
    (read,) = reading.read(written(tmp_path / "eval_info.json", old)).tasks
    assert (read.successes, read.n, read.seeds) == (3, 4, (7, 8, 9, 10))


def test_a_csv_is_read(tmp_path: Path) -> None:
    lines = "\ufeffSeed, success,max_reward\r\n3,1,1.0\r\n4,False,0.5\r\n9,true,1\r\n\r\n"
    (read,) = reading.read(written(tmp_path / "mine.csv", lines)).tasks
    assert (read.name, read.outcomes, read.seeds) == ("mine", (True, False, True), (3, 4, 9))
    several = reading.read(written(tmp_path / "mine.csv", "task,success\na,1\nb,0\na,0\n"))
    assert [(each.name, each.successes, each.n) for each in several.tasks] == [("a", 1, 2), ("b", 0, 1)]


def test_a_policy_of_a_report_is_read(tmp_path: Path) -> None:
    rows = [row_of(episodes([1, 0, 1, 1]), "act"), row_of(episodes([1, 1]), "bet", sequential=True)]
    schema.save(tmp_path / "report.json", report(success=rows))
    (act,) = reading.read(tmp_path / "report.json", "act").tasks
    assert (act.name, act.successes, act.n, act.stops_early) == ("act", 3, 4, False)
    assert act.seeds == (200_000, 200_001, 200_002, 200_003)
    assert reading.read(tmp_path / "report.json", "bet").tasks[0].stops_early
    with pytest.raises(IlBenchError, match=r"holds 2 policies \(act, bet\); name one with --policy"):
        reading.read(tmp_path / "report.json")
    with pytest.raises(IlBenchError, match="--policy dp: it holds act, bet"):
        reading.read(tmp_path / "report.json", "dp")


def test_an_evaluation_is_read(tmp_path: Path) -> None:
    fields = {"policy": "act", "success_rate": {"estimate": 0.29, "low": 0.2, "high": 0.4}, "n_episodes": 100}
    (read,) = reading.read(written(tmp_path / "act.json", fields)).tasks
    assert (read.name, read.successes, read.n) == ("act", 29, 100)


GOOD = eval_info({("pusht", 0): [True, False]})
ONE = GOOD["per_task"][0]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "broken JSON at line 1"),
        ("[]", "holds a list, not an object with fields"),
        ({"a": 1}, "not the file of a finished run (its fields: a); give an eval_info.json"),
        ({"per_task": [], "overall": {}}, "per_task is empty, and overall has no n_episodes and pc_success"),
        ({"per_task": [{**ONE, "metrics": {"successes": []}}]}, "pusht/0 holds no episodes"),
        ({"per_task": [{**ONE, "metrics": {"successes": [None]}}]}, "per_task.0.metrics.successes.0 = None"),
        ({"per_task": [{**ONE, "metrics": {"successes": [0.5]}}]}, "per_task.0.metrics.successes.0 = 0.5"),
        ({"per_task": [ONE, ONE]}, "per_task holds pusht/0 twice"),
        ({"per_task": [{**ONE, "metrics": None}]}, "per_task.0: neither metrics.successes nor n_success"),
        ({**GOOD, "overall": part([True, True])}, "overall.pc_success = 100, but 1 of 2 episodes succeed"),
        (
            {**GOOD, "per_group": {"pusht": part([False] * 3)}},
            "per_group.pusht.n_episodes = 3, but there are 2",
        ),
        ({"per_task": [{**ONE, "n_success": 2}]}, "per_task.0.n_success = 2, but 1 of 2 episodes succeed"),
        (
            {"success_rate": {"estimate": 0.333}, "n_episodes": 10},
            "success_rate.estimate = 0.333 is not a whole number of successes",
        ),
        ({"success_rate": {"estimate": 1.5}, "n_episodes": 10}, "success_rate.estimate = 1.5"),
    ],
)
def test_a_broken_file_is_refused_by_field(tmp_path: Path, content: Any, said: str) -> None:
    result = gated(written(tmp_path / "eval_info.json", content), "--target", "success_rate=0.8")
    assert result.exit_code == 2
    assert result.output.startswith(f"il-bench: {tmp_path / 'eval_info.json'}: ")
    assert said in result.output and result.output.count("\n") == 1


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "the column success is missing"),
        ("seed,success,success\n", "the column success occurs twice"),
        ("seed,success\n1,1\n1,0\n", "seed 1 occurs twice in x"),
        ("seed,success\n1,1\n2\n", "line 3 has 1 values for 2 columns"),
        ("seed,success\n1,0.5\n", "line 2: success = '0.5'; need 0 or 1"),
        ("seed,success\n-1,1\n", "line 2: seed = '-1'; need a whole number"),
        ("seed,success\n", "holds no episodes"),
        ('seed,success\n"1', "not a CSV file in UTF-8"),
        ("policy,success\na,1\nb,1\n", "the column policy holds several"),
    ],
)
def test_a_broken_csv_is_refused_by_line(tmp_path: Path, content: str, said: str) -> None:
    with pytest.raises(IlBenchError, match=r"x\.csv: ") as caught:
        reading.read(written(tmp_path / "x.csv", content))
    assert said in str(caught.value)


def write(path: Path, run: FinishedRun) -> None:
    tasks = []
    for each in run.tasks:
        group, _, number = each.name.rpartition("/")
        made = task(group, number, each.outcomes or ())
        made["metrics"]["max_rewards"] = each.max_rewards
        if each.outcomes is None:
            made |= {"metrics": None, "n_episodes": each.n, "n_success": each.successes}
        tasks.append(made)
    path.write_text(json.dumps({"per_task": tasks}), encoding="utf-8")


@pytest.mark.parametrize("examples", FUZZ)
def test_lerobots_files_have_no_third_outcome(tmp_path: Path, examples: int) -> None:
    info = eval_info({("pusht", 0): [True, False, True], ("pusht", 1): [False, True]})
    info["per_task"][0] |= {"n_episodes": 3, "n_success": 2, "pc_success_ci95": [1.0, 2.0]}
    path = written(tmp_path / "eval_info.json", info)
    about = r"succeed|there are|it has|no episodes|twice|neither|is empty|named fields"
    fuzz(path, reading.read, write, examples=examples, unnamed=about)


def test_columns_of_numbers_are_numpys_too(tmp_path: Path) -> None:
    """As pandas and numpy write flags."""
    lines = ["seed,success", *(f"{i},{np.bool_(i % 2)}" for i in range(4))]
    assert reading.read(written(tmp_path / "x.csv", "\n".join(lines))).successes == 2
