"""One policy's row, report.json with it, and the success table."""

import html
import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from il_bench.cli import app
from il_bench.errors import IlBenchError, printable
from il_bench.gate.baselines import Baselines, Target
from il_bench.gate.verdict import PolicyGates
from il_bench.protocol import EXPERT, UNTRAINED
from il_bench.report import page, schema, tables, views
from il_bench.report.success import row_of
from il_bench.rollout import Outcomes
from il_bench.rollout.metrics import GATED_METRICS, METRICS
from tests.fuzzing import FUZZ, fuzz
from tests.gate.made import FINGERPRINT, OTHER_SHA, SHA, declared, measured, spread
from tests.report.made import report
from tests.report.test_latency import row as latency_row
from tests.report.test_tokenizers import tokenizer

ACT = {"name": "act", "track": "keypoints", "checkpoint": "zoo/act", "sha256": SHA, "data": "human"}


def success(
    found: Outcomes,
    gates: Baselines | None = None,
    *,
    sequential: bool = False,
    replacing: bool = False,
    accepted: bool = False,
    **changes: Any,
) -> schema.Success:
    policy = SimpleNamespace(**ACT | {"parameters": 2_100_000} | changes)
    conditions = {"fingerprint": FINGERPRINT, "seeds": found.seeds.tolist()}
    conditions |= {"replacing": replacing, "accepted": accepted}
    of = (policy.name, policy.track, policy.sha256)
    met = PolicyGates.of(*of, baselines=gates or declared(), **conditions)
    return row_of(policy, found, met.verdict(found, sequential=sequential))


def shown(*rows: schema.Success) -> str:
    return views.terminal(report(success=rows))


def test_what_seeing_costs_is_a_table_of_its_own() -> None:
    beside = schema.OnKeypoints(n=200, keypoints=0.97, pixels=0.94, lost=8, won=2, p=0.109)
    row = success(spread(0.94), track="pixels").model_copy(update={"on_keypoints": beside})
    text = shown(row, success(spread(0.9), name="bc", track="pixels"))
    lines = text[text.index("what seeing costs") :].splitlines()
    assert lines[1].split() == ["act", "200", "0.970", "0.940", "8", "2", "0.11"]
    assert "what seeing costs" not in shown(success(spread(0.9)))


# ---- report.json


def test_a_row_says_what_the_gates_said_and_how_each_metric_came_out() -> None:
    target = Target(value=0.8, required=True)
    row = success(spread(0.4), declared(target, measured(spread(0.4))))
    assert row.target is not None and row.baseline is not None
    assert (row.decision, row.target.decision, row.baseline.decision) == ("FAIL", "FAIL", "UNCHANGED")
    assert (row.target.value, row.target.margin, row.target.required) == (0.8, 0.05, True)
    assert row.baseline.n == 200 and row.target.evidence["mean"] < 0.8
    assert list(row.metrics) == [name for name, metric in METRICS.items() if metric.is_column]
    assert [found.estimate for found in row.metrics.values()] == [0.4, 0.7, 100.0]
    for name in GATED_METRICS:
        assert row.metrics[name].model_dump() == getattr(row, name).model_dump()
    alone = success(spread(0.4))
    assert (alone.decision, alone.target, alone.baseline) == ("NOT GATED", None, None)


def test_a_report_reads_back_as_it_was_written(tmp_path: Path) -> None:
    written = report(success=[success(spread(0.5), declared(Target(value=0.8), measured(spread(0.5))))])
    schema.save(tmp_path / "new" / "report.json", written)
    assert schema.load(tmp_path / "new" / "report.json") == written
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["report.json"]


def test_report_json_has_the_fields_tools_read() -> None:
    written = report(success=[success(spread(0.9), declared(Target(value=0.8)))]).model_dump_json()
    (row,) = json.loads(written)["success"]
    assert {"policy", "track", "data", "checkpoint", "sha256", "decision", "seconds"} <= row.keys()
    assert row["parameters"] == 2_100_000
    assert {"metric", "value", "margin", "required", "decision", "evidence"} <= set(row["target"])
    assert set(row["success_rate"]) == {"estimate", "low", "high"}
    assert {"seed", "success", "max_reward", "n_steps"} <= set(row["episodes"][0])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"schema": 2}, r"report.json: schema is 2, but this il_bench reads 1"),
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
    with pytest.raises(IlBenchError, match=r"report\.json: broken JSON at line 1"):
        schema.load(path)


