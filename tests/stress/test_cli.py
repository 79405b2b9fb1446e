import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from il_bench.cli import app
from il_bench.report import schema
from il_bench.stress import curves

pytestmark = pytest.mark.usefixtures("short_episodes")


@pytest.fixture
def short_episodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("il_bench.rollout.blocks.MAX_STEPS", 3)


def stress(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["stress", *map(str, arguments), "--episodes", "2", "--workers", "1"])


def test_rows_are_kept_as_arms_end_and_a_resumed_run_measures_only_what_is_missing(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "stress.json"
    asked = stress(checkpoint, "--arm", "delay", "--output", output)
    assert asked.exit_code == 0, asked.output
    assert "delay 4" in asked.output
    before = schema.load(output).stress
    assert [row.arm for row in before] == ["delay"]
    assert before[0].seeds == (100000, 100001)

    measured = []
    row_of = curves.row_of
    monkeypatch.setattr(curves, "row_of", lambda *given: measured.append(given[1].name) or row_of(*given))
    again = stress(checkpoint, "--arm", "delay", "--arm", "gain", "--output", output, "--resume")
    assert again.exit_code == 0, again.output
    assert measured == ["gain"]
    assert schema.load(output).stress[0] == before[0]
    assert [row.arm for row in schema.load(output).stress] == ["delay", "gain"]

    measured.clear()
    stress(checkpoint, "--arm", "delay", "--output", output, "--resume", "--seeds", "test")
    assert measured == ["delay"]  # of other seeds


def test_rows_of_other_conditions_are_not_continued(checkpoint: Path, tmp_path: Path) -> None:
    output = tmp_path / "stress.json"
    stress(checkpoint, "--arm", "gain", "--output", output)
    content = json.loads(output.read_text())
    content["environment"]["fingerprint"]["torch"] = "1.0"
    output.write_text(json.dumps(content))
    again = stress(checkpoint, "--arm", "gain", "--output", output, "--resume")
    assert again.exit_code == 2
    assert "torch was '1.0'" in again.output
    assert json.loads(output.read_text()) == content


def test_success_at_a_control_frequency(checkpoint: Path) -> None:
    found = stress(checkpoint, "--hz", "10", "--hz", "100", "--latency-ms", "41")
    assert found.exit_code == 0, found.output
    assert "at 10 Hz: 41 ms (given) is 1 control step, 0.0% of the calls miss one" in found.output
    assert "at 100 Hz: 41 ms (given) is 5 control steps, 100.0% of the calls miss one" in found.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--arm", "dealy"], "'dealy' is not a stress arm; use delay"),
        (["--resume"], "--resume: there is nothing to continue without --output"),
        (["--latency-ms", "4"], "--latency-ms: needs a control frequency"),
        (["--hz", "0"], "--hz: 0 is not a number above 0"),
        (["--hz", "10", "--arm", "push"], "leave --arm out"),
        (["no-such-policy"], "no-such-policy: no such policy"),
    ],
)
def test_bad_input_gets_one_sentence(arguments: list[str], said: str) -> None:
    found = stress(*arguments)
    assert found.exit_code == 2
    assert said in found.output.replace("\n", "")
