from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from il_bench.errors import IlBenchError
from il_bench.plugin import collect
from il_bench.policies.checkpoint import load_policy
from il_bench.policies.checkpoint.loaded_policy import wrap_object
from il_bench.report import stress as table
from il_bench.report.schema import Stress
from il_bench.rollout import Outcomes, RunBlock, rollout
from il_bench.stress import curves, realtime
from il_bench.stress.arms import ARMS, arms_for, check_names
from tests.rollout.policies import Wander

N = 200
TARGET = {
    "metric": "success_rate",
    "value": 0.9,
    "margin": 0.05,
    "required": True,
    "decision": "PASS",
    "evidence": {},
}


def outcomes(n_successes: int) -> Outcomes:
    success = np.arange(N) < n_successes
    return Outcomes(np.arange(N), success, success.astype(float), np.full(N, 9), np.zeros(N, int))


def row_of(name: str, *n_successes: int) -> Stress:
    policy = wrap_object(Wander(), name="wander", checkpoint="")
    return curves.row_of(policy, ARMS[name], [outcomes(n) for n in n_successes])


def test_a_curve_by_hand() -> None:
    row = row_of("delay", 200, 180, 100, 0)
    assert [rate.estimate for rate in row.success_rate] == [1.0, 0.9, 0.5, 0.0]
    assert [each.estimate for each in row.difference] == pytest.approx([-0.1, -0.5, -1.0])
    assert all(each.low <= each.estimate <= each.high for each in row.difference)
    assert row.difference[0].high < 0 and row.difference[2].high < -0.9
    assert row.area.estimate == pytest.approx((0.95 + 0.7 + 0.25) / 3)  # by trapezoids
    assert row.success[2] == "1" * 100 + "0" * 100


def test_a_target_of_a_level_stands_beside_its_rate_and_decides_the_exit_status() -> None:
    row = row_of("delay", 200, 180, 100, 0)
    for decision, status in (("PASS", 0), ("INCONCLUSIVE", 6), ("FAIL", 1)):
        fields = row.model_dump(mode="json") | {"targets": {"2": {**TARGET, "decision": decision}}}
        assert collect.Run([{"section": "stress", "row": fields}]).exit_status == status
        assert (
            f"0.500 (-0.500)* {decision} (0.9)" in table.section([Stress.model_validate(fields)]).markdown()
        )


def test_nothing_changed_is_no_difference() -> None:
    row = row_of("delay", 150, 150, 150, 150)
    assert row.area.estimate == pytest.approx(0.75)
    for each in row.difference:
        assert each.estimate == 0 and each.low <= 0 <= each.high


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("success", ("1" * N,) * 3, "success has 3 values; 3 levels give 4"),
        ("success", ("1" * N,) * 4, "does not follow from success"),
        ("success", ("1" * 9,) * 4, "does not follow from success"),
        ("targets", {"3": TARGET}, "targets.3: no such level"),
    ],
)
def test_a_row_that_contradicts_itself_is_refused(field: str, value: Any, said: str) -> None:
    fields = row_of("delay", 200, 180, 100, 0).model_dump() | {field: value}
    with pytest.raises(ValidationError, match=said):
        Stress.model_validate(fields)


def test_the_table_has_a_row_a_level_and_marks_what_is_shown() -> None:
    found = table.section([row_of("delay", 200, 200, 100, 0), row_of("push", 200, 200, 200, 200)])
    levels, areas = found.tables
    assert [row[0] for row in levels.rows][:4] == ["undisturbed", "delay 1", "delay 2", "delay 4"]
    assert [row[1] for row in levels.rows][1:3] == ["1.000 (+0.000)", "0.500 (-0.500)*"]
    assert [row[0] for row in areas.rows] == ["delay", "push"]


class Rolls:
    """Rolls `Wander` out, and remembers what was asked for."""

    def __init__(self, workers: int = 1) -> None:
        self.cells: dict[str, Outcomes] = {}
        self.workers = workers

    def __call__(self, cell: str, block: RunBlock | None) -> Outcomes:
        source = Wander() if self.workers == 1 else Wander
        self.cells[cell] = rollout(source, range(200000, 200100), block=block, workers=self.workers)
        return self.cells[cell]


@pytest.fixture
def short_episodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("il_bench.rollout.blocks.MAX_STEPS", 30)


@pytest.mark.usefixtures("short_episodes")
def test_every_arm_changes_the_episodes_and_repeats_to_the_bit() -> None:
    policy = wrap_object(Wander(), name="wander", checkpoint="")
    arms = [arm for arm in arms_for(policy) if arm.name != "push"]  # which comes at step 20 at the earliest
    first, again = Rolls(), Rolls()
    rows = [*curves.measure(policy, arms, first)]
    for arm in arms[::4]:
        again(arm.cell(arm.levels[-1]), arm.block(arm.levels[-1]))
    assert [row.arm for row in rows] == [arm.name for arm in arms]
    undisturbed = first.cells.pop(curves.UNDISTURBED)
    assert len(first.cells) == sum(len(arm.levels) for arm in arms)
    for cell, found in first.cells.items():
        assert (found.best_coverage != undisturbed.best_coverage).any(), cell
    for cell, found in again.cells.items():
        assert found.best_coverage.tolist() == first.cells[cell].best_coverage.tolist(), cell


@pytest.mark.slow
def test_workers_make_no_difference() -> None:
    alone, two = Rolls(), Rolls(workers=2)
    for name in ("noise", "wait"):
        arm = ARMS[name]
        for rolls in (alone, two):
            rolls(arm.cell(arm.levels[0]), arm.block(arm.levels[0]))
    for cell, found in alone.cells.items():
        assert found.to_records() == two.cells[cell].to_records()


def test_arms_are_for_policies_that_they_make_a_difference_to() -> None:
    expert, bet = load_policy("expert"), load_policy("bet")
    assert "overlap" not in [arm.name for arm in arms_for(expert)]
    assert {"overlap", "noise"} < {arm.name for arm in arms_for(bet)}
    assert not {"blur", "shift"} & {arm.name for arm in arms_for(bet)}
    assert [arm.name for arm in arms_for(bet, ("push", "delay"))] == ["delay", "push"]
    with pytest.raises(IlBenchError, match="--arm: 'dealy' is not a stress arm; use delay, wait"):
        check_names(["dealy"])


@pytest.mark.parametrize(
    ("ms", "hz", "steps"),
    [(3, 10, 1), (100, 10, 1), (100.5, 10, 2), (41, 50, 3), (41, 100, 5), (0.01, 10, 1)],
)
def test_a_latency_in_control_steps(ms: float, hz: float, steps: int) -> None:
    assert realtime.latency_steps(ms, hz) == steps


def test_the_frequency_at_which_success_falls() -> None:
    """At 20 ms, three steps of latency are reached above 100 Hz."""
    assert realtime.most_hz(row_of("wait", 200, 199, 150, 0), 20.0) == (100.0, False)
    assert realtime.most_hz(row_of("wait", 200, 150, 150, 0), 20.0) == (50.0, False)
    assert realtime.most_hz(row_of("wait", 200, 200, 200, 191), 20.0) == (250.0, True)
    assert realtime.most_hz(row_of("overlap", 200, 150, 0, 0, 0), 20.0) == (0.0, False)
    with pytest.raises(IlBenchError, match="'delay' counts no latency; use wait or overlap"):
        realtime.most_hz(row_of("delay", 200, 150, 0, 0), 20.0)


def test_deadline_misses() -> None:
    assert realtime.deadline_misses([5, 15, 25, 9], hz=100) == 0.5
