"""`il-bench gate`: the words and exit statuses of the suite, from a file."""

import json
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from click.testing import Result
from scipy.stats import fisher_exact
from typer.testing import CliRunner

from il_bench.cli import app
from il_bench.report import schema
from tests.finished.made import eval_info, row_of
from tests.gate.made import episodes
from tests.report.made import report


def gated(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["gate", *map(str, arguments)])


def solved(k: int, n: int) -> list[bool]:
    return [i < k for i in range(n)]


def info(folder: Path, name: str, tasks: Mapping[tuple[str, int], Sequence[bool]]) -> Path:
    path = folder / name
    path.write_text(json.dumps(eval_info(tasks)), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("k", "status", "said"),
    [
        (45, 0, "PASS (> 0.75 shown, p = 0.007, 50 episodes)"),
        (30, 1, "FAIL (< 0.80 shown, p = 0.00093, 50 episodes)"),
        (
            40,
            6,
            "INCONCLUSIVE (neither < 0.80 nor > 0.75 shown, 50 episodes; a new run of about 290 episodes"
            " would decide (4 times in 5))",
        ),
    ],
)
def test_a_file_is_gated_against_a_target(tmp_path: Path, k: int, status: int, said: str) -> None:
    path = info(tmp_path, "a.json", {("pusht", 0): solved(k, 50)})
    result = gated(path, "--target", "success_rate=0.8")
    assert (result.exit_code, f"target success_rate=0.8: {said}" in result.output) == (status, True)
    assert f"{k} of 50 episodes" in result.output


def with_rewards(folder: Path, rewards: list[object]) -> Path:
    info = eval_info({("pusht", 0): [False] * 60})
    info["per_task"][0]["metrics"]["max_rewards"] = rewards
    (folder / "a.json").write_text(json.dumps(info), encoding="utf-8")
    return folder / "a.json"


def test_a_mean_reward_has_a_target_where_the_file_has_rewards(tmp_path: Path) -> None:
    path = with_rewards(tmp_path, [0.9, 0.7] * 30)
    result = gated(path, "--target", "mean_max_reward=0.6")
    assert result.exit_code == 0 and "target mean_max_reward=0.6: PASS (> 0.55 shown" in result.output
    assert "mean_max_reward 0.800 [0.777, 0.827]" in result.output
    (tmp_path / "a.csv").write_text("success,max_reward\n" + "0,0.9\n0,0.7\n" * 30, encoding="utf-8")
    as_csv = gated(tmp_path / "a.csv", "--target", "mean_max_reward=0.6")
    assert as_csv.output.splitlines()[-1] == result.output.splitlines()[-1]
    schema.save(tmp_path / "report.json", report(success=[row_of(episodes([False] * 60, reward=0.8), "act")]))
    assert "PASS (> 0.55" in gated(tmp_path / "report.json", "--target", "mean_max_reward=0.6").output
    assert gated(path, "--target", "mean_max_reward=0.95").exit_code == 1


@pytest.mark.parametrize(
    ("rewards", "said"),
    [
        (
            [0.5] * 59 + [3.0],
            "pusht/0 has a max_reward of 3; mean_max_reward is tested where rewards lie in [0, 1]",
        ),
        ([0.5] * 59 + [None], "pusht/0 holds no max_reward of each episode"),
        ([0.5] * 5, "pusht/0 holds no max_reward of each episode"),
    ],
)
def test_rewards_that_cannot_be_tested_are_one_sentence_and_cost_no_rate(
    tmp_path: Path, rewards: list[object], said: str
) -> None:
    path = with_rewards(tmp_path, rewards)
    refused = gated(path, "--target", "mean_max_reward=0.6")
    assert refused.exit_code == 2 and said in refused.output.splitlines()[-1]
    assert gated(path, "--target", "success_rate=0.6").exit_code == 1
    several = info(tmp_path, "b.json", {("p", 0): [True], ("p", 1): [True]})
    assert "of several, only the success_rate" in gated(several, "--target", "mean_max_reward=0.6").output


def test_several_tasks_are_gated_together(tmp_path: Path) -> None:
    tasks = {("libero", i): solved(k, 10) for i, k in enumerate((10, 10, 9, 5, 10))}
    result = gated(info(tmp_path, "a.json", tasks), "--target", "success_rate=0.8")
    assert "libero/3   success_rate 0.500 [0.187, 0.813], 5 of 10 episodes" in result.output
    assert "all tasks  success_rate 0.880 [0.757, 0.955], 44 of 50 episodes" in result.output
    assert "PASS (> 0.75 shown, p = 0.019, 50 episodes)" in result.output


def test_a_file_alone_is_not_gated(tmp_path: Path) -> None:
    result = gated(info(tmp_path, "a.json", {("pusht", 0): solved(4, 5)}))
    assert result.exit_code == 0
    assert "NOT GATED; give --target" in result.output


def test_files_without_seeds_are_compared_unpaired(tmp_path: Path) -> None:
    new, old = (info(tmp_path, f"{k}.json", {("pusht", 0): solved(k, 50)}) for k in (30, 45))
    result = gated(new, "--against", old)
    p = fisher_exact([[30, 20], [45, 5]], "less").pvalue
    assert result.exit_code == 1
    assert "unpaired (no seeds in the files; give --start-seed" in result.output
    assert f"FAIL (< baseline shown, p = {p:.2g})" in result.output
    assert "was 0.900, is 0.600, difference -0.300" in result.output


