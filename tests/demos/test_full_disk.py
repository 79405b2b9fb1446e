"""A disk that is full while demonstrations are written: one sentence, and what was good stays.

A limit on the size of a file stands for the disk, as every library that writes meets it.
"""

from collections.abc import Callable
from pathlib import Path

import pytest

from il_bench.demos.build import build_pixels
from il_bench.demos.make import make_demos
from il_bench.demos.merge import merge_demos
from il_bench.demos.states import read_states
from il_bench.errors import IlBenchError
from tests.conftest import largest_file
from tests.demos.conftest import contents


@pytest.fixture(params=["make", "merge", "build", "video"])
def write(request: pytest.FixtureRequest, two_solved: Path, source: Path) -> Callable[[Path], object]:
    """Write demonstrations of a kind into a folder."""
    writers: dict[str, Callable[[Path], object]] = {
        "make": lambda output: make_demos(output, episodes=2, seed=3),
        "merge": lambda output: merge_demos([two_solved, source], output),
        "build": lambda output: build_pixels(read_states(source), output),
        "video": lambda output: build_pixels(read_states(source), output, video=True),
    }
    return writers[request.param]


def test_it_is_told_and_the_command_goes_on_when_there_is_room(
    write: Callable[[Path], object], tmp_path: Path
) -> None:
    write(tmp_path / "expected")
    expected = contents(tmp_path / "expected")
    sizes = sorted({len(content) // 2 for content in expected.values()})
    for size in sizes[:: max(1, len(sizes) // 4)]:
        with largest_file(size), pytest.raises(IlBenchError, match=r"out.*: cannot be written .*too large"):
            write(tmp_path / "out")
        assert not (tmp_path / "out").exists()
    write(tmp_path / "out")
    found = contents(tmp_path / "out")
    assert found.keys() == expected.keys()
    assert [name for name in found if name.endswith(".parquet") and found[name] != expected[name]] == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["expected", "out"]
