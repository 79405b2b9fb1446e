"""`il-bench demos check`, and LeRobot's own checks and tools on data sets that were made here."""

import copy
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pygame
import pytest
from lerobot.datasets.dataset_tools import delete_episodes, recompute_stats
from lerobot.scripts.lerobot_edit_dataset import EditDatasetConfig, InfoConfig, handle_info

from il_bench.data import open_dataset
from il_bench.demos.check import check_dataset
from il_bench.demos.replay import Drawer
from tests.demos.conftest import Played, invoke, opened
from tests.small_policies import SMALL

HUMAN_DATA = os.environ.get("IL_BENCH_HUMAN_DATA")


def test_a_check_notices_other_frames(built: Path, played: Played, tmp_path: Path) -> None:
    image = played.image[[0, 5, 13, 14, 22]].copy()
    image[:, 20:40, 20:40] ^= 1
    frames = played.save_frames(tmp_path / "frames.npz", image=image)
    result = invoke("check", built, "--frames", frames)
    assert result.exit_code == 1
    assert "NOT OK  frames as stored: 95.660% of the pixels" in result.output
    for changed, message in (
        ({"index": np.array([0, 5, 13, 14, 23])}, "index: 23 is not a frame of this data set, which has 23"),
        ({"image": image[:4]}, "image: shape (4, 96, 96, 3)"),
        ({"index": np.zeros(5)}, "index: shape (5,) of float64"),
    ):
        frames = played.save_frames(tmp_path / "frames.npz", **changed)
        result = invoke("check", built, "--frames", frames)
        assert result.exit_code == 2 and message in result.output


def _edit_timestamps(root: Path) -> None:
    (path,) = root.glob("data/*/*.parquet")
    table = pq.read_table(path)
    place = table.schema.get_field_index("timestamp")
    stretched = (table["timestamp"].to_numpy() * np.float32(1.01)).astype(np.float32)
    pq.write_table(table.set_column(place, table.schema.field(place), [stretched]), path)


@pytest.mark.parametrize(
    ("edit_stats", "message"),
    [
        (lambda stats: stats.pop("action"), "statistics: ValueError: no statistics of action"),
        (lambda stats: stats["action"].update(max=[1.0, 2.0]), "action: max is"),
        (lambda stats: stats["observation.image"].update(mean=[0.5]), "must be (3,1,1)"),
        (None, "timestamps: ValueError: up to"),
    ],
)
def test_a_check_notices_damage(
    edit_stats: Callable[[dict[str, Any]], object] | None, message: str, built: Path, tmp_path: Path
) -> None:
    root = shutil.copytree(built, tmp_path / "copy")
    assert all(finding.passed for finding in check_dataset(root))
    if edit_stats is None:
        _edit_timestamps(root)
    else:
        path = root / "meta" / "stats.json"
        stats = json.loads(path.read_text())
        edit_stats(stats)
        path.write_text(json.dumps(stats))
    result = invoke("check", root)
    assert result.exit_code == 1
    assert "NOT OK" in result.output and message in result.output


