"""An episode shown again is the one that was counted."""

import io
import json
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from il_bench.cli import app
from il_bench.report import schema
from tests.report import recorded

SEED = recorded.SEEDS[3]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report in which `expert` is the planner, as everywhere."""
    folder = tmp_path_factory.mktemp("replayed")
    recorded.written(folder)
    return folder


def replay(*arguments: object) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["replay", *map(str, arguments)])
    return done.exit_code, done.output


@pytest.mark.parametrize("suffix", [".mp4", ".gif", ".png"])
def test_two_policies_side_by_side_become_a_file(folder: Path, tmp_path: Path, suffix: str) -> None:
    output = tmp_path / f"both{suffix}"
    status, said = replay(
        "expert", f"wander:{SEED}", "--seed", SEED, "--report", folder, "-o", output, "--size", 64
    )
    assert status == 0, said
    assert said.count("the recording in") == 2
    longest = max(
        episode.n_steps
        for row in schema.load(folder / "report.json").success
        for episode in row.episodes
        if episode.seed == SEED
    )
    if suffix == ".mp4":
        with av.open(io.BytesIO(output.read_bytes())) as video:
            frames = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
        assert (len(frames), frames[0].shape) == (longest + 1, (104, 128, 3))
        assert np.ptp(frames[0]) > 100, "not blank"
    else:
        with Image.open(output) as image:
            assert image.size == ((128, 104) if suffix == ".gif" else (8 * (64 + 4) // 2, 2 * (104 + 4) // 2))


def test_rolled_out_anew_it_is_equal_in_every_number_that_is_counted(folder: Path) -> None:
    status, said = replay(f"expert:{SEED}", "--report", folder, "--anew")
    assert status == 0, said
    assert "rolled out again" in said and "differ" not in said


def test_a_number_that_is_not_the_reports_is_an_error_that_names_it(folder: Path, tmp_path: Path) -> None:
    report = json.loads((folder / "report.json").read_text())
    (episode,) = [each for each in report["success"][1]["episodes"] if each["seed"] == SEED]
    episode["outside"] += 1
    (tmp_path / "report.json").write_text(json.dumps(report))
    status, said = replay(f"expert:{SEED}", "--report", tmp_path)
    assert status != 0
    assert "differs from the report" in said or "changed by hand" in said


def test_a_projects_policy_is_shown_from_its_recording_or_told_why_not(folder: Path) -> None:
    """`wander` is code of these tests: its command on the page names its row."""
    status, said = replay(f"wander:{SEED}", "--report", folder)
    assert status == 0 and "the recording in" in said
    status, said = replay(f"wander:{SEED}", "--report", folder, "--anew")
    assert status == 2
    assert "replay cannot roll it out, since tests.wander is not a checkpoint; run it again" in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["atc:3"], "atc: no such policy"),
        (["expert"], "which seed"),
        (["expert:3", "--seed", "4"], "two seeds"),
        (["expert:1000000"], "1000000 is not a seed to look at"),
        (["expert:3", "-o", "x.avi"], "x.avi must end in"),
        ([f"{name}:1" for name in "abcdefghi"], "up to 8 policies side by side, not 9"),
    ],
)
def test_what_cannot_be_shown_is_told_in_a_sentence(arguments: list[str], said: str) -> None:
    status, output = replay(*arguments)
    assert status == 2 and said in output and "Traceback" not in output


def test_a_report_that_is_not_there_is_an_error_and_its_file_stands_for_its_folder(
    folder: Path, tmp_path: Path
) -> None:
    status, said = replay(f"expert:{SEED}", "--report", tmp_path / "gone")
    assert status == 2 and "gone: no such folder" in said
    status, said = replay(f"expert:{SEED}", "--report", folder / "report.json")
    assert status == 0 and "the recording in" in said
