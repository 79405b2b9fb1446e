import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from il_bench.errors import IlBenchError
from il_bench.gate import Decision, baselines, stats
from il_bench.gate.baselines import Baselines, Entry, Measured
from il_bench.gate.baselines import Target as Declared
from il_bench.plugin import collect
from il_bench.protocol import EXPERT, UNTRAINED
from il_bench.report import lines, page, plot, schema, table
from il_bench.report.success import judge
from il_bench.rollout import Outcomes

SHA = "a" * 64
FINGERPRINT = {
    "task": "PushT",
    "simulator": "s",
    "max_steps": 300,
    "success_coverage": 0.95,
    "block_size": 50,
    "cpu": "x",
}


@dataclass
class Described:
    track: str = "keypoints"
    checkpoint: str = "zoo/act"
    sha256: str | None = SHA
    parameters: int = 2_100_000
    data: str = "human"


def outcomes(rate: float, n: int = 200, first: int = 200_000) -> Outcomes:
    """Successes spread evenly, so that a rate halfway between target and floor stays undecided."""
    success = np.diff(np.floor(rate * np.arange(n + 1))) > 0
    reward = np.where(success, 1.0, 0.5)
    steps = np.full(n, 100)
    return Outcomes(first + np.arange(n), success, reward, steps, 0 * steps, seconds=12.5)


def measured(found: Outcomes, sha256: str = SHA, **fields: Any) -> Measured:
    return Measured.from_outcomes(found, data="human", sha256=sha256, fingerprint=FINGERPRINT, **fields)


def gates(target: Declared | None = None, baseline: Measured | None = None) -> Baselines:
    return Baselines(gates={"act": {"keypoints": Entry(target=target, baseline=baseline)}})


def success(found: Outcomes, declared: Baselines | None = None, **options: Any) -> schema.Success:
    gated_by = declared or gates()
    return judge("act", Described(), found, baselines=gated_by, fingerprint=FINGERPRINT, **options).row


def report(*rows: schema.Success) -> schema.Report:
    return schema.Report.model_validate(
        {"created": "2026-01-02T03:04:05Z", "environment": {"cpu": "<x>"}, "success": rows}
    )


# ---- one policy's verdict


@pytest.mark.parametrize(
    ("rate", "required", "decision", "n_problems"),
    [
        (0.95, True, Decision.PASS, 0),
        (0.95, False, Decision.PASS, 0),
        (0.40, True, Decision.FAIL, 1),
        (0.40, False, Decision.BELOW_TARGET, 0),
        (0.775, True, Decision.INCONCLUSIVE, 0),
    ],
)
def test_a_declared_target_decides(rate: float, required: bool, decision: Decision, n_problems: int) -> None:
    declared = gates(Declared(value=0.8, required=required))
    verdict = judge("act", Described(), outcomes(rate), baselines=declared, fingerprint=FINGERPRINT)
    assert verdict.row.decision is decision
    assert verdict.row.target is not None
    assert (verdict.row.target.decision, verdict.row.target.value) == (decision, 0.8)
    assert len(verdict.problems) == n_problems


def test_a_policy_without_gates_is_not_gated() -> None:
    row = judge(
        "mine", Described(), outcomes(1.0), baselines=gates(Declared(value=0.8)), fingerprint=FINGERPRINT
    ).row
    assert (row.decision, row.target, row.baseline) == (Decision.NOT_GATED, None, None)


def test_an_asked_for_target_replaces_the_declared_one() -> None:
    asked = Declared(metric="mean_max_reward", value=0.99, required=True)
    verdict = judge(
        "act",
        Described(),
        outcomes(0.5),
        baselines=gates(Declared(value=0.2)),
        fingerprint=FINGERPRINT,
        target=asked,
    )
    assert verdict.row.decision is Decision.FAIL
    (problem,) = verdict.problems
    assert problem.startswith("act: required mean_max_reward of 0.99: FAIL (< 0.99 shown, ")


