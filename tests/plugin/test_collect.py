"""What a run makes of its records: the report, whoever finished first, and new baselines."""

import errno
import json
import os
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from il_bench.gate import baselines
from il_bench.gate.baselines import Target
from il_bench.machine import Numerics
from il_bench.plugin import collect
from il_bench.report import schema
from il_bench.report.rows import Throughput
from tests.gate.made import FINGERPRINT, OTHER_SHA, SHA, declared, measured, spread, write
from tests.plugin.test_settings import given
from tests.report import test_latency as latency
from tests.report.test_success import success


def record(row: schema.Success) -> dict[str, Any]:
    return collect.Record("success", row, FINGERPRINT).to_dict()


def test_rows_do_not_depend_on_who_finished_first() -> None:
    rows = [success(spread(0.5), name=name) for name in ("bc", "act")]
    one, other = (collect.Run(map(record, order)).report() for order in (rows, rows[::-1]))
    assert [row.policy for row in one.success] == ["act", "bc"]
    assert one.success == other.success


def test_of_a_test_that_ran_twice_the_last_row_counts() -> None:
    run = collect.Run([record(success(spread(0.1))), record(success(spread(0.9)))])
    (row,) = run.report().success
    assert row.success_rate.estimate > 0.5


def test_records_survive_the_way_through_pytest_xdist() -> None:
    values = record(success(spread(0.5), declared(Target(value=0.8), measured(spread(0.5)))))
    assert collect.Record.from_dict(json.loads(json.dumps(values))).to_dict() == values


def broken(**changes: Any) -> dict[str, Any]:
    """A record of `bet`'s row that is none."""
    values = record(success(spread(0.5), name="bet"))
    return {**values, "row": {**values["row"], **changes}}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (broken(n_episodes=-1), "a row of success: n_episodes = -1"),
        (broken(success_rate={"estimate": 7.0, "low": 0.0, "high": 1.0}), "a row of success: "),
        (broken(episodes=[{"seed": 3}]), "a row of success: episodes.0.success: Field required"),
        ({"section": "success"}, "a row of success: "),
        ({"section": "gossip", "row": {}}, "a row of section = 'gossip': use one of success, "),
    ],
)
def test_a_row_that_cannot_be_right_costs_no_other(tmp_path: Path, values: dict[str, Any], said: str) -> None:
    good, settings = record(success(spread(0.5))), given(tmp_path)
    text, status = collect.finish([values, good], settings, width=None, color=False)
    assert status == 1 and f"NOT IN THE REPORT: {said}" in text
    (row,) = schema.load(settings.report / "report.json").success
    assert row == schema.Success.model_validate(good["row"]) and "act" in text


def test_updating_replaces_what_was_measured_and_leaves_targets(tmp_path: Path) -> None:
    path = tmp_path / "baselines.json"
    old = measured(spread(0.2), sha256=OTHER_SHA, margin=0.1)
    write(path, declared(Target(value=0.8), old))
    (said,) = collect.update_baselines(collect.Run([record(success(spread(0.5)))]), path)
    entry = baselines.load(path).entry("act", "keypoints")
    assert entry.target == Target(value=0.8)
    assert entry.baseline is not None and entry.baseline.measured == datetime.now(UTC).date()
    assert entry.baseline.same_episodes(measured(spread(0.5), margin=0.1))
    assert said.startswith(f"act (keypoints): success_rate {spread(0.5).success_rate:.3f} (200 episodes")
    assert f"it was success_rate {spread(0.2).success_rate:.3f}" in said
    (said,) = collect.update_baselines(collect.Run([record(success(spread(0.5)))]), path)
    assert said.startswith("act (keypoints): unchanged")


@pytest.mark.parametrize(
    "row",
    [
        success(spread(0.5, first=100_000)),
        success(spread(0.5, first=200_050)),
        success(spread(0.5), sha256=None),
    ],
    ids=["validation seeds", "not from the first seed", "fresh weights"],
)
def test_updating_ignores_what_is_no_baseline(tmp_path: Path, row: schema.Success) -> None:
    path = tmp_path / "baselines.json"
    assert collect.update_baselines(collect.Run([record(row)]), path) == []
    assert not path.exists()