# --- LeRobot's own ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["built", "filmed", "source", "two_solved"])
def test_data_sets_made_here_pass_lerobots_own_validation(
    which: str,
    request: pytest.FixtureRequest,
    source: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """LeRobot 0.6 checks frames where they are recorded and statistics where data sets are joined; the rest
    of its validation is that its tools take a data set.
    """
    found = open_dataset(source).root if which == "source" else request.getfixturevalue(which)
    root = shutil.copytree(found, tmp_path / "copy")
    findings = check_dataset(root)
    assert [finding.what for finding in findings if not finding.passed] == [], findings
    dataset = opened(root)
    before = copy.deepcopy(dataset.meta.stats)
    recomputed = recompute_stats(dataset).meta.stats
    for key in ("observation.state", "action", "next.reward"):
        for name in ("min", "max", "mean", "std", "count"):
            np.testing.assert_allclose(recomputed[key][name], before[key][name], rtol=1e-4, atol=1e-6)
    n_episodes = dataset.num_episodes
    handle_info(EditDatasetConfig(InfoConfig(show_features=True), repo_id="local/copy", root=str(root)))
    assert f"Total episode: {n_episodes}" in capsys.readouterr().out
    fewer = delete_episodes(opened(root), [0], output_dir=tmp_path / "fewer", repo_id="local/fewer")
    assert fewer.num_episodes == n_episodes - 1
    assert np.array_equal(fewer[0]["action"], dataset[dataset.meta.episodes["dataset_to_index"][0]]["action"])


@pytest.mark.slow
@pytest.mark.parametrize("which", ["built", "filmed"])
def test_lerobot_train_takes_it(which: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    root = request.getfixturevalue(which)
    policy = {"type": "act", "device": "cpu", "push_to_hub": False, **SMALL["act"]}
    arguments = [
        *(f"--policy.{key}={json.dumps(value).strip('"')}" for key, value in policy.items()),
        *("--dataset.repo_id=local/pixels", f"--dataset.root={root}", "--dataset.video_backend=pyav"),
        *("--batch_size=2", "--steps=2", "--num_workers=0", "--wandb.enable=false"),
        f"--output_dir={tmp_path / 'run'}",
    ]
    program = Path(sys.executable).with_name("lerobot-train")
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [program, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "run" / "checkpoints" / "last" / "pretrained_model" / "model.safetensors").exists()


# --- human demonstrations ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def human(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if HUMAN_DATA is None or not (Path(HUMAN_DATA) / "human_frames.npz").exists():
        pytest.skip("IL_BENCH_HUMAN_DATA names no human data with human_frames.npz")
    return Path(HUMAN_DATA)


def test_a_human_episode_looks_as_it_was_recorded(human: Path, tmp_path: Path) -> None:
    """The shortest, and the original frame of it."""
    arrays, frames = np.load(human / "human_demos.npz"), np.load(human / "human_frames.npz")
    ends = arrays["episode_ends"]
    episode = int(np.diff(ends, prepend=0).argmin())
    start, end = int(ends[episode - 1]), int(ends[episode])
    (which,) = np.flatnonzero((frames["index"] >= start) & (frames["index"] < end))
    one, frame = tmp_path / "one.npz", tmp_path / "frames.npz"
    episode = {key: arrays[key][start:end] for key in ("state", "action")}
    np.savez(one, **episode, episode_ends=[end - start])
    np.savez(frame, index=frames["index"][[which]] - start, image=frames["image"][[which]])
    result = invoke("build", "--from", one, "--frames", frame, "--output", tmp_path / "pixels")
    assert result.exit_code == 0, result.output
    assert "ok      frames as stored" in result.output


def _filled_as_before(
    surface: pygame.Surface, color: tuple[int, int, int], points: list[tuple[int, int]]
) -> None:
    """`draw_fillpoly` of pygame 2.1, which Diffusion Policy used: quotients are cut off, not rounded down."""
    edges = [sorted(edge, key=lambda point: point[1]) for edge in pairwise([points[-1], *points])]
    low, high = min(y for _, y in points), max(y for _, y in points)
    for y in range(low, high + 1):
        crossed = sorted(
            x1 + int((y - y1) * (x2 - x1) / (y2 - y1))
            for (x1, y1), (x2, y2) in edges
            if y1 <= y < y2 or (y1 != y2 and y == y2 == high)
        )
        for left, right in zip(crossed[::2], crossed[1::2], strict=False):
            pygame.draw.line(surface, color, (left, y), (right, y))
    for (x1, y1), (x2, y2) in edges:
        if low < y1 == y2 < high:
            pygame.draw.line(surface, color, (x1, y1), (x2, y2))


def test_the_originals_differ_in_how_pygame_filled_polygons_and_in_nothing_else(
    human: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = np.load(human / "human_frames.npz")
    state = np.load(human / "human_demos.npz")["state"][frames["index"]]

    def drawn(draw: Drawer) -> np.ndarray:
        return np.stack([draw(one[:2], one[2:]) for one in state])

    now = (drawn(Drawer()) == frames["image"]).all(axis=-1)
    assert 0.996 < now.mean() < 0.997
    monkeypatch.setattr("il_bench.pusht.renderer.pygame.draw.polygon", _filled_as_before)
    np.testing.assert_array_equal(drawn(Drawer()), frames["image"])


@pytest.mark.slow
def test_the_human_demonstrations_are_lerobot_pusht(human: Path, tmp_path: Path) -> None:
    result = invoke("build", "--from", human, "--workers", 2, "--output", tmp_path / "pusht")
    assert result.exit_code == 0, result.output
    assert "ok      numbers of lerobot/pusht: 206 episodes, 25650 frames, 10 fps" in result.output
    assert "ok      frames as stored" in result.output
