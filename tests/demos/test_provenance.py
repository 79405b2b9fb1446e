"""Where demonstrations come from: the file beside them is read as it was written, or refused."""

import shutil
from pathlib import Path

import pytest

from il_bench.demos import provenance
from il_bench.demos.provenance import Provenance
from tests.demos.conftest import facts_of, invoke
from tests.fuzzing import FUZZ, fuzz


@pytest.mark.parametrize("examples", FUZZ)
def test_no_third_outcome(examples: int, two_solved: Path, tmp_path: Path) -> None:
    root = shutil.copytree(two_solved, tmp_path / "copy")

    def write(path: Path, facts: Provenance) -> None:
        path.write_text(facts.model_dump_json())

    fuzz(root / provenance.FILE, lambda path: provenance.read(root), write, examples=examples)


def test_what_is_made_carries_hashes_of_its_values(two_solved: Path, built: Path, filmed: Path) -> None:
    assert {"action", "observation.state", "next.reward"} < facts_of(two_solved)["sha256"].keys()
    assert "observation.image" in facts_of(built)["sha256"]
    assert "videos/observation.image/chunk-000/file-000.mp4" in facts_of(filmed)["sha256"]


def test_a_frame_that_was_changed_is_told(built: Path, filmed: Path, tmp_path: Path) -> None:
    for data, which in ((built, "data/*/*.parquet"), (filmed, "videos/*/*/*.mp4")):
        root = shutil.copytree(data, tmp_path / data.name)
        (path,) = root.glob(which)
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
        result = invoke("check", root)
        assert result.exit_code == 2 and result.output.count("\n") == 1, result.output
        assert "is not what il_bench wrote there" in result.output or "damaged" in result.output