def test_start_seeds_pair_files_of_one_size(tmp_path: Path) -> None:
    """12 of 200 episodes lost: pairs show it, and rates would not."""
    before = [i % 4 != 0 for i in range(200)]
    after = [each and i > 16 for i, each in enumerate(before)]
    new, old = info(tmp_path, "new.json", {("p", 0): after}), info(tmp_path, "old.json", {("p", 0): before})
    starts = ("--start-seed", 1000, "--against-start-seed")
    paired = gated(new, "--against", old, *starts, 1000)
    assert "paired by seed: McNemar's exact test" in paired.output and paired.exit_code == 1
    shifted = gated(new, "--against", old, *starts, 5000)
    assert "unpaired (other seeds)" in shifted.output and shifted.exit_code == 0
    assert re.search(
        r"^two new runs of about \d[\d.]* times as many episodes would decide", shifted.output, re.M
    )
    shorter = info(tmp_path, "old.json", {("p", 0): before[:100]})
    assert "unpaired (200 episodes against 100)" in gated(new, "--against", shorter, *starts, 1000).output
    assert "unpaired (no seeds" in gated(new, "--against", old, *starts[:2]).output


def test_tasks_are_compared_one_by_one_in_order_with_alpha_divided(tmp_path: Path) -> None:
    old = {("libero", i): solved(48, 50) for i in range(11)}
    new = old | {("libero", 10): solved(30, 50), ("libero", 12): solved(1, 50)}
    del new["libero", 1]
    result = gated(
        info(tmp_path, "n.json", dict(reversed(new.items()))), "--against", info(tmp_path, "o.json", old)
    )
    assert result.exit_code == 1
    assert "alpha 0.0045 each, 0.05 divided by 11 comparisons" in result.output
    assert "libero/12: not compared, only the new run has it" in result.output
    assert "libero/1: not compared, only the old run has it" in result.output
    told = result.output.partition("against")[2]
    told = told[told.index("libero/0 ") :]
    assert [line.split()[0] for line in told.splitlines()] == [
        *(f"libero/{i}" for i in (0, *range(2, 11))),
        "all",
    ]
    assert "libero/10  FAIL" in told and told.count("FAIL") == 2 - ("all tasks  FAIL" not in told)


def test_not_worse_by_the_margin_passes(tmp_path: Path) -> None:
    new, old = (info(tmp_path, f"{k}.json", {("pusht", 0): solved(k, 1000)}) for k in (950, 951))
    result = gated(new, "--against", old)
    assert result.exit_code == 0
    assert "PASS (> baseline - 0.05 shown)" in result.output


def test_a_run_that_ended_early_keeps_its_sequential_test(tmp_path: Path) -> None:
    """70 of 80 pass by the binomial test, which does not allow for having looked."""
    for name, k in (("new", 70), ("old", 79)):
        row = row_of(episodes(solved(k, 80)[::-1]), "act", sequential=True)
        (tmp_path / name).mkdir()
        schema.save(tmp_path / name / "report.json", report(success=[row]))
    alone = gated(tmp_path / "new", "--target", "success_rate=0.8")
    assert alone.exit_code == 6 and "INCONCLUSIVE (neither" in alone.output
    beside = gated(tmp_path / "new", "--against", tmp_path / "old")
    assert "paired by 80 shared seeds: a sequential test" in beside.output
    unseeded = info(tmp_path, "a.json", {("p", 0): solved(80, 80)})
    refused = gated(tmp_path / "new", "--against", unseeded)
    assert refused.exit_code == 2 and "it holds no seeds, but the other run ended" in refused.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--target", "success_rate=2"), "--target: 'success_rate=2' is not METRIC=VALUE"),
        (("--target", "success_rate=0.8", "--margin", "0.9"), "VALUE between 0.9 and 1"),
        (("--margin", "2", "--target", "success_rate=0.8"), "--margin: 2; need a number"),
        (("--against-start-seed", "3"), "--against-start-seed: there is no --against"),
        (("--policy", "act"), "which names no policies; leave --policy out"),
        (("--against", "nowhere.json"), "nowhere.json: cannot be read"),
    ],
)
def test_wrong_options_are_one_sentence(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    result = gated(info(tmp_path, "a.json", {("pusht", 0): solved(4, 5)}), *arguments)
    assert result.exit_code == 2 and said in result.output.splitlines()[-1]


def test_it_imports_no_torch(tmp_path: Path) -> None:
    path = info(tmp_path, "a.json", {("pusht", 0): solved(4, 5)})
    code = (
        "import sys; from typer.testing import CliRunner; from il_bench.cli import app;"
        f" r = CliRunner().invoke(app, ['gate', {str(path)!r}, '--against', {str(path)!r}]);"
        " assert r.exit_code == 0, r.output;"
        " assert not {'torch', 'lerobot', 'gymnasium'} & set(sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=600, check=False).returncode == 0
