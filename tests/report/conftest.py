from pathlib import Path

import pytest

from il_bench.report import schema
from tests.report import recorded


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, schema.Report]:
    """The folder of a run with recordings, and its report; not to be changed."""
    folder = tmp_path_factory.mktemp("run")
    return folder, recorded.written(folder)