def test_declared_risks_are_divided_over_all_gates() -> None:
    """With one gate, 14 failures are enough against 0.8; with twenty, more are needed."""
    one = gates(Declared(value=0.8, required=True))
    twenty = Baselines(
        gates={f"p{i}": {"keypoints": Entry(target=Declared(value=0.8))} for i in range(19)} | one.gates
    )
    few = outcomes(0.0, n=14)
    assert success(few, one).decision is Decision.FAIL
    assert success(few, twenty).decision is Decision.INCONCLUSIVE


def test_episodes_on_other_than_test_seeds_meet_no_declared_gate() -> None:
    declared = gates(Declared(value=0.8, required=True), measured(outcomes(0.9)))
    row = success(outcomes(0.0, first=100_000), declared)
    assert (row.decision, row.baseline) == (Decision.NOT_GATED, None)


def test_the_same_weights_and_episodes_are_unchanged() -> None:
    row = success(outcomes(0.5), gates(baseline=measured(outcomes(0.5))))
    assert row.baseline is not None
    assert row.baseline.decision is Decision.UNCHANGED
    assert row.decision is Decision.NOT_GATED


def test_the_same_weights_with_other_episodes_fail_and_name_the_seed() -> None:
    was = outcomes(0.5)
    now = Outcomes(was.seeds, was.success, was.max_reward, was.n_steps + (was.seeds == 200_007), was.outside)
    verdict = judge("act", Described(), now, baselines=gates(baseline=measured(was)), fingerprint=FINGERPRINT)
    (problem,) = verdict.problems
    assert "act: worse than its measured baseline: FAIL" in problem
    assert "seed 200007" in problem


def test_a_worse_checkpoint_fails_on_the_seeds_both_have() -> None:
    old = measured(outcomes(0.9, n=200), sha256="b" * 64)
    verdict = judge(
        "act", Described(), outcomes(0.2, n=300), baselines=gates(baseline=old), fingerprint=FINGERPRINT
    )
    assert verdict.row.baseline is not None
    assert verdict.row.baseline.decision is Decision.FAIL
    assert verdict.row.baseline.n <= 200
    assert len(verdict.problems) == 1


def test_a_baseline_about_to_be_replaced_is_not_compared() -> None:
    other_task = Measured(
        **{**measured(outcomes(0.9)).model_dump(), "fingerprint": {**FINGERPRINT, "max_steps": 200}}
    )
    with pytest.raises(IlBenchError, match=r"fingerprint\.max_steps was 200"):
        success(outcomes(0.5), gates(baseline=other_task))
    assert success(outcomes(0.5), gates(baseline=other_task), compare=False).baseline is None


@pytest.mark.parametrize("sequential", [False, True])
def test_intervals_hold_their_estimates_and_repeat(sequential: bool) -> None:
    row = success(outcomes(0.5), sequential=sequential)
    for interval in (row.success_rate, row.mean_max_reward):
        assert 0.0 < interval.low < interval.estimate < interval.high < 1.0
    assert success(outcomes(0.5), sequential=sequential) == row
    assert row.success_rate.estimate == outcomes(0.5).success_rate


def test_after_early_stopping_the_intervals_are_confidence_sequences_and_it_is_said() -> None:
    found = outcomes(0.5)
    fixed, row = success(found), success(found, sequential=True)
    assert (fixed.interval, row.interval) == ("Clopper-Pearson", "confidence sequence")
    assert (fixed.success_rate.low, fixed.success_rate.high) == stats.clopper_pearson(100, 200)
    assert (row.success_rate.low, row.success_rate.high) == stats.confidence_sequence(found.success)
    reward = row.mean_max_reward
    assert (reward.low, reward.high) == stats.confidence_sequence(found.max_reward)
    both = report(fixed.model_copy(update={"policy": "bc"}), row)
    for text in (table.render(both), page.render(both, b"")):
        assert "confidence sequences, as the episodes ended when the gates were decided: act" in text
        assert "of a fixed number of episodes: bc" in text


# ---- report.json


def test_a_report_reads_back_as_it_was_written(tmp_path: Path) -> None:
    written = report(success(outcomes(0.5), gates(Declared(value=0.8), measured(outcomes(0.5)))))
    schema.save(tmp_path / "new" / "report.json", written)
    assert schema.load(tmp_path / "new" / "report.json") == written
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["report.json"]


