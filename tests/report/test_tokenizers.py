"""What the report shows of tokenizers: their rows, and the pictures of their moves."""

import json
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from il_bench.cli import app
from il_bench.report import page, schema, views
from il_bench.report import vocabulary as pictures
from il_bench.report.rows import PRODUCTS, Throughput, TokenizerRow
from tests.report.made import report


def tokenizer(name: str = "<b>bins</b>", **fields: Any) -> TokenizerRow:
    values = {
        "tokenizer": name,
        "data": "expert",
        **{"codebook_size": 4, "num_quantizers": 2, "bits_per_chunk": 4.0},
        **{"l1_px": 3.25, "stage_l1_px": (7.5, 3.25), "usage": 0.5, "perplexity": 1.4},
        "vocabulary": {
            "relative": True,
            "n_moves": 2,
            "counts": (9, 1),
            "moves": [
                {"indices": (3, 1), "path": [(10.0, 0.0), (20.0, 0.0)]},
                {"indices": (0, 2), "path": [(0.0, 10.0), (0.0, 20.0)]},
            ],
            "demonstration": {
                "episode": 4,
                "indices": [(3, 1)],
                "path": [(99.0, 9.0), (99.0, 19.0)],
                "decoded": [(98.0, 9.0), (99.0, 22.0)],
            },
        },
    }
    return TokenizerRow.model_validate({**values, **fields})


def speed(what: str = "encode", ratio: float | None = None, floor: str | None = None) -> Throughput:
    empty = {"ratio_to_reference": None, "reference": None}
    values = {"what": what, "batch": 1, "device": "cpu", "per_second": 2.0, **empty}
    return Throughput.model_validate({**values, "ratio_to_floor": ratio, "floor": floor})


def test_a_report_from_before_tokenizers_had_pictures_still_reads(tmp_path: Path) -> None:
    newer = {"data", "stage_l1_px", "round_trip", "n_chunks", "fitted_on", "fit_seconds", "vocabulary"}
    speed_newer = {"ratio_to_floor", "floor", "peak_memory_mb"}
    written = json.loads(report().model_dump_json())
    written["tokenizers"] = [tokenizer().model_dump(mode="json", exclude=newer)]
    written["throughput"] = [speed().model_dump(mode="json", exclude=speed_newer)]
    (tmp_path / "report.json").write_text(json.dumps(written))
    found = schema.load(tmp_path / "report.json")
    assert found.tokenizers[0].vocabulary is None
    assert "3.25" in views.terminal(found)


def test_a_run_with_tokenizers_shows_what_each_stage_leaves_and_their_moves(tmp_path: Path) -> None:
    found = report(tokenizers=[tokenizer(), tokenizer("k-means", vocabulary=None, stage_l1_px=None)])
    table = views.terminal(found)
    assert "stage_l1_px" in table and "7.5, 3.25" in table
    assert "vocabulary" not in table and "episode" not in table
    paths, problems = views.write(found, tmp_path)
    assert problems == []
    assert [path.name for path in paths] == ["report.json", "report.html"]
    assert schema.load(paths[0]) == found
    text = paths[-1].read_text()
    assert r'"title":"\u003cb\u003ebins\u003c/b\u003e, expert demonstrations"' in text
    assert "<b>bins" not in text


def test_the_picture_of_a_vocabulary_is_the_vocabularys() -> None:
    row = tokenizer()
    assert row.vocabulary is not None
    picture = pictures.render(row)
    assert picture.startswith(b"\x89PNG")
    assert pictures.render(row) == picture, "the same row, the same picture"
    other = row.vocabulary.model_copy(update={"moves": row.vocabulary.moves[::-1]})
    assert pictures.render(row.model_copy(update={"vocabulary": other})) != picture


def test_a_report_can_be_shown_again(tmp_path: Path) -> None:
    views.write(report(tokenizers=[tokenizer("k-means")]), tmp_path)
    before = (tmp_path / "report.html").read_text()
    (tmp_path / "report.html").unlink()
    show = ["report", "show", str(tmp_path / "report.json")]
    result = CliRunner().invoke(app, show)
    assert result.exit_code == 0
    assert "k-means" in result.output and "7.5, 3.25" in result.output
    assert (tmp_path / "report.html").read_text() == before
    (tmp_path / "report.json").unlink()
    result = CliRunner().invoke(app, show)
    assert result.exit_code == 2
    assert "report.json: cannot be read (No such file" in result.output and "Traceback" not in result.output


def test_each_floor_is_explained_under_the_table_of_throughput() -> None:
    rows = [
        speed("decode", 104.0),  # of a report from before floors had names
        speed("encode", 0.5, PRODUCTS),
        speed("windows", 0.2, "indexing <as many> rows"),
        speed("windows", 0.3, "indexing <as many> rows"),
        speed("bins"),
    ]
    expected = [
        "floor of decode, encode: the matrix products of its network (a table look-up does without them, so "
        "its ratio_to_floor can be above 1)",
        "floor of windows: indexing <as many> rows",
    ]
    found = report(throughput=rows)
    text, html = views.terminal(found), page.render(found, views.sections(found))
    assert text.splitlines()[-2:] == expected
    assert " floor " not in text.split("throughput")[1].splitlines()[1], "no column of its own"
    assert expected[0] in html and "indexing &lt;as many&gt; rows</p>" in html
    assert views.terminal(report(tokenizers=[tokenizer()])).count("floor") == 0
