"""What the report shows of tokenizers: their rows, and the pictures of their moves."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from il_bench.cli import app
from il_bench.report import plot, schema, views
from il_bench.report import vocabulary as pictures


def report(*rows: schema.TokenizerRow) -> schema.Report:
    return schema.Report.model_validate(
        {"created": "2026-01-02T03:04:05Z", "environment": {"cpu": "x"}, "tokenizers": rows}
    )


def line(*points: tuple[float, float]) -> tuple[tuple[float, float], ...]:
    return points


def tokenizer(name: str = "<b>bins</b>", **fields: Any) -> schema.TokenizerRow:
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
    return schema.TokenizerRow.model_validate({**values, **fields})


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
    assert "<details>" not in views.page(found, {"tokenizers": plot.render_tokenizers(found.tokenizers)})
    assert "3.25" in views.terminal(found)


def test_tables_show_what_each_stage_leaves_and_no_vocabulary() -> None:
    text = views.terminal(report(tokenizer(), tokenizer("k-means", stage_l1_px=None)))
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
    picture = pictures.render(row)
    assert picture.startswith(b"\x89PNG")
    assert pictures.render(row) == picture, "the same row, the same picture"
    turned = (row.vocabulary.moves[1].model_copy(update={"path": line((30.0, 0.0), (0.0, 20.0))}),)
    other = row.vocabulary.model_copy(update={"moves": row.vocabulary.moves[:1] + turned})
    assert pictures.render(row.model_copy(update={"vocabulary": other})) != picture


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
    text = views.terminal(found)
    assert text.splitlines()[-2:] == expected
    assert " floor " not in text.split("throughput")[1].splitlines()[1], "no column of its own"
    html = views.page(found, {})
    assert expected[0] in html and "indexing &lt;as many&gt; rows</p>" in html
    assert views.terminal(report(tokenizer())).count("floor") == 0
