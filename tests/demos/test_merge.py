"""`il-bench demos merge`: all frames of all sources, in order, and where they came from."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from lerobot.datasets.aggregate import aggregate_datasets

from il_bench.data import Windows, open_dataset, statistics
from il_bench.data.convert import write_columns
from il_bench.demos.check import check_dataset
from il_bench.demos.describe import measure
from il_bench.demos.merge import merge_demos
from il_bench.errors import IlBenchError
from tests.demos.conftest import column, facts_of, invoke


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A replay buffer of three episodes."""
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("people") / "people.npz"
    state = rng.uniform(100, 400, (9, 5)).astype(np.float32)
    state[:, 4] /= 100
    np.savez(path, action=rng.uniform(0, 512, (9, 2)), state=state, episode_ends=np.array([4, 5, 9]))
    return path


def copy_of(source: Path, output: Path, robot_type: str) -> None:
    """One episode of a dataset, without its provenance."""
    dataset = open_dataset(source)
    end = dataset.meta.episodes["dataset_to_index"][0]
    columns = {key: column(dataset, key)[:end] for key in dataset.hf_dataset.column_names}
    write_columns(columns, np.array([end]), output)
    info = output / "meta" / "info.json"
    info.write_text(info.read_text().replace("2d pointer", robot_type))


def test_frames_and_provenance_follow_one_another(two_solved: Path, people: Path, tmp_path: Path) -> None:
    copy_of(two_solved, tmp_path / "other", "2d pointer")
    output = tmp_path / "both"
    result = invoke("merge", two_solved, people, "--output", output)
    assert result.exit_code == 0, result.output
    first, second, both = open_dataset(two_solved), open_dataset(people), open_dataset(output)
    assert f"{both.num_episodes} episodes, {both.num_frames} frames" in result.output
    assert both.num_episodes == first.num_episodes + 3
    for key in ("observation.state", "observation.environment_state", "action", "next.reward", "frame_index"):
        parts = np.concatenate([column(part, key) for part in (first, second)])
        np.testing.assert_array_equal(column(both, key), parts, err_msg=key)
    facts = facts_of(output)
    assert [(part["source"], part["n_episodes"]) for part in facts["parts"]] == [
        ("expert-demos", 2),
        ("people.npz", 3),
    ]
    assert [episode and episode["seed"] for episode in facts["episodes"]] == [3, 4, None, None, None]
    high = np.maximum(first.meta.stats["action"]["max"], second.meta.stats["action"]["max"])
    np.testing.assert_array_equal(both.meta.stats["action"]["max"], high)
    again = merge_demos([output, tmp_path / "other"], tmp_path / "three")
    assert again.num_episodes == both.num_episodes + 1
    facts = facts_of(tmp_path / "three")
    assert [part["source"] for part in facts["parts"]] == ["expert-demos", "people.npz", "other"]
    windows = Windows(both, {"action": [0.0, 0.1]})
    assert windows.batch(torch.tensor([len(windows) - 1]))["action_is_pad"].tolist() == [[False, True]]


def test_statistics_of_merged_data_are_theirs(two_solved: Path, people: Path, tmp_path: Path) -> None:
    """Also of where a frame is, which LeRobot leaves as it was in the parts."""
    output = tmp_path / "both"
    merge_demos([two_solved, people], output)
    assert [finding for finding in check_dataset(output) if not finding.passed] == []
    dataset = open_dataset(output)
    places = statistics.place_features(dataset)
    assert not any(statistics.problem(dataset, key, exact=True) for key in places)
    (path,) = output.glob("meta/episodes/*/*.parquet")
    for episode in pq.read_table(path).to_pylist():
        assert episode["stats/episode_index/max"] == [episode["episode_index"]]
        assert episode["stats/index/min"] == [episode["dataset_from_index"]]
        assert episode["stats/index/max"] == [episode["dataset_to_index"] - 1]


def test_a_merge_by_lerobot_passes_the_check_and_is_merged(
    two_solved: Path, people: Path, tmp_path: Path
) -> None:
    first, second = open_dataset(two_solved), open_dataset(people)
    ids, roots = [first.repo_id, second.repo_id], [Path(first.root), Path(second.root)]
    aggregate_datasets(ids, "local/theirs", roots, tmp_path / "theirs")
    (found,) = (finding for finding in check_dataset(tmp_path / "theirs") if "statistics" in finding.what)
    assert found.passed and "episode_index, index: not of these data" in found.detail
    merged = merge_demos([tmp_path / "theirs", two_solved], tmp_path / "more")
    assert not any(statistics.problem(merged, key, exact=True) for key in merged.features)


def test_missing_statistics_are_computed_and_wrong_ones_named(
    two_solved: Path, people: Path, tmp_path: Path
) -> None:
    copy, output = shutil.copytree(two_solved, tmp_path / "copy"), tmp_path / "both"
    path = copy / "meta" / "stats.json"
    right = json.loads(path.read_text())
    path.write_text(json.dumps({**right, "action": {**right["action"], "max": [1.0, 1.0]}}))
    result = invoke("merge", copy, people, "--output", output)
    assert result.exit_code == 2 and "copy: meta/stats.json: action: max is [1. 1.]" in result.output
    path.write_text(json.dumps({key: stats for key, stats in right.items() if key != "action"}))
    result = invoke("merge", copy, people, "--output", output)
    assert result.exit_code == 0, result.output
    assert "copy: meta/stats.json holds no statistics of action; they are computed" in result.output
    path.unlink()
    merge_demos([copy, people], tmp_path / "again")
    expected = merge_demos([two_solved, people], tmp_path / "expected").meta.stats
    for name in ("both", "again"):
        stats = open_dataset(tmp_path / name).meta.stats
        for key, feature in expected.items():
            for which, value in feature.items():
                np.testing.assert_allclose(stats[key][which], value, rtol=1e-9, err_msg=f"{key} {which}")
    assert not path.exists()


def test_what_cannot_be_merged_is_named(two_solved: Path, people: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    with pytest.raises(IlBenchError, match="expert-demos: given twice"):
        merge_demos([two_solved, two_solved], output)
    with pytest.raises(IlBenchError, match="at least two sources"):
        merge_demos([two_solved], output)
    with pytest.raises(IlBenchError, match="expert-demos: exists already"):
        merge_demos([two_solved, people], two_solved)
    copy_of(two_solved, tmp_path / "other", "arm")
    with pytest.raises(
        IlBenchError, match=r"other: differs from expert-demos \(robot_type was '2d pointer', is 'arm'\)"
    ):
        merge_demos([two_solved, tmp_path / "other"], output)
    assert not output.exists()


def test_provenance_of_other_data_is_named(two_solved: Path, people: Path, tmp_path: Path) -> None:
    """As when somebody has added episodes to a set that `demos make` wrote."""
    copy = tmp_path / "grown"
    shutil.copytree(two_solved, copy)
    path = copy / "meta" / "il_bench.json"
    facts = json.loads(path.read_text())
    path.write_text(json.dumps(facts | {"episodes": facts["episodes"][:-1]}))
    for use in (lambda: merge_demos([copy, people], tmp_path / "out"), lambda: measure(open_dataset(copy))):
        with pytest.raises(IlBenchError, match=r"il_bench\.json: lists 1 episodes, but the data hold 2"):
            use()
