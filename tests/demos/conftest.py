from collections.abc import Iterator

import datasets
import pytest


@pytest.fixture(scope="package", autouse=True)
def _on_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No files outside the temporary folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("huggingface"))
        patch.setenv("IL_BENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