def test_updating_does_not_shorten_a_baseline(tmp_path: Path) -> None:
    path = tmp_path / "baselines.json"
    write(path, declared(baseline=measured(spread(0.2))))
    (said,) = collect.update_baselines(collect.Run([record(success(spread(0.9, n=10)))]), path)
    assert said == "act (keypoints): kept: the run has only 10 of 200 episodes"
    assert baselines.load(path) == declared(baseline=measured(spread(0.2)))


def test_a_shown_regression_is_not_recorded_without_consent_and_costs_no_other_row(tmp_path: Path) -> None:
    path = tmp_path / "baselines.json"
    old = measured(spread(0.95), sha256=OTHER_SHA)
    write(path, declared(baseline=old))
    worse = {"gates": declared(baseline=old), "replacing": True}
    rows = [record(success(spread(0.5), **worse)), record(success(spread(0.5), name="bc"))]
    refused, new = collect.update_baselines(collect.Run(rows), path)
    assert refused.startswith(
        "act (keypoints): REFUSED, < baseline shown; was 0.950, is 0.500, lost 90, won 0"
    )
    assert "e.g. seeds 200002, 200004, " in refused and "--il-accept-regression (with --il-resume" in refused
    assert new.startswith("bc (keypoints): new, success_rate 0.500 (200 episodes")
    found = baselines.load(path)
    assert found.entry("act", "keypoints").baseline == old
    assert found.entry("bc", "keypoints").baseline is not None
    assert collect.Run(rows).exit_status == 1

    consented = collect.Run([record(success(spread(0.5), **worse, accepted=True))])
    (said,) = collect.update_baselines(consented, path)
    assert "; it was success_rate 0.950 (200 episodes, sha256 bbbb" in said and "lost 90, won 0" in said
    assert baselines.load(path).entry("act", "keypoints").baseline.sha256 == SHA
    assert consented.exit_status == 0


@pytest.mark.parametrize("lost", ["report.json", "report.html", "baselines.json"])
def test_a_file_that_cannot_be_written_costs_no_other(
    lost: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was there before stays whole, and the table is shown in any case."""
    folder = tmp_path / "report"
    folder.mkdir()
    files = {name: folder / name for name in ("report.json", "report.html")}
    files["baselines.json"] = tmp_path / "baselines.json"
    write(files["baselines.json"], declared(baseline=measured(spread(0.5))))
    before = files["baselines.json"].read_bytes()
    for path in list(files.values())[:2]:
        path.write_bytes(before)
    replace = os.replace

    def full(source: str, target: Path) -> None:
        if target == files[lost]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(source, target)

    monkeypatch.setattr(os, "replace", full)
    settings = SimpleNamespace(
        report=folder,
        baselines=files["baselines.json"],
        update_baselines=True,
        history=None,
        numerics=Numerics(),
    )
    text, status = collect.finish([record(success(spread(0.9)))], settings, width=None, color=False)
    assert f"NOT WRITTEN: {files[lost]}: cannot be written (No space left on device, " in text
    assert "0.900 [0.85, 0.94]" in text and status == (lost in ("report.json", "baselines.json"))
    kept = {name for name, path in files.items() if path.read_bytes() == before}
    assert kept == ({"report.json", "report.html"} if lost == "report.json" else {lost})
    assert {path.suffix for path in folder.iterdir() if path.name != "lerobot"} <= {".json", ".html"}


def test_rows_that_differ_in_how_they_were_run_are_all_kept() -> None:
    ways = [{}, {"processed": False}, {"mode": "compile"}, {"sampler": "DDIM-5"}, {"batch": 64}]
    rows = [*(latency.row(**way) for way in ways), latency.fresh()]
    again = latency.row(n=401)
    kept = (
        collect.Run([collect.Record("latency", each).to_dict() for each in [*rows, again]]).report().latency
    )
    assert len(kept) == len(rows)
    assert [each for each in kept if each.n == 401] == [again]


def test_batches_stand_in_the_order_of_numbers() -> None:
    def speed(batch: int) -> dict[str, Any]:
        row = Throughput(
            what="encode", batch=batch, device="cpu", per_second=1.0, ratio_to_reference=None, reference=None
        )
        return collect.Record("throughput", row).to_dict()

    found = collect.Run(map(speed, (1024, 64, 1, 16384))).report()
    assert [row.batch for row in found.throughput] == [1, 64, 1024, 16384]
