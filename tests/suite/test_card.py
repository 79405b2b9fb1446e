"""`il-bench card`: results in a model card that people have written in."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from huggingface_hub import ModelCard
from typer.testing import CliRunner

from il_bench.cli import app
from il_bench.policies.checkpoint import Checkpoint
from il_bench.report import card, schema
from tests.gate.made import Target, spread
from tests.report.made import report
from tests.report.recorded import row

LEROBOTS = """---
# For reference on model card metadata, see the spec
# prettier-ignore
datasets: me/pusht
library_name: lerobot
license: apache-2.0
model_name: act
tags:
- robotics
- lerobot
---

# Model Card for act

A person wrote this.

## Evaluation

_No evaluation results have been provided for this policy yet._

---

## Citation
"""
THEIRS = """model-index:
- name: theirs
  results:
  - task:
      type: robotics
    dataset:
      name: Real robot
      type: me/robot
    metrics:
    - type: success
      value: 0.8

license: mit
"""


@pytest.fixture
def folder(tmp_path: Path, checkpoint: Path) -> Path:
    """A run's checkpoint, and a report of its weights."""
    place = tmp_path / "mine" / "checkpoints" / "001000" / "pretrained_model"
    place.mkdir(parents=True)
    for file in checkpoint.iterdir():
        (place / file.name).write_bytes(file.read_bytes())
    measured(tmp_path, place, 0.9)
    return place


def measured(folder: Path, checkpoint: Path, rate: float) -> None:
    found = row("mine", spread(rate, 1000), target=Target(value=0.8, required=True))
    found = found.model_copy(update={"sha256": Checkpoint.find(checkpoint).sha256})
    schema.save(folder / "report.json", report(success=[row("other", spread(0.5)), found]))


def carded(folder: Path, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["card", str(folder), "--report", str(folder.parents[3]), *arguments])


def of_hub(path: Path) -> dict[str, Any]:
    """The metrics as the Hub's own library reads them."""
    data = ModelCard(path.read_text(encoding="utf-8"), ignore_metadata_errors=False).data
    return {each.metric_type: each for each in data.eval_results or ()}


def test_lerobots_card_is_filled_where_it_asks_for_results(folder: Path) -> None:
    path = folder / "README.md"
    path.write_text(LEROBOTS, encoding="utf-8")
    done = carded(folder)
    assert done.exit_code == 0 and f"{path}: written; hf upload USER/NAME {folder}" in done.output
    text = path.read_text(encoding="utf-8")
    assert card.PLACEHOLDER not in text
    before, _, after = text.partition(card.BEGIN)
    ours, _, after = after.partition(card.END)
    assert after == "\n\n---\n\n## Citation\n" and before.endswith("## Evaluation\n\n")
    assert re.sub(r"model-index:\n(.*\n)*?---", "---", before) == LEROBOTS.partition(card.PLACEHOLDER)[0]
    assert "| success_rate | 0.900 [0.880, 0.918] | share of the episodes that succeed" in ours
    assert "1,000 episodes of at most 300 steps, on keypoints, from test seeds 200000-200999" in ours
    assert "il-bench evaluate FOLDER_OR_HUB_ID --seeds test --episodes 1000" in ours
    assert "Against its target: PASS (> 0.75 shown)" in ours
    found = of_hub(path)
    assert found["success_rate"].metric_value == 0.9
    assert found["success_rate"].metric_args["low"] == pytest.approx(0.880, abs=1e-3)
    assert found["success_rate"].dataset_split == "test seeds 200000-200999"


def test_the_same_results_again_leave_the_file_alone(folder: Path) -> None:
    assert ": written; " in carded(folder).output
    once = (folder / "README.md").read_bytes()
    assert ": as it was; " in carded(folder).output
    assert (folder / "README.md").read_bytes() == once


@pytest.mark.parametrize("ends", ["\n", "\r\n"])
@pytest.mark.parametrize("start", ["", LEROBOTS, "# Mine\n\nNo metadata.", f"---\n{THEIRS}---\n# Mine\n"])
def test_the_same_results_again_change_nothing(start: str, ends: str) -> None:
    good, better = (row("mine", spread(rate, 1000)) for rate in (0.9, 0.95))
    whole, named = report(success=[good]), {"name": "mine", "where": "README.md"}
    once = card.filled(start.replace("\n", ends), good, whole, **named)
    assert card.filled(once, good, whole, **named) == once
    assert "0.950" in (other := card.filled(once, better, whole, **named)) and "0.900" not in other
    assert card.filled(other, good, whole, **named) == once
    if start:
        assert ("\r\n" in once) is (ends == "\r\n")


def test_empty_metadata_end_where_they_end() -> None:
    text = "# Mine\n\n---\n\nBelow a line across the page.\n"
    good = row("mine", spread(0.9))
    filled = card.filled(f"---\n---\n{text}", good, report(success=[good]), name="mine", where="README.md")
    assert filled.startswith("---\nmodel-index:") and f"\n---\n{text}" in filled


def test_what_others_have_put_into_the_metadata_stays(folder: Path) -> None:
    path = folder / "README.md"
    path.write_text(f"---\n{THEIRS}---\n# Mine\n")
    carded(folder)
    text = path.read_text()
    assert (
        text.startswith("---\nmodel-index:\n- name: theirs\n") and "\n\nlicense: mit\n---\n# Mine\n" in text
    )
    assert of_hub(path)["success"].metric_value == 0.8
    assert of_hub(path)["success_rate"].metric_value == 0.9


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("---\nmodel-index: 3\n---\n", "model-index is not a list of models with results"),
        ("---\na: [\n---\n", "its metadata are not valid YAML"),
        (f"# x\n{card.BEGIN}\n", "il_bench's marks around its results are damaged"),
    ],
)
def test_a_card_that_cannot_be_filled_is_left_alone(folder: Path, text: str, said: str) -> None:
    path = folder / "README.md"
    path.write_text(text)
    done = carded(folder)
    assert done.exit_code == 2 and f"il-bench: {path}: {said}" in done.output
    assert path.read_text() == text


def test_an_environment_of_ones_own_is_not_called_pusht() -> None:
    own = row("mine", spread(0.9), "reach")
    text = card.filled("", own, report(success=[own]), name="mine", where="README.md")
    assert "### reach\n" in text and "type: reach\n" in text
    assert (
        "PushT" not in text.replace("PushT's", "")
        and "gym-pusht" not in text.partition("###")[2].partition("Versions")[0]
    )


def test_results_of_other_weights_are_refused(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"optimizer_lr": 0.5}))
    done = carded(folder)
    assert done.exit_code == 2 and "holds no episodes of the weights in" in done.output
    assert not (folder / "README.md").exists()
    shipped = CliRunner().invoke(app, ["card", "act"])
    assert shipped.exit_code == 2 and "a card belongs to a checkpoint" in shipped.output
