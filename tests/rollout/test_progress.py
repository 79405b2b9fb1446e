"""What a user sees of a rollout while it runs: a bar on a terminal, lines elsewhere."""

import re
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import TextIO

import pytest

from il_bench.protocol import BLOCK_SIZE
from il_bench.rollout import blocks as module
from il_bench.rollout import progress, rollout
from tests.rollout.conftest import FIRST
from tests.rollout.policies import Wander


@pytest.mark.parametrize(
    ("n_blocks", "at_most", "said", "line"),
    [
        (2, False, ("", "success_rate 0.5"), "act: 100 of 100 episodes, success_rate 0.5"),
        (20, True, ("target 60 %", "target PASS"), "act: 100 of at most 1000 episodes, target PASS"),
    ],
)
def test_progress_lines_say_how_far_it_is_and_end_when_it_ends(
    n_blocks: int, at_most: bool, said: tuple[str, str], line: str
) -> None:
    lines: list[str] = []
    n = n_blocks * BLOCK_SIZE
    with progress.log("act", n, lines.append, nullcontext, at_most=at_most) as on_block:
        for done, each in enumerate(said, 1):
            on_block(done, n_blocks, each)
    assert [line.rsplit(",", 1)[0] for line in lines] == [line]


def test_a_slow_block_shows_its_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also before the first block has ended, so that a slow policy does not look like one that hangs."""
    monkeypatch.setattr(module, "MAX_STEPS", 3)
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    lines: list[str] = []
    with progress.log("act", 2 * BLOCK_SIZE, lines.append, nullcontext) as on_block:
        rollout(Wander(), range(FIRST, FIRST + 2 * BLOCK_SIZE), on_block=on_block)
    assert [line.rsplit(",", 1)[0] for line in lines] == [
        *(f"act: 0 of 100 episodes, step {n} of 3 of seeds 200000-200049" for n in (1, 2, 3)),
        "act: 50 of 100 episodes",
        *(f"act: 50 of 100 episodes, step {n} of 3 of seeds 200050-200099" for n in (1, 2, 3)),
        "act: 100 of 100 episodes",
    ]


def test_the_pace_counts_half_blocks_and_not_those_of_a_journal(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    pace = progress.Pace(500, at_most=True)
    pace.block(2, 10)  # from a journal, in no time
    assert (pace.speed, pace.left, pace.episodes) == ("", "", 100)
    pace.step(progress.Step(FIRST, FIRST + 49, 0, 300))
    now += 10
    pace.step(progress.Step(FIRST, FIRST + 49, 150, 300))
    pace.step(progress.Step(FIRST + 50, FIRST + 99, 150, 300))
    assert (pace.speed, pace.left) == ("5 episodes/s", "at most 70 s left")  # one block of the eight
    now += 20
    pace.block(3, 10)
    assert (pace.speed, pace.left) == ("1.67 episodes/s", "at most 4 min left")
    now += 970
    assert (pace.speed, pace.left) == ("3 episodes/min", "at most 1.9 h left")


def test_what_a_block_elsewhere_tells_is_passed_on_by_telling_it_again() -> None:
    heard: list[progress.Step] = []
    step = progress.Step(FIRST, FIRST + 49, 3, 300)
    progress.tell(step)  # nobody listens
    with progress.told(heard.append):
        progress.tell(step)
    progress.tell(step)
    assert heard == [step]


def in_a_bar(terminal: TextIO, title: str, run: Callable[[progress.OnBlock], None]) -> str:
    """What a terminal is sent while `run` rolls 100 episodes out."""
    with progress.bar(title, 2 * BLOCK_SIZE, terminal, nullcontext) as on_block:
        run(on_block)
    terminal.seek(0)
    return terminal.read()


@pytest.mark.parametrize(
    ("title", "encoding", "shown"),
    [
        ("runs/[red]mine[/]", "utf-8", "runs/[red]mine[/]"),
        ("l\xe4ufe \u2713", "utf-8", "l\xe4ufe \u2713"),
        ("l\xe4ufe \u2713", "ascii", "l?ufe ?"),
        ("\x1b]0;title\x07\udcff", "utf-8", r"\x1b]0;title\x07\udcff"),
    ],
)
def test_a_bar_shows_any_name_as_text(tmp_path: Path, title: str, encoding: str, shown: str) -> None:
    with (tmp_path / "terminal").open("w+", encoding=encoding) as terminal:
        assert shown in in_a_bar(terminal, title, lambda on_block: on_block(1, 2))


def test_a_bar_shows_the_steps_of_a_slow_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_STEPS", 0.0)

    def run(on_block: progress.OnBlock) -> None:
        on_block(1, 2, "target PASS")
        progress.tell(progress.Step(FIRST, FIRST + 49, 7, 300))

    with (tmp_path / "terminal").open("w+") as terminal:
        assert "target PASS, step 7 of 300" in in_a_bar(terminal, "act", run)


@pytest.mark.parametrize("columns", [50, 80, 200])
def test_a_bar_is_one_line_however_narrow_the_terminal(
    columns: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    said = "success_rate 0.960, target 63 % towards PASS, baseline PASS"
    with (tmp_path / "terminal").open("w+") as terminal:
        shown = in_a_bar(terminal, "runs/" + 50 * "long", lambda on_block: on_block(1, 2, said))
    texts = [re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", line).strip() for line in re.split(r"[\r\n]", shown)]
    drawn = [text for text in texts if "50/100" in text]
    assert drawn and all(len(text) <= columns for text in drawn) and set(texts) <= {"", *drawn, texts[1]}
    assert ("baseline PASS" in drawn[0]) is (columns == 200)


def test_a_progress_bar_gives_the_cursor_back_when_a_rollout_fails(tmp_path: Path) -> None:
    with (tmp_path / "terminal").open("w+") as terminal:
        with pytest.raises(RuntimeError), progress.bar("act", 100, terminal, nullcontext) as on_block:
            on_block(1, 2, "target PASS")
            raise RuntimeError
        terminal.seek(0)
        shown = terminal.read()
    assert "50/100" in shown and "target PASS" in shown
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")
