"""Numbers people take away: tables of a report, and the runs of a history."""

import csv
import json
from pathlib import Path

import pandas
import pytest
from typer.testing import CliRunner

from il_bench.cli import app
from il_bench.errors import IlBenchError
from il_bench.report import export, history, schema, views
from tests.report import recorded
from tests.report.made import report
from tests.report.test_latency import row as latency_row
from tests.report.test_page import data_of, outcomes_of

Run = tuple[Path, schema.Report]


def test_tables_hold_every_episode_and_row_in_both_forms(run: Run, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["report", "export", str(run[0]), "--output", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "episodes.csv", "episodes.parquet", "success.csv", "success.parquet",
    ]  # fmt: skip
    read = (
        pandas.read_csv(tmp_path / "episodes.csv", float_precision="round_trip"),
        pandas.read_parquet(tmp_path / "episodes.parquet"),
    )
    expected = [episode.model_dump() for row in run[1].success for episode in row.episodes]
    for frame in read:
        assert list(frame["policy"].unique()) == [row.policy for row in run[1].success]
        assert frame.drop(columns=["policy", "track"]).to_dict("records") == expected
    rows = pandas.read_parquet(tmp_path / "success.parquet")
    assert rows["success_rate.estimate"].tolist() == [row.success_rate.estimate for row in run[1].success]


#: What lerobot-eval writes of a group, and what newer versions add.
AGGREGATED = {"avg_sum_reward", "avg_max_reward", "pc_success", "n_episodes", "video_paths"}
COUNTED = {"n_success", "pc_success_ci95"}


def test_lerobots_file_of_a_policy_is_gated_as_the_report_is(run: Run, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["report", "export", str(run[0]), "--as", "lerobot", "-o", str(tmp_path)])
    assert done.exit_code == 0, done.output
    for row in run[1].success:
        path = tmp_path / row.policy / "eval_info.json"
        info = json.loads(path.read_text())
        ((group, of_group),) = info["per_group"].items()
        (task,) = info["per_task"]
        assert (group, task["task_group"], task["task_id"]) == ("pusht", "pusht", 0)
        assert set(of_group) == AGGREGATED | COUNTED
        assert set(info["overall"]) == AGGREGATED | COUNTED | {"eval_s", "eval_ep_s"}
        assert set(task["metrics"]) >= {"sum_rewards", "max_rewards", "successes", "video_paths"}
        successes = [episode.success for episode in row.episodes]
        assert task["metrics"]["successes"] == successes
        assert info["overall"]["pc_success"] == pytest.approx(100 * sum(successes) / len(successes))
        ours, theirs = (
            CliRunner().invoke(app, ["gate", str(file), "--target", "success_rate=0.8", *named])
            for file, named in ((run[0], ["--policy", row.policy]), (path, []))
        )
        assert ours.output.splitlines()[-1] == theirs.output.splitlines()[-1]
        beside = CliRunner().invoke(app, ["gate", str(path), "--against", str(path)])
        assert "paired by" in beside.output


def test_a_report_folder_holds_the_files_that_lerobots_tools_read(tmp_path: Path, run: Run) -> None:
    names = ["act", "a/b", "a b", "..", "."]
    rows = [recorded.row(name, outcomes_of(run[1].success[0])) for name in names]
    views.write(report(success=rows), tmp_path)
    folders = {path.parent.name for path in (tmp_path / "lerobot").glob("*/eval_info.json")}
    assert folders == {"act", "a-b", "a-b-2", "policy", "policy-2"}
    assert not (tmp_path / "eval_info.json").exists()
    views.write(report(success=rows[:1]), tmp_path)
    (only,) = (tmp_path / "lerobot").glob("*/eval_info.json")
    assert json.loads(only.read_text())["overall"]["n_episodes"] == rows[0].n_episodes


def test_a_name_is_no_formula_of_a_spreadsheet(tmp_path: Path, run: Run) -> None:
    rows = [recorded.row("=1+1", outcomes_of(run[1].success[0]))]
    export.write(report(success=rows), tmp_path, ["csv"])
    with (tmp_path / "episodes.csv").open() as file:
        assert {each["policy"] for each in csv.DictReader(file)} == {"'=1+1"}


def test_a_history_grows_by_a_line_a_run_and_tells_what_changed(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "runs" / "history.jsonl"
    found = outcomes_of(run[1].success[1])
    for outcomes in (found, found, recorded.worse(found, 40)):
        row = recorded.row("mine", outcomes, target=recorded.Target(value=0.8))
        environment = {"commit": "abc123def456", "dirty": True, "packages": {"torch": "2.11.0"}}
        made = report(success=[row], latency=[latency_row(policy="mine")]).model_copy(
            update={"environment": environment}
        )
        history.append(path, history.line_of(made))
    lines = history.load(path)
    assert [line.commit for line in lines] == ["abc123def456+"] * 3
    assert lines[0].policies[0].latency_ms == 3.21
    (points,) = history.points(lines)
    assert [point["changed"] for point in points["runs"]] == [False, False, True]
    done = CliRunner().invoke(app, ["report", "history", str(path), "--output", str(tmp_path / "h.html")])
    assert done.exit_code == 0, done.output
    assert done.output.count("abc123def4") == 3 and "; mine now BELOW TARGET" in done.output.splitlines()[2]
    assert "A ring marks a run" in (tmp_path / "h.html").read_text()


def test_a_report_with_a_history_is_drawn_again_with_it(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    history.append(path, history.line_of(run[1]))
    made = run[1].model_copy(update={"environment": {"history": str(path)}})
    schema.save(tmp_path / "report.json", made)
    for damaged, said in ((False, ""), (True, "no history on the page: ")):
        if damaged:
            path.write_text("{")
        done = CliRunner().invoke(app, ["report", "show", str(tmp_path)])
        assert (done.exit_code, said in done.output) == (int(damaged), True)
        points = data_of((tmp_path / "report.html").read_text())["history"]
        assert [each["name"] for each in points] == ([] if damaged else [row.policy for row in made.success])


def test_a_torn_line_of_a_history_is_named_and_costs_no_later_one(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    history.append(path, history.line_of(run[1]))
    path.write_text(path.read_text()[:-30])
    history.append(path, history.line_of(run[1]))
    assert path.read_text().count("\n") == 2
    with pytest.raises(IlBenchError, match=r"history\.jsonl: line 1 is not valid JSON; correct or delete"):
        history.load(path)
    wrong = json.loads(path.read_text().splitlines()[1]) | {"host": "mine"}
    path.write_text(json.dumps(wrong))
    with pytest.raises(IlBenchError, match=r"line 1: host = 'mine': unknown field"):
        history.load(path)


def test_two_reports_make_one_page_that_says_what_changed(run: Run, tmp_path: Path) -> None:
    rows = [recorded.row(row.policy, recorded.worse(outcomes_of(row), 20)) for row in run[1].success]
    later = run[1].model_copy(update={"success": tuple(rows)})
    views.write(later, tmp_path)
    done = CliRunner().invoke(app, ["report", str(run[0]), str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert "expert: worse (was 1.000, is 0.600 on 50 shared seeds; 20 lost, 0 won" in done.output
    assert "wander: same outcomes (" in done.output
    text = (tmp_path / "comparison.html").read_text()
    assert "expert is worse than in the other run" in text and "What changed" in text
    assert CliRunner().invoke(app, ["report", str(tmp_path / "nowhere")]).exit_code == 2
