"""What the report shows of tokenizers: their rows, and the pictures of their moves."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from il_bench.cli import app
from il_bench.plugin import collect
from il_bench.policies.checkpoint import WEIGHTS, ZOO
from il_bench.report import moves, page, plot, schema, table, views


def report(*rows: schema.Tokenizer) -> schema.Report:
    return schema.Report.model_validate(
        {"created": "2026-01-02T03:04:05Z", "environment": {"cpu": "x"}, "tokenizers": rows}
    )


def line(*points: tuple[float, float]) -> tuple[tuple[float, float], ...]:
    return points


def tokenizer(name: str = "<b>bins</b>", **fields: Any) -> schema.Tokenizer:
    right, down = line((10.0, 0.0), (20.0, 0.0)), line((0.0, 10.0), (0.0, 20.0))
    vocabulary = schema.Vocabulary(
        relative=True,
        n_moves=2,
        counts=(9, 1),
        moves=(schema.Move(indices=(3, 1), path=right), schema.Move(indices=(0, 2), path=down)),
        demonstration=schema.Demonstration(
            episode=4,
            indices=((3, 1),),
            path=line((99.0, 9.0), (99.0, 19.0)),
            decoded=line((98.0, 9.0), (99.0, 22.0)),
        ),
    )
    values = {
        "tokenizer": name,
        "data": "expert",
        "codebook_size": 4,
        "num_quantizers": 2,
        "bits_per_chunk": 4.0,
        "l1_px": 3.25,
        "stage_l1_px": (7.5, 3.25),
        "usage": 0.5,
        "perplexity": 1.4,
        "vocabulary": vocabulary,
    }
    return schema.Tokenizer.model_validate({**values, **fields})


def test_a_report_from_before_tokenizers_had_pictures_still_reads(tmp_path: Path) -> None:
    contract = {
        "tokenizer",
        "codebook_size",
        "num_quantizers",
        "bits_per_chunk",
        "l1_px",
        "usage",
        "perplexity",
    }
    old = {key: value for key, value in tokenizer().model_dump(mode="json").items() if key in contract}
    speed = {"what": "encode", "batch": 1, "device": "cpu", "per_second": 2.0}
    speed |= {"ratio_to_reference": None, "reference": None}
    written = json.loads(report().model_dump_json()) | {"tokenizers": [old], "throughput": [speed]}
    (tmp_path / "report.json").write_text(json.dumps(written))
    found = schema.load(tmp_path / "report.json")
    assert found.tokenizers[0].vocabulary is None
    assert "<details>" not in page.render(found, b"", plot.render_tokenizers(found.tokenizers))
    assert "3.25" in table.render(found)


def test_tables_show_what_each_stage_leaves_and_no_vocabulary() -> None:
    text = table.render(report(tokenizer(), tokenizer("k-means", stage_l1_px=None)))
    assert "7.5, 3.25" in text
    assert "stage_l1_px" in text and "vocabulary" not in text and "episode" not in text


def test_files_of_a_run_with_tokenizers_show_their_moves(tmp_path: Path) -> None:
    found = report(tokenizer(), tokenizer("k-means", vocabulary=None))
    paths = views.write(found, tmp_path)
    assert [path.name for path in paths] == ["report.json", "report.png", "tokenizers.png", "report.html"]
    assert schema.load(paths[0]) == found
    text = paths[-1].read_text()
    assert text.count("<details><summary>&lt;b&gt;bins&lt;/b&gt;, expert demonstrations</summary>") == 1
    assert text.count("<details>") == 1 and text.count("data:image/png;base64,") == 3
    assert "<b>bins" not in text and "http" not in text


@pytest.mark.parametrize("relative", [True, False])
def test_the_picture_of_a_vocabulary_is_the_vocabularys(relative: bool) -> None:
    row = tokenizer()
    assert row.vocabulary is not None
    row = row.model_copy(update={"vocabulary": row.vocabulary.model_copy(update={"relative": relative})})
    picture = moves.render(row)
    assert picture.startswith(b"\x89PNG")
    assert moves.render(row) == picture, "the same row, the same picture"
    turned = (row.vocabulary.moves[1].model_copy(update={"path": line((30.0, 0.0), (0.0, 20.0))}),)
    other = row.vocabulary.model_copy(update={"moves": row.vocabulary.moves[:1] + turned})
    assert moves.render(row.model_copy(update={"vocabulary": other})) != picture


def test_a_report_can_be_shown_again(tmp_path: Path) -> None:
    views.write(report(tokenizer("k-means")), tmp_path)
    before = (tmp_path / "report.html").read_text()
    for name in ("report.html", "tokenizers.png"):
        (tmp_path / name).unlink()
    result = CliRunner().invoke(app, ["report", "show", str(tmp_path / "report.json")])
    assert result.exit_code == 0
    assert "k-means" in result.output and "7.5, 3.25" in result.output
    assert (tmp_path / "report.html").read_text() == before
    assert (tmp_path / "tokenizers.png").exists()


def test_showing_what_is_no_report_is_one_line(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["report", "show", str(tmp_path / "report.json")])
    assert result.exit_code == 2
    assert "not a readable report.json" in result.output and "Traceback" not in result.output


@pytest.mark.parametrize("policy", ["bet", "vqbet"])
def test_the_vocabulary_of_a_policy_is_drawn(tmp_path: Path, policy: str) -> None:
    result = CliRunner().invoke(app, ["report", "vocabulary", policy, "--output", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert {"bet": "bet: KMeans", "vqbet": "vqbet: ResidualVQ"}[policy] in result.output
    learned_from = {"bet": "bet's own data: expert", "vqbet": "vqbet's own data: dagger"}[policy]
    assert f"{learned_from}, these episodes among it" in result.output
    assert (tmp_path / f"vocabulary-{policy}.png").read_bytes().startswith(b"\x89PNG")


def test_a_policy_without_a_vocabulary_is_refused_in_one_line(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["report", "vocabulary", "bc", "--output", str(tmp_path)])
    assert result.exit_code == 2
    assert "has no action tokenizer" in result.output
    assert list(tmp_path.iterdir()) == []


LONG = "a" * 300


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([LONG], f"{LONG}: no such policy. Give one of bet, vqbet, a pretrained_model"),
        (["bet", "--data", LONG], f"{LONG}: no such file or folder; expected a Hub id"),
        (["expert"], "expert: the planner has no action tokenizer; give"),
        (["nothing"], "nothing: no such policy. Give one of bet, vqbet, a pretrained_model"),
        (["broken"], "broken/model.safetensors: not a file; a pretrained_model folder holds its weights"),
        (["diverged"], "diverged/model.safetensors: tokenizer.centers holds NaN or infinity"),
    ],
)
def test_what_cannot_be_read_is_said_not_that_the_output_cannot_be_written(
    arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = {
        name: shutil.copytree(ZOO / "bet", tmp_path / name) / WEIGHTS for name in ("broken", "diverged")
    }
    tensors = load_file(weights["diverged"])
    tensors["tokenizer.centers"][3] = float("inf")
    save_file(tensors, weights["diverged"])
    weights["broken"].unlink()
    weights["broken"].mkdir()
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["report", "vocabulary", *arguments, "--output", "out"])
    assert result.exit_code == 2
    assert result.output.startswith(f"il-bench: {said}") and result.output.count("\n") == 1
    assert "cannot be written" not in result.output and not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    result = CliRunner().invoke(app, ["report", "vocabulary", "bet", "--output", str(tmp_path / "out")])
    assert result.exit_code == 2
    assert f"{tmp_path / 'out'}: cannot be written (File exists); give another --output" in result.output


def test_a_checkpoint_here_is_called_as_its_folder_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a copy of a shipped one is another's: its `dagger` may be without the expert's episodes."""
    shutil.copytree(ZOO / "vqbet", tmp_path / "mine")
    monkeypatch.chdir(tmp_path / "mine")
    result = CliRunner().invoke(app, ["report", "vocabulary", ".", "--output", "../out"])
    assert result.exit_code == 0, result.output
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["vocabulary-mine.png"]
    assert "mine: ResidualVQ" in result.output
    assert "mine's own data: dagger" in result.output and "among it" not in result.output