@pytest.mark.parametrize(
    ("metric", "change", "said"),
    [
        ("success_rate", {"high": 1.5}, "high = 1.5: need a number in [0, 1]"),
        ("mean_max_reward", {"low": -0.1}, "low = -0.1: need a number in [0, 1]"),
        ("success_rate", {"estimate": float("nan")}, "estimate is nan, not a finite number"),
        ("mean_steps_to_success", {"low": 0.5}, "low = 0.5: need a number in [1, inf]"),
    ],
)
def test_an_interval_outside_its_metrics_range_is_refused(
    tmp_path: Path, metric: str, change: dict[str, float], said: str
) -> None:
    values = json.loads(report(success=[success(spread(0.5))]).model_dump_json())
    row, path = values["success"][0], tmp_path / "report.json"
    for place, intervals in (("metrics.", row["metrics"]), ("", row)):
        if metric in intervals:
            kept, intervals[metric] = intervals[metric], intervals[metric] | change
            path.write_text(json.dumps(values))
            with pytest.raises(IlBenchError, match=f"success.0(: |\\.){place}{metric}\\.{re.escape(said)}"):
                schema.load(path)
            intervals[metric] = kept


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"n_episodes": 300}, "n_episodes is 300, but its episodes give 200"),
        ({"success_rate": {"estimate": 0.6}}, "success_rate.estimate is 0.6, but its episodes give 0.5"),
        (
            {"mean_max_reward": {"estimate": 0.8}},
            "mean_max_reward.estimate is 0.8, but its episodes give 0.75",
        ),
        (
            {"metrics": {"mean_steps_to_success": {"estimate": 90.0}}},
            "metrics.mean_steps_to_success.estimate is 90, but its episodes give 100",
        ),
        (
            {"success_rate": {"low": 0.55}},
            "success_rate.low is 0.55, but its episodes give 0.5",
        ),
        ({"share_outside": 0.1}, "share_outside is 0.1, but its episodes give 0"),
        (
            {"episodes": {"3": {"success": False}}},
            "success_rate.estimate is 0.5, but its episodes give 0.495",
        ),
        ({"episodes": {"3": {"seed": 200_000}}}, "seed 200000 occurs more than once"),
        ({"decision": "PASS"}, "decision is PASS, but its target gives FAIL"),
        (
            {"target": {"decision": "PASS"}, "decision": "PASS"},
            "target.decision is PASS, but its evidence does not",
        ),
        (
            {"target": {"decision": "INCONCLUSIVE"}, "decision": "INCONCLUSIVE"},
            "its evidence reaches evidence.fail",
        ),
        ({"baseline": {"decision": "PASS"}}, "baseline.decision is PASS, but its evidence does not reach"),
    ],
)
def test_numbers_that_do_not_follow_from_their_episodes_are_refused(
    change: dict[str, Any], said: str, tmp_path: Path
) -> None:
    row = success(spread(0.5), declared(Target(value=0.8, required=True), measured(spread(0.9), OTHER_SHA)))
    values, path = json.loads(report(success=[row]).model_dump_json()), tmp_path / "report.json"

    def put(into: Any, changes: dict[str, Any]) -> None:
        for name, value in changes.items():
            place = int(name) if isinstance(into, list) else name
            if isinstance(value, dict):
                put(into[place], value)
            else:
                into[place] = value

    path.write_text(json.dumps(values))
    assert schema.load(path).success == (row,)
    put(values["success"][0], change)
    path.write_text(json.dumps(values))
    with pytest.raises(IlBenchError, match=re.escape(said)) as caught:
        schema.load(path)
    assert str(caught.value).startswith(f"{path}: success.0: ")
    result = CliRunner().invoke(app, ["report", "show", str(path)])
    assert result.exit_code == 2 and said in result.output and "report.json" in result.output


@pytest.mark.parametrize("examples", FUZZ)
def test_every_change_of_a_report_is_accepted_or_one_sentence(tmp_path: Path, examples: int) -> None:
    path = tmp_path / "report.json"
    gates = declared(Target(value=0.8, required=True), measured(spread(0.9, n=8), OTHER_SHA))
    sections = {"tokenizers": [tokenizer()], "latency": [latency_row()]}
    schema.save(path, report(success=[success(spread(0.5, n=8), gates)], **sections))

    def shown(of: Path) -> schema.Report:
        found = schema.load(of)
        views.terminal(found)
        return found

    fuzz(path, shown, schema.save, examples=examples)


