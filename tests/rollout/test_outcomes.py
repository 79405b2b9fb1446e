from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from il_bench.errors import IlBenchError
from il_bench.rollout.outcomes import Outcomes


def outcomes_of(seeds: list[int], seconds: float = 1.0) -> Outcomes:
    n = len(seeds)
    rewards = np.linspace(0.25, 1.0, n) if n else np.zeros(0)
    return Outcomes(np.array(seeds), rewards >= 1, rewards, np.arange(n) + 1, np.arange(n) * 2, seconds)


def test_outcomes_sum_up_and_join_in_seed_order() -> None:
    joined = Outcomes.concatenate([outcomes_of([7, 5]), outcomes_of([6, 1], 2.0)])
    assert joined.seeds.tolist() == [1, 5, 6, 7]
    assert joined.max_reward.tolist() == [1.0, 1.0, 0.25, 0.25]
    assert joined.success.tolist() == [True, True, False, False]
    assert (joined.n, len(joined), joined.seconds) == (4, 4, 3.0)
    assert (joined.success_rate, joined.mean_max_reward) == (0.5, 0.625)
    assert Outcomes.concatenate([]).n == 0
    assert np.isnan(Outcomes.concatenate([]).success_rate)
    assert np.isnan(Outcomes.concatenate([]).share_outside)


def test_episodes_are_taken_by_their_positions() -> None:
    outcomes = outcomes_of([7, 5, 9, 2], seconds=3.0)
    assert outcomes.take([3, 0]).to_records() == [outcomes.to_records()[3], outcomes.to_records()[0]]
    assert (outcomes.take(range(2)).seconds, outcomes.take([]).n) == (3.0, 0)
    with pytest.raises(IndexError):
        outcomes.take([4])


def test_outcomes_survive_as_records() -> None:
    outcomes = outcomes_of([3, 4, 9])
    records = outcomes.to_records()
    measured = {"seed": 4, "success": False, "max_reward": 0.625, "n_steps": 2, "outside": 2}
    unknown = dict.fromkeys(("final_coverage", "best_coverage", "last_reward", "sum_reward", "ending"))
    assert records[1] == measured | unknown
    older = [{name: value for name, value in record.items() if name in measured} for record in records]
    assert Outcomes.from_records(older).to_records() == records
    again = Outcomes.from_records(records, seconds=2.5)
    assert again.to_records() == records
    assert (again.seconds, again.success.dtype, again.seeds.dtype) == (2.5, np.bool_, np.int64)
    del records[2]["n_steps"]
    with pytest.raises(IlBenchError, match="record has no field 'n_steps'"):
        Outcomes.from_records(records)


def test_what_an_environment_does_not_tell_is_none_in_records() -> None:
    coverage, words = np.array([0.25, np.nan]), np.array(["stuck", ""])
    outcomes = replace(outcomes_of([3, 4]), final_coverage=coverage, ending=words)
    records = outcomes.to_records()
    assert [(each["final_coverage"], each["ending"]) for each in records] == [(0.25, "stuck"), (None, None)]
    assert Outcomes.from_records(records).to_records() == records


def test_outcomes_of_unequal_length_are_refused() -> None:
    with pytest.raises(IlBenchError, match=r"success must have shape \(2,\) as seeds, got \(1,\)"):
        Outcomes(np.arange(2), np.ones(1), np.ones(2), np.ones(2), np.ones(2))


@pytest.mark.parametrize(
    ("column", "values", "said"),
    [
        ("success", ["False", "True"], "success must be bool, got <U5 such as 'False'"),
        ("success", [0.7, 1.0], "success must be bool, got float64 such as 0.7"),
        ("success", [None, True], "success must be bool, got object such as None"),
        ("seeds", [1.5, 2.0], "seeds must be int64, got float64 such as 1.5"),
        ("max_reward", [1j, 0], "max_reward must be float64, got complex128"),
    ],
)
def test_a_column_of_something_else_is_refused(column: str, values: list[Any], said: str) -> None:
    columns = {**vars(outcomes_of([3, 4])), column: values}
    with pytest.raises(IlBenchError) as raised:
        Outcomes(**columns)
    assert said in str(raised.value)


def test_a_word_in_a_record_is_no_success() -> None:
    record = outcomes_of([3]).to_records()[0] | {"success": "no"}
    with pytest.raises(IlBenchError, match="success must be bool, got <U2 such as 'no'"):
        Outcomes.from_records([record])


def test_an_episode_cannot_count_twice() -> None:
    outcomes = outcomes_of([3, 4, 9])
    for twice in (
        lambda: Outcomes.concatenate([outcomes, outcomes_of([4])]),
        lambda: outcomes.take([0, 1, 1]),
    ):
        with pytest.raises(IlBenchError, match="seed 4 occurs more than once"):
            twice()
