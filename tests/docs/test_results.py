"""The tables on the pages of results are what the committed outcomes say."""

import json
from pathlib import Path

import pytest

from benchmarks import human_data, stress_figures
from il_bench.report import schema, stress
from il_bench.train import recipes

ROOT = Path(__file__).parents[2]


def of_stress(file: str) -> str:
    return stress.section(schema.load(ROOT / "benchmarks" / "results" / file).stress).markdown()


def latencies() -> str:
    times = json.loads((ROOT / "benchmarks" / "results" / "new-chunk-ms.json").read_text())
    return stress_figures.frequencies(
        schema.load(ROOT / "benchmarks" / "results" / "stress.json").stress, times
    )


@pytest.mark.parametrize(
    ("page", "printed", "again"),
    [
        ("human-data.md", human_data.table, "make human-table"),
        ("stress.md", lambda: of_stress("stress.json"), "make stress-figures"),
        ("stress.md", lambda: of_stress("stress-images.json"), "make stress-figures"),
        ("stress.md", latencies, "make stress-figures"),
    ],
    ids=["human data", "stress", "on images", "latency"],
)
def test_every_line_of_a_table_stands_on_its_page(page: str, printed, again: str) -> None:  # type: ignore[no-untyped-def]
    lines = (ROOT / "docs" / "results" / page).read_text(encoding="utf-8").splitlines()
    tables = [line for line in printed().splitlines() if line.startswith("| ")]
    assert tables
    assert [line for line in tables if line not in lines] == [], f"{page}: `{again}` prints other lines"


@pytest.mark.parametrize("policy", human_data.POLICIES)
def test_what_was_trained_on_human_data_is_the_recipe_that_is_there(policy: str) -> None:
    recipe = recipes.load(str(recipes.HERE / "human" / f"{policy}.toml"), "keypoints")
    trained = json.loads((human_data.TRAINED / f"{policy}.json").read_text())
    assert trained["recipe"] == recipe.model_dump(mode="json")
    assert trained["step"] == recipe.training.steps
