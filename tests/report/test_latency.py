import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from il_bench.cli import app
from il_bench.report import latency, page, schema, views
from il_bench.report.rows import Latency
from tests.report.made import report


def row(what: str = "new chunk", **fields: Any) -> Latency:
    values = {
        **{"policy": "act", "what": what, "batch": 1, "device": "cpu", "mode": "eager", "n": 400},
        **{"p50_ms": 3.21, "p90_ms": 4.0, "p99_ms": 5.0, "peak_memory_mb": 1.5},
        **{"share_of_period": 0.0321, "jitter": 0.05, "stable": True, "cpu_share": 1.0},
    }
    return Latency(**values | fields)


def fresh(**fields: Any) -> Latency:
    empty = dict.fromkeys(("p50_ms", "p90_ms", "p99_ms", "share_of_period", "jitter"))
    return row("fresh process", n=1, first_call_ms=20.0, load_ms=300.0, resident_mb=512.0, **empty, **fields)


def test_the_calls_of_one_policy_and_batch_make_one_line() -> None:
    rows = [row(), row("queued action", p50_ms=0.2), row("predict_action_chunk", p50_ms=3.0)]
    rows += [row("control step", p50_ms=0.7, share_of_period=0.007, steps=6)]
    (line,) = latency.call_rows(rows)
    times = ("3.21, 4, 5", "5 %", "3.2 %", "0.2", "3", "0.7", "0.7 %")
    assert line == ("act", "1", "with", *times, "1.5 MB")
    assert len(line) == len(latency.COLUMNS)


def test_ways_to_run_a_policy_are_lines_of_their_own() -> None:
    ways = [{}, {"batch": 64}, {"processed": False}, {"mode": "compile"}, {"sampler": "DDPM-100"}]
    found = [line[:3] for line in latency.call_rows([row(**way) for way in ways])]
    assert ("act (compile)", "1", "with") in found and ("act (DDPM-100)", "1", "with") in found
    assert len(set(found)) == 5


def test_what_was_not_measured_is_a_dash_and_first_calls_have_a_table_of_their_own() -> None:
    rows = [row(p90_ms=None, p99_ms=None, jitter=None), fresh(peak_memory_mb=None)]
    (line,) = latency.call_rows(rows)
    assert line[3:7] == ("3.21, -, -", "-", "3.2 %", "-")
    assert latency.new_process_rows(rows) == [("act", "300", "20", "512 MB", "-")]


def test_the_floor_has_a_table_of_its_own() -> None:
    floor: dict[str, Any] = {"flops": 13_900_000, "floor_ms": 0.2}
    rows = [
        row(**floor, ratio_to_floor=16.05),
        row("predict_action_chunk", processed=False, **floor, ratio_to_floor=9.0),
        row("queued action", flops=0),
        row(policy="bc", flops=3_215_360, floor_ms=0.04, ratio_to_floor=8.0),
        row(policy="counts nothing"),
    ]
    assert latency.floor_rows(rows) == [
        ("act", "1", "13.9", "0.2", "16.1", "9"),
        ("bc", "1", "3.22", "0.04", "8", "-"),
    ]
    assert len(latency.floor_rows(rows)[0]) == len(latency.FLOOR_COLUMNS)
    assert any(note.startswith("floor: ") for note in latency.notes(rows))
    assert not any(note.startswith("floor: ") for note in latency.notes([row()]))
    assert "times the floor" in latency.section(rows).markdown()
    assert "times the floor" in page.render(report(latency=[*rows]), views.sections(report(latency=[*rows])))


def test_published_latencies_stand_beside_and_say_where_they_are_from() -> None:
    (said,) = [note for note in latency.notes([row()]) if note.startswith("published")]
    assert "other devices" in said and "act 8.63 on H200 (Patch Policy, table 3, secondary)" in said
    assert "vqbet" not in said, "only of policies that are in the table"
    assert "diffusion (DDIM, 10 steps) 100 on RTX 3080" in "".join(latency.notes([row(policy="diffusion")]))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"cpu_share": 0.4}, "1 of 2 rows got less than 95 % of a core"),
        ({"state": {"slowed_by": "hardware slowdown"}, "device": "cuda:0", "cpu_share": 0.1}, "slowed down"),
        ({"stable": False}, "still changing after warm-up"),
    ],
)
def test_what_disturbed_the_timing_is_said(fields: dict[str, Any], said: str) -> None:
    (note,) = [note for note in latency.notes([row(), row(policy="bc", **fields)]) if said in note]
    assert note.endswith(": bc")
    assert not any(said in note for note in latency.notes([row(), row(policy="bc")]))


def test_another_clock_than_the_walls_is_said() -> None:
    assert "process_time" not in "".join(latency.notes([row()]))
    assert "timed by process_time" in "".join(latency.notes([row(clock="process_time")]))


def test_every_view_shows_the_latencies(tmp_path: Path) -> None:
    found = report(latency=[row(), row("control step"), row(policy="bc"), fresh()])
    written = [path.name for path in views.write(found, tmp_path)[0]]
    assert written == ["report.json", "report.html"]
    assert schema.load(tmp_path / "report.json") == found
    for text in (views.terminal(found), (tmp_path / "report.html").read_text()):
        assert "3.21, 4, 5" in text and "published" in text and "512 MB" in text


def test_a_readme_table_is_made_from_a_report(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    schema.save(path, report(latency=[row(), fresh()]))
    done = CliRunner().invoke(app, ["report", "latency", str(path)])
    assert done.exit_code == 0 and done.output.startswith("| policy | batch | processing |")
    assert "| act | 1 | with | 3.21, 4, 5 | 5 % |" in done.output and "\n- published" in done.output
    schema.save(path, report())
    done = CliRunner().invoke(app, ["report", "latency", str(path)])
    assert done.exit_code != 0 and "holds no latency" in done.output


def test_a_report_of_before_is_still_read(tmp_path: Path) -> None:
    old = {name: getattr(row(), name) for name in list(Latency.model_fields)[:10]}
    values = json.loads(report().model_dump_json()) | {"latency": [old]}
    (tmp_path / "report.json").write_text(json.dumps(values))
    (found,) = schema.load(tmp_path / "report.json").latency
    assert (found.p50_ms, found.processed, found.steps) == (3.21, True, 1)