def test_a_report_without_its_episodes_is_still_shown(tmp_path: Path) -> None:
    values, path = (
        json.loads(report(success=[success(spread(0.5))]).model_dump_json()),
        tmp_path / "report.json",
    )
    values["success"][0]["episodes"] = []
    path.write_text(json.dumps(values))
    assert schema.load(path).success[0].success_rate.estimate == 0.5


def test_a_report_from_before_all_metrics_were_in_it_is_still_read(tmp_path: Path) -> None:
    values = json.loads(report(success=[success(spread(0.5))]).model_dump_json())
    del values["success"][0]["metrics"]
    (tmp_path / "report.json").write_text(json.dumps(values))
    found = schema.load(tmp_path / "report.json")
    assert found.success[0].measured("success_rate") == found.success[0].success_rate
    assert found.success[0].measured("mean_steps_to_success") is None
    assert "0.500 [0.43, 0.57]" in views.terminal(found)
    for each in (found, report()):
        assert page.render(each, views.sections(each)).startswith("<!doctype html>")


# ---- what people see


def test_it_is_said_whose_intervals_are_confidence_sequences() -> None:
    found = spread(0.5)
    fixed, row = success(found), success(found, sequential=True)
    assert (fixed.interval, row.interval) == ("Clopper-Pearson", "confidence sequence")
    both = report(success=[success(found, name="bc"), row])
    for text in (views.terminal(both), page.render(both, views.sections(both))):
        assert "confidence sequences, since the episodes ended when the gates were decided: act" in text
        assert "of a fixed number of episodes: bc" in text


def test_every_decision_is_told_apart_in_the_table() -> None:
    for rate, required, text in (
        (0.95, True, "PASS (> 0.75 shown)"),
        (0.40, True, "FAIL (< 0.80 shown)"),
        (0.40, False, "BELOW TARGET (< 0.80 shown)"),
        (0.775, True, "INCONCLUSIVE (target 0.80)"),
    ):
        assert text in shown(success(spread(rate), declared(Target(value=0.8, required=required))))
    assert "NOT GATED" in shown(success(spread(0.5)))
    assert "UNCHANGED" in shown(success(spread(0.5), declared(baseline=measured(spread(0.5)))))


def test_a_gate_that_is_not_passed_says_below_the_table_what_its_episodes_show() -> None:
    was, target = measured(spread(0.9), OTHER_SHA), Target(value=0.8)
    worse, undecided = success(spread(0.5), declared(target, was)), success(spread(0.775), declared(target))
    lost = r"was 0\.900, is 0\.500, lost \d+, won \d+, e\.g\. seeds 20"
    for row, said in (
        (worse, r"act: BELOW TARGET against its target: < 0\.80 shown"),
        (worse, rf"act: FAIL against its baseline: < baseline shown; {lost}"),
        (undecided, r"act: INCONCLUSIVE against its target: neither .*; about \d+ more episodes would"),
    ):
        assert re.search(said, shown(row)), shown(row)
    assert "against its" not in shown(success(spread(0.95), declared(target, was))), "all is well"


def test_the_best_policy_is_on_top_and_ceiling_and_floor_below_them_all() -> None:
    rates = {"bc": 0.1, EXPERT: 1.0, UNTRAINED: 0.9, "bet": 0.5}
    rows = [success(spread(rate), name=name) for name, rate in rates.items()]
    names = [line.split()[0] for line in shown(*rows).splitlines()]
    order = [names.index(name) for name in ("bet", "bc", "expert", "untrained")]
    assert order == sorted(order)


def test_actions_outside_the_arena_are_reported() -> None:
    found = spread(0.5)
    some = replace(found, outside=np.where(found.seeds < 200_050, 10, 0))  # 10 of 100 steps, a quarter of all
    assert success(some).share_outside == 0.025
    assert "act: 2.50% of its actions lie outside [0, 512] px" in shown(success(some))
    assert "outside" not in shown(success(found))


def test_published_numbers_keep_to_their_metric_and_track() -> None:
    text = shown(success(spread(0.5), name="bet"))
    (line,) = [line for line in text.splitlines() if "published" in line]
    assert line.split() == ["bet", "0.790", "published", "[1]", "150"]
    assert line.index("0.790") == text.splitlines()[0].index("mean_max_reward")
    assert "[1] Diffusion Policy paper, table 1 (primary)" in text
    assert "published" not in shown(success(spread(0.5), name="mine"))


def test_published_numbers_are_shares_with_a_source() -> None:
    assert tables.published("results")
    for known in tables.published("results"):
        assert known.values and set(known.values) <= set(METRICS)
        assert all(0.0 < value < 1.0 for value in known.values.values())
        assert known.source and known.trust in ("primary", "secondary", "unrefereed")


