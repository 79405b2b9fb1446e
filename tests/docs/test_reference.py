"""The reference pages are what the code says."""

from pathlib import Path

import pytest

from benchmarks import reference

FOLDER = Path(__file__).parents[2] / "docs"
PAGES = reference.pages()


@pytest.mark.parametrize("name", sorted(PAGES))
def test_page_is_what_the_code_says(name: str) -> None:
    written = (FOLDER / name).read_text(encoding="utf-8")
    assert written == PAGES[name], "run `make docs`, which writes the reference pages anew"
