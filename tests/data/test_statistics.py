"""Statistics are checked against the data they are of, and computed where they are missing."""

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lerobot.datasets.lerobot_dataset import LeRobotDataset

from il_bench.data import open_dataset, statistics
from il_bench.errors import IlBenchError
from tests.data.conftest import make_buffer, save_npz

READ = ("observation.state", "observation.environment_state", "action")
Stats = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> LeRobotDataset:
    return open_dataset(save_npz(tmp_path_factory.mktemp("some"), **vars(make_buffer((40, 60), seed=1))))


@pytest.fixture
def stats(dataset: LeRobotDataset) -> Iterator[Stats]:
    """The data set's statistics, to be changed."""
    before = dataset.meta.stats
    dataset.meta.stats = copy.deepcopy(before)
    yield dataset.meta.stats
    dataset.meta.stats = before


def test_what_lerobot_wrote_is_right_and_is_computed_again(small: LeRobotDataset) -> None:
    for data in (small, open_dataset("expert")):
        assert statistics.prepare("here", data, READ) == []
        assert [statistics.problem(data, key, exact=True) for key in data.features] == [""] * len(
            data.features
        )
        computed = statistics.compute(data, READ)
        for key in READ:
            for name, value in data.meta.stats[key].items():
                np.testing.assert_allclose(computed[key][name], value, rtol=1e-12, err_msg=f"{key} {name}")


@pytest.mark.parametrize(
    ("damage", "missing"),
    [
        (lambda stats: stats.pop("action"), ["action"]),
        (lambda stats: stats["action"].pop("std"), ["action"]),
        (lambda stats: stats["action"].clear(), ["action"]),
        (lambda stats: stats.clear(), list(READ)),
        (lambda stats: stats.pop("next.reward"), []),
    ],
)
def test_what_is_missing_is_computed(
    damage: Callable[[Stats], object], missing: list[str], dataset: LeRobotDataset, stats: Stats
) -> None:
    right = copy.deepcopy(stats)
    damage(stats)
    assert statistics.prepare("here", dataset, READ) == missing
    for key in READ:
        np.testing.assert_allclose(dataset.meta.stats[key]["std"], right[key]["std"], rtol=1e-12)
    assert statistics.prepare("here", dataset, READ) == []


def test_a_data_set_without_any_is_given_them(dataset: LeRobotDataset, stats: Stats) -> None:
    dataset.meta.stats = None
    assert statistics.prepare("here", dataset, READ) == list(READ)


def of_action(**changes: Any) -> Callable[[Stats], object]:
    return lambda stats: stats["action"].update(
        {name: np.atleast_1d(value) for name, value in changes.items()}
    )


def scaled(factor: float, shift: float = 0.0) -> Callable[[Stats], object]:
    """The statistics of other data: these, stretched and moved."""

    def change(stats: Stats) -> None:
        for name, value in stats["action"].items():
            if name != "count":
                stats["action"][name] = value * factor + (0 if name == "std" else shift)

    return change


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (of_action(mean=[np.nan, 1.0]), r"action: mean is \[nan  1\.\], not finite"),
        (of_action(std=[np.inf, 1.0]), "action: std is .*not finite"),
        (of_action(min=["a", "b"]), "action: min is .*not finite numbers"),
        (of_action(count=[np.nan]), "action: count is .*not finite"),
        (of_action(count=[1, 2]), "action: Shape of 'count'"),
        (of_action(max=[500.0]), r"action: max has shape \(1,\), and the data \(2,\)"),
        (of_action(mean=[[1.0, 2.0]]), "action: "),
        (of_action(min=[0, 0], max=[0, 0], mean=[0, 0], std=[0, 0]), "action: max is"),
        (of_action(std=[0.0, 0.0]), "action: std is"),
        (of_action(std=[-80.0, 80.0]), "action: std is .*which no values"),
        (of_action(std=[1e6, 80.0]), "action: std is .*which no values"),
        (of_action(std=[1e-3, 1e-3], count=[20000]), "action: std is .*too little for data from"),
        (of_action(mean=[0.0, 0.0]), "action: mean is .*outside min and max"),
        (of_action(mean=[120.0, 256.0]), "action: mean is .* in the data"),
        (of_action(std=[20.0, 20.0]), "action: std is .* in the data"),
        (scaled(1 / 512), "action: max is"),
        (scaled(1 / 256, -1), "action: max is"),
        (scaled(0.5), "action: max is"),
        (scaled(1.0, 100.0), "action: min is"),
    ],
)
def test_what_is_wrong_is_named_with_the_way_out(
    damage: Callable[[Stats], object], said: str, dataset: LeRobotDataset, stats: Stats
) -> None:
    damage(stats)
    with pytest.raises(IlBenchError, match=rf"^here: meta/stats\.json: {said}.*; remove that file to have"):
        statistics.prepare("here", dataset, READ)
    assert statistics.prepare("here", dataset, READ[:2]) == []  # what is not read does no harm


def test_statistics_of_more_data_than_these_are_right(dataset: LeRobotDataset, stats: Stats) -> None:
    """Of a part of a data set, or of several that are trained on in turns."""
    stats["action"] |= {name: np.array([value] * 2) for name, value in (("min", 0.0), ("max", 512.0))}
    stats["action"] |= {
        "mean": np.array([250.0, 260.0]),
        "std": np.array([90.0] * 2),
        "count": np.array([9000]),
    }
    assert statistics.prepare("here", dataset, READ) == []
    assert "min is" in statistics.problem(dataset, "action", exact=True)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "broken JSON"),
        ("[]", "holds a list, not an object with fields"),
        ('{"action": 3}', "action = 3 is not an array of numbers"),
        ('{"next.reward": {"mean": "much"}}', "next.reward.mean = 'much' is not an array of numbers"),
        ('{"action": {"mean": [1, [2]]}}', r"action\.mean = .* is not an array"),
        ('{"action": {"mean": {}}}', r"action\.mean = .* is not an array"),
        ('{"action": {"mean": [null]}}', r"action\.mean = .* is not an array"),
    ],
)
def test_a_file_that_lerobot_could_not_read_is_named(content: str, said: str, tmp_path: Path) -> None:
    from il_bench.data.lerobot_folder import check_statistics_file

    (tmp_path / "meta").mkdir()
    (tmp_path / "meta" / "stats.json").write_text(content)
    with pytest.raises(IlBenchError, match=rf"stats\.json: {said}.*; remove it to have the statistics"):
        check_statistics_file(tmp_path)