def test_a_log_is_not_wrapped_and_a_narrow_terminal_loses_nothing() -> None:
    row = success(spread(0.4), declared(Target(value=0.8)))
    assert sum("BELOW TARGET (< 0.80 shown)" in line for line in shown(row).splitlines()) == 1
    narrow = views.terminal(report(success=[row]), width=80)
    assert "…" not in narrow
    assert "\x1b[" not in narrow
    assert "\x1b[" in views.terminal(report(success=[row]), width=80, color=True)


def test_what_is_no_gate_is_left_out_of_terminals_without_room() -> None:
    row = success(spread(0.5))
    found, steps = report(success=[row]), row.metrics["mean_steps_to_success"]
    wide, narrow = (views.terminal(found, width=width) for width in (150, 149))
    assert "mean_steps_to_success" in wide and f"100.0 [{steps.low:.0f}, {steps.high:.0f}] steps" in wide
    assert "mean_steps_to_success" not in narrow and "mean_max_reward" in narrow


NAMES = [
    "a$\\bad$",
    "$x^2",
    r"\frac{",
    "tab\tand\nnewline",
    "\x1b]0;title\x07\x1b[31mred",
    "bad\udcffbytes",
    "right\u202eleft",
    "l\xe4ufe",
    "\u200b",
    "\N{GRINNING FACE}",
    "[bold]mark-up[/]",
    "<script>alert(1)</script>",
    "{{ 7 * 7 }}",
    "../../up",
    "a" * 500,
    "%s %d {}",
]


def test_any_name_is_text_in_every_view_and_costs_no_other_row(tmp_path: Path) -> None:
    rows = [success(spread(0.5), name=name, data=name, checkpoint=name) for name in NAMES]
    latencies, tokenizers = [latency_row(policy=name) for name in NAMES], [tokenizer(NAMES[0])]
    tokenizers += [tokenizer(name, vocabulary=None) for name in NAMES[1:]]
    found = report(success=rows, tokenizers=tokenizers, latency=latencies)
    paths, problems = views.write(found, tmp_path)
    assert [path.name for path in paths] == ["report.json", "report.html"] and problems == []
    assert schema.load(tmp_path / "report.json") == found
    whole, shown = (tmp_path / "report.html").read_text(), views.terminal(found, encoding="ascii")
    assert "\x1b" not in shown + whole and shown.isascii()
    assert len(shown.split("parameters")[1].splitlines()) > len(NAMES), "a row a line"
    for name in map(printable, NAMES):
        text = name if len(name) < 80 else f"{name[:40]}..."
        assert text.encode("ascii", "replace").decode() in shown
        assert html.escape(name).replace("&#x27;", "&#39;") in whole
    assert "<script>alert" not in whole


@pytest.mark.parametrize("error", [KeyboardInterrupt(), MemoryError("too large"), ValueError("of a chart")])
def test_a_page_that_cannot_be_made_costs_itself_and_a_line(
    error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def made(*_: object, **__: object) -> str:
        raise error

    monkeypatch.setattr(page, "render", made)
    found = report(success=[success(spread(0.5))], latency=[latency_row()])
    paths, (said,) = views.write(found, tmp_path)
    assert [path.name for path in paths] == ["report.json"]
    assert said.startswith("no report.html: ") and (str(error) or "interrupted") in said


def test_a_terminal_without_unicode_gets_the_table_with_marks() -> None:
    found = report(
        success=[success(spread(0.9), name="l\xe4ufe \u2713"), success(spread(0.5), name="b" * 90)]
    )
    whole, marked = (views.terminal(found, encoding=encoding) for encoding in ("utf-8", "ascii"))
    assert "l\xe4ufe \u2713" in whole and f"{'b' * 40}\u2026{'b' * 39}" in whole
    assert "l?ufe ?" in marked and f"{'b' * 40}...{'b' * 39}" in marked
    assert len(marked.splitlines()) == len(whole.splitlines()) and "?" not in whole


def test_the_page_holds_everything_and_escapes_it() -> None:
    row = success(spread(0.4), declared(Target(value=0.8))).model_copy(update={"policy": "<b>mine</b>"})
    found = report(success=[row])
    text = page.render(found, views.sections(found))
    assert "&lt;b&gt;mine&lt;/b&gt;" in text and "<b>mine" not in text
    assert "BELOW TARGET" in text and "&lt;x&gt;" in text
    assert "http" not in text.replace("http-equiv", "").replace("http://www.w3.org/2000/svg", ""), (
        "no network"
    )