def test_each_floor_is_explained_under_the_table_of_throughput() -> None:
    def speed(what: str, floor: str | None, ratio: float | None) -> schema.Throughput:
        values = {"batch": 1, "device": "cpu", "per_second": 1.0, "ratio_to_reference": None}
        return schema.Throughput.model_validate(
            {**values, "what": what, "reference": None, "ratio_to_floor": ratio, "floor": floor}
        )

    rows = [
        speed("decode", None, 104.0),  # of a report from before floors had names
        speed("encode", schema.PRODUCTS, 0.5),
        speed("windows", "indexing <as many> rows", 0.2),
        speed("windows", "indexing <as many> rows", 0.3),
        speed("bins", None, None),
    ]
    found = report().model_copy(update={"throughput": tuple(rows)})
    expected = [
        "floor of decode, encode: the matrix products of its network (a table look-up does without them, so "
        "its ratio_to_floor can be above 1)",
        "floor of windows: indexing <as many> rows",
    ]
    text = table.render(found)
    assert text.splitlines()[-2:] == expected
    assert " floor " not in text.split("throughput")[1].splitlines()[1], "no column of its own"
    html = page.render(found, b"")
    assert expected[0] in html and "indexing &lt;as many&gt; rows</p>" in html
    assert table.render(report(tokenizer())).count("floor") == 0


def test_batches_stand_in_the_order_of_numbers() -> None:
    def speed(batch: int) -> dict[str, Any]:
        row = schema.Throughput(
            what="encode", batch=batch, device="cpu", per_second=1.0, ratio_to_reference=None, reference=None
        )
        return collect.Record("throughput", row).to_dict()

    found = collect.Run(map(speed, (1024, 64, 1, 16384))).report()
    assert [row.batch for row in found.throughput] == [1, 64, 1024, 16384]