def test_report_json_has_the_fields_tools_read() -> None:
    row = json.loads(report(success(outcomes(0.9), gates(Declared(value=0.8)))).model_dump_json())["success"][
        0
    ]
    assert {"policy", "track", "data", "checkpoint", "sha256", "parameters", "decision", "seconds"} <= set(
        row
    )
    assert set(row["target"]) == {"metric", "value", "margin", "required", "decision", "evidence"}
    assert set(row["success_rate"]) == {"estimate", "low", "high"}
    assert {"seed", "success", "max_reward", "n_steps"} <= set(row["episodes"][0])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"schema": 2}, r"report.json: schema is 2, this il_bench reads 1"),
        ({"colour": "red"}, r"report.json: colour = 'red': unknown field"),
        ({"success": [{"policy": "act"}]}, r"report.json: success.0.track: Field required"),
    ],
)
def test_a_wrong_report_names_the_field(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    path = tmp_path / "report.json"
    path.write_text(json.dumps({**json.loads(report().model_dump_json()), **change}))
    with pytest.raises(IlBenchError, match=said):
        schema.load(path)
    path.write_text("{")
    with pytest.raises(IlBenchError, match="not a readable report"):
        schema.load(path)


# ---- what people see


def shown(*rows: schema.Success) -> str:
    return table.render(report(*rows))


def test_every_decision_is_told_apart_in_the_table() -> None:
    for rate, required, text in (
        (0.95, True, "PASS (> 0.75 shown)"),
        (0.40, True, "FAIL (< 0.80 shown)"),
        (0.40, False, "BELOW TARGET (< 0.80 shown)"),
        (0.775, True, "INCONCLUSIVE (target 0.80)"),
    ):
        assert text in shown(success(outcomes(rate), gates(Declared(value=0.8, required=required))))
    assert "NOT GATED" in shown(success(outcomes(0.5)))
    assert "UNCHANGED" in shown(success(outcomes(0.5), gates(baseline=measured(outcomes(0.5)))))


def test_the_best_policy_is_on_top_and_ceiling_and_floor_below_them_all() -> None:
    rows = [
        success(outcomes(rate)).model_copy(update={"policy": name})
        for name, rate in (("bc", 0.1), (EXPERT, 1.0), (UNTRAINED, 0.9), ("bet", 0.5))
    ]
    names = [line.split()[0] for line in shown(*rows).splitlines()]
    order = [names.index(name) for name in ("bet", "bc", "expert", "untrained")]
    assert order == sorted(order)


def test_actions_outside_the_arena_are_reported() -> None:
    found = outcomes(0.5)
    some = replace(found, outside=np.where(found.seeds < 200_050, 10, 0))  # 10 of 100 steps, a quarter of all
    assert success(some).share_outside == 0.025
    assert "act: 2.50% of its actions lie outside [0, 512] px" in shown(success(some))
    assert "outside" not in shown(success(found))


def test_published_numbers_keep_to_their_metric_and_track() -> None:
    text = shown(success(outcomes(0.5)).model_copy(update={"policy": "bet"}))
    (line,) = [line for line in text.splitlines() if "published" in line]
    assert line.split() == ["bet", "0.790", "published", "[1]", "150"]
    assert line.index("0.790") == text.splitlines()[0].index("mean_max_reward")
    assert "[1] Diffusion Policy paper, table 1 (primary)" in text
    assert "published" not in shown(success(outcomes(0.5)).model_copy(update={"policy": "mine"}))


def test_published_numbers_are_shares_with_a_source() -> None:
    assert lines.published()
    for known in lines.published():
        values = [value for value in (known.success_rate, known.mean_max_reward) if value is not None]
        assert values and all(0.0 < value < 1.0 for value in values)
        assert known.source and known.trust in ("primary", "secondary", "unrefereed")


def test_a_log_is_not_wrapped_and_a_narrow_terminal_loses_nothing() -> None:
    row = success(outcomes(0.4), gates(Declared(value=0.8)))
    assert sum("BELOW TARGET (< 0.80 shown)" in line for line in shown(row).splitlines()) == 1
    narrow = table.render(report(row), width=80)
    assert "…" not in narrow
    assert "\x1b[" not in narrow
    assert "\x1b[" in table.render(report(row), width=80, color=True)


def test_the_page_holds_everything_and_escapes_it() -> None:
    row = success(outcomes(0.4), gates(Declared(value=0.8))).model_copy(update={"policy": "<b>mine</b>"})
    found = report(row)
    picture = plot.render(found)
    assert picture.startswith(b"\x89PNG")
    text = page.render(found, picture)
    assert "&lt;b&gt;mine&lt;/b&gt;" in text and "<b>mine" not in text
    assert "BELOW TARGET" in text and "&lt;x&gt;" in text
    assert 'src="data:image/png;base64,' in text and "http" not in text


def test_an_empty_report_has_a_picture_too() -> None:
    assert plot.render(report()).startswith(b"\x89PNG")


# ---- a whole run


def record(row: schema.Success) -> dict[str, Any]:
    return collect.Record("success", row, FINGERPRINT).to_dict()


def test_rows_do_not_depend_on_who_finished_first() -> None:
    rows = [success(outcomes(0.5)).model_copy(update={"policy": name}) for name in ("bc", "act")]
    one, other = (collect.Run(map(record, order)).report() for order in (rows, rows[::-1]))
    assert [row.policy for row in one.success] == ["act", "bc"]
    assert one.success == other.success


def test_of_a_test_that_ran_twice_the_last_row_counts() -> None:
    run = collect.Run([record(success(outcomes(0.1))), record(success(outcomes(0.9)))])
    (row,) = run.report().success
    assert row.success_rate.estimate > 0.5


def test_records_survive_the_way_through_pytest_xdist() -> None:
    values = record(success(outcomes(0.5), gates(Declared(value=0.8), measured(outcomes(0.5)))))
    assert collect.Record.from_dict(json.loads(json.dumps(values))).to_dict() == values


def test_updating_replaces_what_was_measured_and_leaves_targets(tmp_path: Path) -> None:
    path = tmp_path / "baselines.json"
    declared = gates(Declared(value=0.8), measured(outcomes(0.2), sha256="b" * 64, margin=0.1))
    baselines.save(path, declared)
    (said,) = collect.update_baselines(collect.Run([record(success(outcomes(0.5)))]), path)
    entry = baselines.load(path).entry("act", "keypoints")
    assert entry.target == Declared(value=0.8)
    assert entry.baseline == measured(outcomes(0.5), margin=0.1)
    assert said.startswith(f"act (keypoints): success_rate {outcomes(0.5).success_rate:.3f} (200 episodes")
    assert f"it was success_rate {outcomes(0.2).success_rate:.3f}" in said
    (said,) = collect.update_baselines(collect.Run([record(success(outcomes(0.5)))]), path)
    assert said.startswith("act (keypoints): unchanged")


@pytest.mark.parametrize(
    "row",
    [
        success(outcomes(0.5, first=100_000)),
        success(outcomes(0.5, first=200_050)),
        success(outcomes(0.5)).model_copy(update={"sha256": None}),
    ],
    ids=["validation seeds", "not from the first seed", "fresh weights"],
)
def test_updating_ignores_what_is_no_baseline(tmp_path: Path, row: schema.Success) -> None:
    path = tmp_path / "baselines.json"
    assert collect.update_baselines(collect.Run([record(row)]), path) == []
    assert not path.exists()


def test_updating_does_not_shorten_a_baseline(tmp_path: Path) -> None:
    path = tmp_path / "baselines.json"
    baselines.save(path, gates(baseline=measured(outcomes(0.2))))
    (said,) = collect.update_baselines(collect.Run([record(success(outcomes(0.9, n=10)))]), path)
    assert said == "act (keypoints): kept as it is, the run has only 10 of 200 episodes"
    assert baselines.load(path) == gates(baseline=measured(outcomes(0.2)))
